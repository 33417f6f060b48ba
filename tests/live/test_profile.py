"""forkserverctl profile finds where the time goes, in every kind of worker, and whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from forkserver.config.accelerator import VARIABLE
from harness import BOUND
from harness.browser import Browser
from harness.clients import get
from harness.controlled import ControlledProgram, StartControlled
from harness.gate import Gate
from harness.load import Load
from harness.program import clean_environment

SITE = """
import os, time

def busy(number):
    total = 0
    for each in range(number):
        total += each
    return total

def slow_query():
    open({arrivals!r}, "wb").write(b".")
    open({passes!r}, "rb", buffering=0).read(1)

def hold_lock():
    sum(range({number}))

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        slow_query()
    elif path == "/hold":
        hold_lock()
    elif path == "/busy":
        busy(3000)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


class Profiled:
    """A service, and a client that profiles it."""

    def __init__(self, service: ControlledProgram, gate: Gate) -> None:
        self.service, self.gate = service, gate
        self.programs: list[subprocess.Popen[str]] = []

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """A client that has been answered: sampling has begun, or is about to."""
        count = self.service.program.log.text().count("forkserverctl: profile")
        command = [sys.executable, "-m", "forkserver.cli.control", "--socket", self.service.path, "profile", *arguments]
        made = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
        )
        self.programs.append(made)
        log = self.service.program.log
        log.until(lambda: log.text().count("forkserverctl: profile") > count, "the command")
        return made

    def take(self, *arguments: str) -> dict[str, Any]:
        """The profile of a client that came to its end."""
        return self.end(self.begin("--json", *arguments))

    def end(self, client: subprocess.Popen[str]) -> dict[str, Any]:
        out, err = client.communicate(timeout=BOUND)
        assert client.returncode == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def close(self) -> None:
        for each in self.programs:
            each.kill()
            each.communicate()


@pytest.fixture
def profiled(controlled: StartControlled, tmp_path: Path, gate: Gate) -> Iterator[Any]:
    made: list[Profiled] = []

    def start(*arguments: str, **environ: str) -> Profiled:
        names = {"arrivals": str(gate.arrivals), "passes": str(gate.passes), "number": 20_000_000}
        (tmp_path / "shop.py").write_text(SITE.format(**names))
        made.append(Profiled(controlled("shop:app", *arguments, environ=environ), gate))
        return made[-1]

    yield start
    for each in made:
        each.close()


def times(profile: dict[str, Any]) -> dict[str, float]:
    """Seconds that each function of the application took by itself."""
    return {each["name"]: each["own_seconds"] for each in profile["functions"] if each["module"] == "shop"}


KINDS = {
    "one thread": ((), {}),
    "threads": (("--threads", "3"), {}),
    "without the extension": ((), {VARIABLE: "off"}),
    "blocking": (("--handler-class", "classes:Blocking"), {}),
    "threads of a class": (("--server-class", "classes:Threading"), {}),
}
CLASSES = """
from socketserver import ThreadingMixIn
from forkserver import WSGIRequestHandler, WSGIServer

class Blocking(WSGIRequestHandler):
    def setup(self):
        super().setup()

class Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_query_is_found_in_every_kind_of_worker(profiled: Any, tmp_path: Path, kind: str) -> None:
    """It waits, and takes nothing of the processor: that is what a person asks for."""
    arguments, environ = KINDS[kind]
    (tmp_path / "classes.py").write_text(CLASSES)
    made: Profiled = profiled("-w", "1", *arguments, **environ)
    calling = threading.Thread(target=lambda: get(made.service.program.address, "/slow?secret=1"))
    calling.start()
    made.gate.wait_for()
    profile = made.take("--seconds", "1", "--by-path")
    made.gate.open()
    calling.join(BOUND)
    assert max(times(profile), key=lambda name: times(profile)[name]) == "slow_query"
    paths = {each["name"] for each in profile["functions"] if not each["module"]}
    assert paths == ({"(no request)"} if kind == "threads of a class" else {"GET /slow"})


def test_an_idle_service_has_no_samples(profiled: Any) -> None:
    made: Profiled = profiled("-w", "2", "--threads", "2")
    profile = made.take("--seconds", "0.5")
    assert profile["samples"] == 0
    assert profile["functions"] == []


def test_code_that_computes_is_seen_where_it_computes(profiled: Any) -> None:
    """Calls that are shorter than the interpreter's own interval between threads would be seen only where they wait."""
    made: Profiled = profiled("-w", "1")
    client = made.begin("--json", "--seconds", "2")
    with Load(made.service.program.address, clients=2, target="/busy") as load:
        profile = made.end(client)
    assert load.lost == []
    assert times(profile)["busy"] > 0.2 * profile["seconds_at_work"]


@pytest.mark.parametrize("threads", ["1", "3"])
def test_code_in_c_that_holds_the_interpreter_has_its_time(profiled: Any, threads: str) -> None:
    """Its end may be seen where the call gives the lock back: the longer the fuller the machine is."""
    made: Profiled = profiled("-w", "1", "--threads", threads)
    client = made.begin("--json", "--seconds", "2")
    for _ in range(4):
        get(made.service.program.address, "/hold")
    profile = made.end(client)
    unseen = sum(each["own_seconds"] for each in profile["functions"] if each["name"].startswith("(unseen"))
    assert times(profile).get("hold_lock", 0) + unseen > 0.5 * profile["seconds_at_work"]


def test_a_second_profile_of_a_worker_is_refused_and_the_first_goes_on(profiled: Any) -> None:
    made: Profiled = profiled("-w", "1")
    first = made.begin("--json", "--seconds", "2")
    second = made.begin("--seconds", "1")
    _, err = second.communicate(timeout=BOUND)
    assert second.returncode == 1
    assert "another profile of it is being taken; ask again when that is over" in err
    assert made.end(first)["ok"]


def test_a_client_that_is_interrupted_shows_what_was_taken_and_the_sampling_stops(profiled: Any) -> None:
    made: Profiled = profiled("-w", "1")
    calling = threading.Thread(target=lambda: get(made.service.program.address, "/slow"))
    calling.start()
    made.gate.wait_for()
    client = made.begin("--seconds", "600")
    (worker,) = made.service.program.workers()
    _until_sampled(made, worker.pid)
    made.service.program.until(lambda: _reads_samples(client.pid), "a client that reads")
    client.send_signal(signal.SIGINT)
    out, _ = client.communicate(timeout=BOUND)
    assert client.returncode == 130
    assert "slow_query" in out
    made.service.program.until(lambda: "profiler" not in _stacks(made), "the end of the thread")
    made.gate.open()
    calling.join(BOUND)
    assert made.take("--seconds", "0.1")["ok"]


def _stacks(made: Profiled) -> str:
    return str(made.service.do("stacks", worker=1)["stacks"])


def _until_sampled(made: Profiled, pid: int) -> None:
    made.service.program.until(lambda: "profiler" in _stacks(made), "the thread")
    made.service.program.until(lambda: _sleeps(pid) > 5, "some samples")


def _reads_samples(pid: int) -> bool:
    """Whether the client has the ring of the samples, and waits for some: before that it has nothing to show."""
    return "memfd:" in Path(f"/proc/{pid}/maps").read_text() and psutil.Process(pid).status() == psutil.STATUS_SLEEPING


def _sleeps(pid: int) -> int:
    """How often the youngest thread of the process has waited for something."""
    youngest = max(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name))
    lines = (youngest / "status").read_text().splitlines()
    (count,) = [int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")]
    return count


def test_the_death_of_a_worker_keeps_what_was_taken_of_it(profiled: Any) -> None:
    made: Profiled = profiled("-w", "1")
    calling = threading.Thread(target=lambda: _get_in_vain(made))
    calling.start()
    made.gate.wait_for()
    client = made.begin("--json", "--seconds", "600")
    (worker,) = made.service.program.workers()
    _until_sampled(made, worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    profile = made.end(client)
    calling.join(BOUND)
    assert profile["notes"] == [f"worker=1 pid={worker.pid}: it has ended"]
    assert "slow_query" in times(profile)


def _get_in_vain(made: Profiled) -> None:
    try:
        get(made.service.program.address, "/slow")
    except (OSError, EOFError, AssertionError, ValueError):
        return


def test_a_reload_in_the_middle_costs_no_request_and_is_told(profiled: Any) -> None:
    made: Profiled = profiled("-w", "2")
    client = made.begin("--json", "--seconds", "600")
    with Load(made.service.program.address, clients=4, target="/busy") as load:
        load.more(100)
        made.service.do("reload", wait=True)
        profile = made.end(client)
        load.more(100)
    assert load.lost == []
    assert len(profile["notes"]) == 2
    assert all("it has ended" in note for note in profile["notes"])
    assert profile["samples"] > 0


def test_a_stopped_worker_is_told_and_the_others_are_sampled(profiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Profiled = profiled("-w", "2", "--timeout", "0")
    victim = made.service.program.workers()[0].pid
    os.kill(victim, signal.SIGSTOP)
    made.service.program.log.wait("was stopped by a signal")
    profile = made.take("--seconds", "0.2")
    os.kill(victim, signal.SIGCONT)
    assert len(profile["notes"]) == 1
    assert f"pid={victim}: it has not told its end" in profile["notes"][0]


def test_the_flame_graph_opens_in_a_browser_and_speedscopes_file_is_whole(profiled: Any, tmp_path: Path) -> None:
    made: Profiled = profiled("-w", "1")
    calling = threading.Thread(target=lambda: get(made.service.program.address, "/slow"))
    calling.start()
    made.gate.wait_for()
    for name in ("flame.svg", "scope.json", "stacks.txt"):
        client = made.begin("--seconds", "0.3", "--output", str(tmp_path / name))
        out, err = client.communicate(timeout=BOUND)
        assert (client.returncode, err) == (0, "")
        assert out.rstrip().endswith(f"written to {tmp_path / name}")
    made.gate.open()
    calling.join(BOUND)
    assert "shop:slow_query" in (tmp_path / "stacks.txt").read_text()
    scope = json.loads((tmp_path / "scope.json").read_text())
    assert "shop:slow_query" in [each["name"] for each in scope["shared"]["frames"]]
    browser = Browser()
    try:
        browser.open((tmp_path / "flame.svg").as_uri())
        titles = browser.evaluate("[...document.querySelectorAll('g > title')].map(each => each.textContent)")
        assert any(title.startswith("shop:slow_query") for title in titles)
        assert browser.complaints == []
        assert [each for each in browser.requests if not each.startswith("file:")] == []
    finally:
        browser.close()


def test_a_file_that_cannot_be_written_is_told_before_anything_is_sampled(profiled: Any, tmp_path: Path) -> None:
    made: Profiled = profiled("-w", "1")
    command = [sys.executable, "-m", "forkserver.cli.control", "--socket", made.service.path, "profile"]
    ran = subprocess.run(
        [*command, "--output", str(tmp_path / "none" / "x.svg")],
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    assert ran.returncode == 2
    assert "No such file or directory; name another file with --output FILE" in ran.stderr
    assert "profile" not in made.service.program.log.text()
