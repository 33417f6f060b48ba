"""What an application forks, and what that forks in its turn: nothing of the worker's is left in it, or taken twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import processes
from harness.clients import get
from harness.gate import Gate
from harness.program import StartProgram

WAYS = {
    "pools": "14",
    "program": "status 0",
    "look": "open",
    "thread": "forked",
    "handlers": "True",
    "dispositions": "True",
    "daemon": "open",
}


@pytest.mark.parametrize("threads", ["1", "2"])
def test_what_a_forked_process_forks_has_its_own_descriptors_handlers_and_locks(
    program: StartProgram, threads: str
) -> None:
    """Pools within pools, preexec_fn, daemons: the numbers that were given back are the application's by then."""
    server = program("forking:app", "--threads", threads)
    assert {way: get(server.address, f"/{way}").text for way in WAYS} == WAYS
    assert server.stop() == 0
    assert "Traceback" not in server.log.text()


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("how", ["return", "raise", "exit"])
def test_a_child_that_comes_back_from_a_call_serves_nobody_and_ends(
    program: StartProgram, gate: Gate, tmp_path: Path, threads: str, how: str
) -> None:
    """The requests that wait are the worker's: each is to reach the application once."""
    calls, access = tmp_path / "calls", tmp_path / "access"
    environ = gate.environ | {"CALLS": str(calls)}
    server = program("forking:app", "--threads", threads, "--access-log", str(access), environ=environ)
    with server.connect() as first, server.connect() as second, server.connect() as third:
        waiting = (second, third)
        first.ask(f"/back?{how}")
        gate.wait_for()
        if threads == "2":  # the other thread, too, is to be in a call
            other = server.connect()
            other.ask("/back?return")
            gate.wait_for()
        for number, wire in enumerate(waiting):
            wire.ask(f"/note?{number}")
        gate.open(int(threads))
        assert first.answer().text == "its status is 0"
        assert [wire.answer().text for wire in waiting] == ["written down"] * 2
        if threads == "2":
            assert other.answer().text == "its status is 0"
            other.close()
    assert server.stop() == 0
    assert sorted(calls.read_text().split()) == ["0", "1"]
    assert access.read_text().count("/note?") == 2
    assert access.read_text().count("/back?") == int(threads)
    assert "a fault in the loop" not in server.log.text()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_child_that_comes_back_when_the_answer_is_out_reports_nothing(program: StartProgram, threads: str) -> None:
    """It has nothing of the connection, which goes on in the worker."""
    server = program("forking:app", "--threads", threads)
    with server.connect() as wire:
        assert [wire.get("/end").text for _ in range(2)] == ["all of it"] * 2
    assert server.stop() == 0
    assert "exception while serving" not in server.log.text()


def test_a_process_of_forking_mixin_writes_nothing_into_files_of_its_own(program: StartProgram, tmp_path: Path) -> None:
    """It tells a loop that it does not have that its socket is closed; and its line of the access log is not lost."""
    folder, access = tmp_path / "files", tmp_path / "access"
    folder.mkdir()
    options = ("--server-class", "forking:Forking", "--access-log", str(access))
    server = program("forking:app", *options, environ={"FOLDER": str(folder)})
    pid = int(get(server.address, "/files").text)
    assert processes.wait_gone(pid)
    assert server.stop() == 0
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert len(sizes) == 40
    assert set(sizes) == {0}
    assert access.read_text().count("/files") == 1


def test_a_background_process_forked_at_import_is_left_alone(program: StartProgram, tmp_path: Path) -> None:
    """It has the title of its template, and becomes the master's child when that ends; it is no lost worker."""
    (tmp_path / "mysite.py").write_text(
        """
import os, signal
from raw import app
if not os.path.exists("daemon"):
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    with open("daemon", "w") as file:
        file.write(str(pid))
"""
    )
    server = program("mysite:app", "--preload", "on")
    first = server.template().pid
    daemon = int((tmp_path / "daemon").read_text())
    server.reload()
    assert processes.wait_gone(first)
    server.log.wait(r"generation 2 serves")
    server.reload()
    assert processes.title(daemon), "it was ended"
    assert "half-forked" not in server.log.text()
    processes.end({daemon})
    assert server.stop() == 0


@pytest.mark.parametrize("preload", ["auto", "on", "off"])
def test_a_process_that_the_application_forks_is_ended_by_term_at_once(
    program: StartProgram, tmp_path: Path, preload: str
) -> None:
    """At import, in post_fork and in a call, also before it has run: a handler of ours would swallow the signal."""
    (tmp_path / "mysite.py").write_text(
        f"""
import multiprocessing, threading

FORK = multiprocessing.get_context("fork")


def status():
    process = FORK.Process(target=threading.Event().wait, daemon=True)
    process.start()
    process.terminate()
    process.join({processes.BOUND})
    return process.exitcode


STATUS = [status()]


def post_fork(worker):
    STATUS.append(status())


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr([*STATUS, status()]).encode()]
"""
    )
    server = program("mysite:app", "--preload", preload, "--hooks", "mysite")
    assert get(server.address, "/").text == "[-15, -15, -15]"
    assert server.stop() == 0


def test_a_helper_process_of_the_import_ends_with_its_worker(program: StartProgram, tmp_path: Path) -> None:
    """A daemon of multiprocessing: its parent ends it by SIGTERM and waits for that."""
    (tmp_path / "mysite.py").write_text(
        """
import multiprocessing, threading

helper = multiprocessing.get_context("fork").Process(target=threading.Event().wait, daemon=True)
helper.start()
with open("helpers", "a") as file:
    file.write(f"{helper.pid}\\n")


def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""
    )
    server = program("mysite:app")
    server.reload()
    server.log.wait(r"generation 2 serves")
    assert server.stop() == 0
    helpers = (tmp_path / "helpers").read_text().split()
    assert len(helpers) >= 4, "a trial's and a worker's, twice"
    assert all(processes.wait_gone(int(pid)) for pid in helpers)
    assert "killed" not in server.log.text()
    assert "leaves" not in server.log.text()
