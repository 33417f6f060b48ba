"""Real applications under forkserver's defaults and under gunicorn's, side by side; ``make applications`` runs it.

    python applications.py [--only NAME,NAME...] [-- FLAGS OF FORKSERVER]

Each application of the folder ``sites`` is served by workers that are recycled and reloaded while clients ask, and is
stopped, mostly by TERM to its process group, while they go on. A row shows for each server how many answers were right,
how many were wrong (another client's, or acknowledged and not kept), and how many requests had none. The exit status
is 1 where forkserver was wrong, or answered fewer than gunicorn.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.program import own_address

SITES = Path(__file__).with_name("sites")
SERVERS = ("forkserver", "gunicorn")
CLIENTS = 8
REQUESTS = 60  # of each client, before the stop
RELOADS = 2
HANGS = 60.0  # seconds; no start, stop or request that goes well takes so long
LOOK_SECONDS = 0.1  # between two looks whether a server answers
NOTES = 3  # of each run
GONE = (ConnectionRefusedError,)  # a client that connects after the stop is told so
READ_ZODB = """
import ZODB, ZODB.FileStorage
print(len(ZODB.DB(ZODB.FileStorage.FileStorage("Data.fs", read_only=True)).open().root()))
"""


class Tally:
    """What became of the requests of one run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.seen: set[bytes] = set()
        self.stopping = False
        self._lock = threading.Lock()

    def count(self, outcome: str, note: str = "") -> None:
        """Add one to ``outcome``: right, wrong or lost."""
        with self._lock:
            self.counts[outcome] += 1
            if outcome != "right" and len(self.notes) < NOTES:
                self.notes.append(f"{outcome}: {note[:300]}")

    def is_new(self, data: bytes) -> bool:
        """Whether ``data`` was not seen before."""
        with self._lock:
            known = data in self.seen
            self.seen.add(data)
            return not known


class GoneError(Exception):
    """The server has stopped."""


class Client:
    """One keep-alive connection, opened anew after it has ended; nothing is asked twice."""

    def __init__(self, address: tuple[str, int], tally: Tally) -> None:
        self.address = address
        self.tally = tally
        self._http = http.client.HTTPConnection(*address, timeout=HANGS)

    def expect(self, wanted: bytes | Callable[[bytes], bool], body: bytes | None = None) -> None:
        """Ask for ``/``, and count what comes. Raises GoneError where the server has stopped."""
        try:
            self._http.request("POST" if body else "GET", "/", body)
            answer = self._http.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            if self.tally.stopping and isinstance(error, GONE):
                raise GoneError from error
            self.tally.count("lost", repr(error))
            return
        if answer.status != 200:
            self.tally.count("lost", f"status {answer.status}")
        else:
            right = wanted(data) if callable(wanted) else data == wanted
            self.tally.count("right" if right else "wrong", repr(data))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class Application(NamedTuple):
    """``ask`` sends one request with a text of its own; ``after`` judges what the run has left in its folder."""

    site: str
    ask: Callable[[Client, str], None]
    after: Callable[[Path, Tally], None] = lambda _folder, _tally: None
    flags: tuple[str, ...] = ()  # of both servers
    gunicorn: tuple[str, ...] = ()  # more of its own
    group: bool = True  # TERM goes to the whole process group; not where it would end processes of the application


def echo(client: Client, text: str) -> None:
    """The answer is what was sent."""
    client.expect(text.encode(), text.encode())


def number(client: Client, _text: str) -> None:
    """No two answers are the same random number."""
    client.expect(client.tally.is_new)


def picture(client: Client, _text: str) -> None:
    """The answer is a whole PNG file."""
    client.expect(lambda data: data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82"))


def page(client: Client, _text: str) -> None:
    """Zope's own first page."""
    client.expect(lambda data: b"Zope" in data)


def web_socket(client: Client, text: str) -> None:
    """Each message comes back."""
    import websocket

    try:
        connection = websocket.create_connection("ws://{}:{}/echo".format(*client.address), timeout=HANGS)
        try:
            connection.send(text)
            client.tally.count("right" if connection.recv() == text else "wrong", text)
        finally:
            connection.close()
    except (OSError, websocket.WebSocketException) as error:
        if client.tally.stopping and isinstance(error, GONE):
            raise GoneError from error
        client.tally.count("lost", repr(error))


def rows(folder: Path, tally: Tally) -> None:
    """Every row that was acknowledged is in the database, and the database is sound."""
    with sqlite3.connect(folder / "rows.db") as database:
        (found,) = database.execute("select count(*) from rows").fetchone()
        (sound,) = database.execute("pragma integrity_check").fetchone()
    if found < tally.counts["right"] or sound != "ok":
        tally.count("wrong", f"{tally.counts['right']} rows acknowledged, {found} found, integrity: {sound}")


def objects(folder: Path, tally: Tally) -> None:
    """Every object that was acknowledged is in the ZODB."""
    shown = subprocess.run([sys.executable, "-c", READ_ZODB], cwd=folder, capture_output=True, text=True)
    if shown.returncode or int(shown.stdout) < tally.counts["right"]:
        found = shown.stdout.strip() or shown.stderr.strip().rpartition("\n")[2]
        tally.count("wrong", f"{tally.counts['right']} objects acknowledged, found: {found}")


THREADS = ("--threads", "16")
APPLICATIONS = (
    Application("django_sqlite", echo, rows),
    Application("sqlite_at_import", echo, rows),
    Application("flask_helper", echo, group=False),
    Application("nested_pool", echo, group=False),
    Application("numpy_pandas", number),
    Application("matplotlib_figures", picture),
    Application("flask_sock_echo", web_socket, flags=THREADS, gunicorn=("-k", "gthread")),
    Application("zodb_objects", echo, objects),
    Application("zope_site", page),
)


class Run:
    """One application under one server; ``status`` is the server's exit status, ``log`` its error log."""

    def __init__(self, server: str, application: Application, folder: Path, flags: list[str]) -> None:
        self.server = server
        self.application = application
        self.folder = folder
        self.flags = flags
        self.tally = Tally()
        self.status: int | None = None
        self.log = ""

    def run(self) -> None:
        """Start, ask, reload, stop, judge."""
        shutil.copy(SITES / f"{self.application.site}.py", self.folder)
        with sqlite3.connect(self.folder / "rows.db") as database:
            database.execute("create table rows (text)")
        database.close()
        address = own_address()
        process = subprocess.Popen(
            self._command(address),
            cwd=self.folder,
            start_new_session=True,  # a process group of its own, for TERM to reach the workers too
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait_ready(address, process)
            self._drive(address, process)
            self.status = process.wait(HANGS)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            self.tally.count("lost", str(error))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.application.after(self.folder, self.tally)
        self.log = (self.folder / "log").read_text(errors="replace")

    def _command(self, address: tuple[str, int]) -> list[str]:
        always = ["-w", "4", "-b", "{}:{}".format(*address), "--max-requests", "50", "--max-requests-jitter", "10"]
        mine = [*self.flags] if self.server == "forkserver" else [*self.application.gunicorn]
        program = str(Path(sys.executable).with_name(self.server))
        site = f"{self.application.site}:application"
        return [program, *always, "--error-logfile", "log", *self.application.flags, *mine, site]

    def _wait_ready(self, address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
        """Wait for an answer of any kind. Raises TimeoutError."""
        over = time.monotonic() + HANGS
        while time.monotonic() < over and process.poll() is None:
            client = http.client.HTTPConnection(*address, timeout=HANGS)
            try:
                client.request("GET", "/")
                client.getresponse().read()
                return
            except (OSError, http.client.HTTPException):
                time.sleep(LOOK_SECONDS)
            finally:
                client.close()
        raise TimeoutError(f"no answer after the start; exit status {process.poll()}")

    def _drive(self, address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
        """All clients at once, reloads among them; when each has done its part, they go on until the stop is over."""
        done = threading.Semaphore(0)
        clients = [threading.Thread(target=self._ask, args=(address, each, done)) for each in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(RELOADS):
            self._wait_for(done, CLIENTS * REQUESTS // (RELOADS + 1))
            process.send_signal(signal.SIGHUP)
        self._wait_for(done, CLIENTS * REQUESTS // (RELOADS + 1))
        self.tally.stopping = True
        if self.application.group and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        for client in clients:
            client.join()

    def _wait_for(self, done: threading.Semaphore, count: int) -> None:
        for _ in range(count):
            if not done.acquire(timeout=HANGS):
                raise TimeoutError("the clients do not come forward")

    def _ask(self, address: tuple[str, int], name: int, done: threading.Semaphore) -> None:
        client = Client(address, self.tally)
        # Bounded in any case: a server that is gone ends it sooner.
        for each in range(100 * REQUESTS):
            try:
                self.application.ask(client, f"{name}-{each}")
            except GoneError:
                break
            finally:
                done.release()
        client.close()

    def row(self) -> str:
        """What became of it, as one line of JSON and lines of notes."""
        counts = {outcome: self.tally.counts[outcome] for outcome in ("right", "wrong", "lost")}
        facts = {"application": self.application.site, "server": self.server, **counts, "exit status": self.status}
        said = told(self.log).most_common(8) if self.server == "forkserver" else []
        lines = [*self.tally.notes, *(f"{count} times: {line[:300]}" for line, count in said)]
        return "\n    ".join([json.dumps(facts), *lines])


def told(log: str) -> Counter[str]:
    """Warnings and errors of a log without their times and processes, counted."""
    lines = (line.partition(" ")[2] for line in log.splitlines() if re.match(r"\S+ (warning|error) ", line))
    return Counter(re.sub(r"(pid|worker|gen)=\d+", r"\1=N", line) for line in lines)


def main() -> int:
    """Run what was asked for; 1 where forkserver does worse than gunicorn."""
    parser = argparse.ArgumentParser(description="Real applications under forkserver and gunicorn.")
    parser.add_argument("--only", default="", help="applications, with commas; all by default")
    parser.add_argument("flags", nargs="*", help="flags of forkserver, after --")
    asked = parser.parse_args()
    worse = False
    for application in APPLICATIONS:
        if asked.only and application.site not in asked.only.split(","):
            continue
        counts = {}
        for server in SERVERS:
            with tempfile.TemporaryDirectory(prefix="forkserver-applications-") as folder:
                run = Run(server, application, Path(folder), asked.flags)
                run.run()
            print(run.row(), flush=True)
            counts[server] = run.tally.counts
        mine, other = counts["forkserver"], counts["gunicorn"]
        worse |= mine["wrong"] > 0 or mine["lost"] > other["lost"]
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
