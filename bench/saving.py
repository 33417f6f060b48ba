"""``python -m bench saving``: from saving a file to the new answer, in development, beside other servers.

A module of a Flask application is replaced, as an editor does it, and the application is asked until its answer is the
new one. What an import of the application takes by itself is measured too, and is a part of each figure. Flask's own
server and gunicorn are those of the environment that the bench runs in.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import machine
from bench.servers import free_port

SITE: Final = """
from flask import Flask
import helper

app = Flask(__name__)


@app.get("/")
def show():
    return helper.TEXT
"""
IMPORT: Final = "import time; begun = time.perf_counter(); import site_app; print(time.perf_counter() - begun)"
PYTHON: Final = (sys.executable, "-m")
SERVERS: Final = {
    "forkserver --dev": (*PYTHON, "forkserver", "--dev", "-b", "127.0.0.1:{port}", "site_app:app"),
    "flask run --debug": (*PYTHON, "flask", "--app", "site_app", "run", "--debug", "--port", "{port}"),
    "gunicorn --reload": (*PYTHON, "gunicorn", "--reload", "-b", "127.0.0.1:{port}", "site_app:app"),
}
WAIT_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 1.5  # between two changes: a watcher that looks once a second has seen the last one
PAUSE_SECONDS: Final = 0.005


def main(arguments: list[str]) -> int:
    """Print a table; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench saving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="changes, of which the median counts")
    rounds = parser.parse_args(arguments).rounds
    print(machine.description(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site_app.py").write_text(SITE)
        save(folder, "0")
        print(f"the import alone: {statistics.median(import_seconds(folder) for _ in range(5)) * 1000:.0f} ms")
        print("| | median, ms | slowest, ms |\n|---|---|---|")
        for server, words in SERVERS.items():
            try:
                found = measured(folder, words, rounds)
            except (OSError, TimeoutError) as error:
                print(f"| {server} | {error} | |")
                continue
            print(f"| {server} | {statistics.median(found) * 1000:.0f} | {max(found) * 1000:.0f} |", flush=True)
    return 0


def environment(folder: Path) -> dict[str, str]:
    # A module is written twice within a second; a .pyc could not tell the two apart.
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}


def import_seconds(folder: Path) -> float:
    """What the import of the application takes in a process that has imported nothing."""
    command = [sys.executable, "-c", IMPORT]
    return float(subprocess.run(command, env=environment(folder), check=True, capture_output=True, text=True).stdout)


def save(folder: Path, text: str) -> None:
    """Replace the module, as editors do."""
    (folder / "helper.new").write_text(f"TEXT = {text!r}\n")
    (folder / "helper.new").replace(folder / "helper.py")


def measured(folder: Path, words: tuple[str, ...], rounds: int) -> list[float]:
    """Seconds from each change to the answer that shows it. Raises TimeoutError."""
    port = free_port()
    found = []
    with running(folder, [word.format(port=port) for word in words]):
        save(folder, "begin")
        wait_for(port, "begin")
        for number in range(rounds):
            time.sleep(SETTLE_SECONDS)
            begun = time.perf_counter()
            save(folder, str(number))
            wait_for(port, str(number))
            found.append(time.perf_counter() - begun)
    return found


@contextmanager
def running(folder: Path, command: list[str]) -> Iterator[None]:
    output = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=output, stderr=output, process_group=0
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(WAIT_SECONDS)


def wait_for(port: int, text: str) -> None:
    """Ask until the answer is ``text``. Raises TimeoutError."""
    until = time.perf_counter() + WAIT_SECONDS
    while time.perf_counter() < until:
        if answer(port) == text:
            return
        time.sleep(PAUSE_SECONDS)
    raise TimeoutError(f"it did not show the change within {WAIT_SECONDS:g} s")


def answer(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):  # it is not there yet, or again
        return ""
    finally:
        connection.close()
