"""Prometheus scrapes a service under load for minutes, and its figures are compared with the access log.

python tests/soak/scraping.py [--minutes 10] [--rate 30] [--folder FOLDER]

Meanwhile the service is reloaded five times, five of its workers are killed, and it is upgraded once. In the end no
counter may have fallen at any scrape, and answers, bytes and histograms must agree with the access log to 1 %.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import http.client
import json
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the tests' own modules, in place of this folder's

from harness import BOUND  # noqa: E402 - only now found
from harness.admin_clients import AdminClient  # noqa: E402
from harness.program import Program, listener  # noqa: E402
from harness.prometheus import Prometheus  # noqa: E402
from harness.upgrading import upgrade  # noqa: E402

APP = """
import random, time

def app(environ, start_response):
    time.sleep(random.expovariate(100))
    environ["wsgi.input"].read()
    body = b"x" * random.randrange(100, 20000)
    start_response(random.choice(["200 OK"] * 8 + ["404 Not Found", "500 Oh"]), [("Content-Length", str(len(body)))])
    return [body]
"""
CLIENTS = 6
AGREE = 0.01  # of the access log's figure


class Clients:
    """``CLIENTS`` threads that ask ``rate`` times a second together, from ``__enter__`` until ``__exit__``."""

    def __init__(self, address: tuple[str, int], rate: float) -> None:
        self.address, self.pause = address, CLIENTS / rate
        self.answered, self.lost = 0, 0
        self._lock, self._leave = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        for thread in self._threads:
            thread.join(BOUND)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=BOUND)
        while not self._leave.wait(self.pause):
            try:
                connection.request("POST", "/page", b"y" * 500)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):  # its worker was killed
                connection.close()
                with self._lock:
                    self.lost += 1
            else:
                with self._lock:
                    self.answered += 1
        connection.close()

    def wait(self, seconds: float) -> None:
        self._leave.wait(seconds)


def kill(program: Program) -> None:
    """SIGKILL for a worker, and wait for the worker that replaces it."""
    since = program.log.mark()
    os.kill(program.workers()[0].pid, signal.SIGKILL)
    program.log.wait(r"killed by SIGKILL", since)


def happenings() -> Iterable[tuple[str, Callable[[Program], None]]]:
    """What happens to the service, in this order."""
    for number in range(5):
        yield "reload", Program.reload
        if number == 2:
            yield "upgrade", upgrade
        yield "kill", kill


def from_log(path: Path) -> dict[str, float]:
    """What the access log has of each figure, under the names of Prometheus' series."""
    found: collections.Counter[str] = collections.Counter()
    for line in path.read_text().splitlines():
        entry: dict[str, Any] = json.loads(line)
        found[f'forkserver_answers_total{{class="{entry["status"] // 100}xx"}}'] += 1
        found["forkserver_answer_body_bytes_total"] += entry["bytes"]
        for name, field in (("application", "app_seconds"), ("waiting", "wait_seconds")):
            found[f"forkserver_{name}_seconds_count"] += 1
            found[f"forkserver_{name}_seconds_sum"] += entry[field]
    return dict(found)


def bucket_differences(prometheus: Prometheus, path: Path) -> float:
    """The greatest difference between a bucket of the application's time and the access log's, as a share of all."""
    times = sorted(json.loads(line)["app_seconds"] for line in path.read_text().splitlines())
    buckets = prometheus.series("forkserver_application_seconds_bucket")
    return max(abs(value - bisect.bisect_right(times, float(labels["le"]))) for labels, value in buckets) / len(times)


def resets(prometheus: Prometheus, names: Iterable[str], minutes: int) -> dict[str, float]:
    """How often each series has fallen."""
    return {
        f"{name} {labels}": value
        for name in names
        for labels, value in prometheus.series(f"resets({name}[{minutes}m])")
    }


def counters(admin: AdminClient) -> list[str]:
    """The names of all series that may not fall."""
    told = admin.ask("/metrics")[1]
    parts = [
        f"{name}_{part}"
        for name in re.findall(r"(?m)^# TYPE (\S+) histogram$", told)
        for part in ("bucket", "count", "sum")
    ]
    return re.findall(r"(?m)^# TYPE (\S+) counter$", told) + parts


def scraped(program: Program, minutes: float, rate: float, folder: Path) -> bool:
    """Whether all agrees; what was found is printed."""
    prometheus = Prometheus(AdminClient(program), folder, interval=1000)
    try:
        prometheus.until("up == 1")
        events = list(happenings())
        with Clients(program.address, rate) as clients:
            for name, happens in events:
                clients.wait(minutes * 60 / (len(events) + 1))
                happens(program)
                print(f"{name}: {clients.answered} answered, {clients.lost} lost", flush=True)
            clients.wait(minutes * 60 / (len(events) + 1))
        print(f"{minutes:g} minutes: {clients.answered} answered, {clients.lost} lost")
        logged = from_log(folder / "access.log")
        least = sum(value for name, value in logged.items() if "answers" in name)
        prometheus.until(f"sum(forkserver_answers_total) >= {least - clients.lost}")
        return report(prometheus, AdminClient(program), logged, folder, int(minutes) + 2)
    finally:
        prometheus.close()


def report(prometheus: Prometheus, admin: AdminClient, logged: dict[str, float], folder: Path, minutes: int) -> bool:
    fallen = resets(prometheus, counters(admin), minutes)
    print(f"scrapes: {prometheus.query(f'count_over_time(up[{minutes}m])')}, answered: "
          f"{prometheus.query(f'sum_over_time(up[{minutes}m])')}")  # fmt: skip
    print(f"series that may not fall: {len(fallen)}, fallen: { {name for name, value in fallen.items() if value} }")
    well = bool(fallen) and not any(fallen.values())
    for name, value in sorted(logged.items()):
        (figure,) = prometheus.query(name)
        share = abs(figure - value) / value
        well = well and share <= AGREE
        print(f"{name}: {figure:.10g}, in the access log {value:.10g}, apart {share:.4%}")
    apart = bucket_differences(prometheus, folder / "access.log")
    print(f"forkserver_application_seconds_bucket: at most {apart:.4%} of all requests apart")
    return well and apart <= AGREE


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/soak/scraping.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=30, help="requests a second")
    parser.add_argument("--folder", type=Path, help="for logs and Prometheus' data; a new one by default")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="forkserver-scraping-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scraped.py").write_text(APP)
    flags = ["-w", "4", "--admin-bind", "127.0.0.1:0", "--access-log-format", "json"]
    with listener() as made:
        program = Program(
            ["scraped:app", *flags, "--access-log", str(folder / "access.log")],
            cwd=folder, listeners=[made], address=made.getsockname(),
        )  # fmt: skip
    try:
        program.wait_ready()
        well = scraped(program, options.minutes, options.rate, folder)
        program.stop()
    finally:
        (folder / "error.log").write_text(program.log.text())
        program.close()
    print("it agrees" if well else f"FAILED; its files are in {folder}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
