"""The hooks generation_loaded and request_timeout, and what worker_exit is told, under the real program."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness import BOUND
from harness.gate import Gate
from harness.processes import wait_gone
from harness.program import Program, StartProgram

NOTING = """
import os, threading

def note(text):
    with open({path!r}, "a") as file:
        file.write(text + "\\n")

def generation_loaded(generation):
    note(f"loaded {{generation.number}} {{generation.shared}} {{generation.pid}} {{generation.pid == os.getpid()}}")
    {loaded}

def request_timeout(worker, request):
    note(f"timeout {{worker.number}} {{request.line}} {{request.id}} {{request.client}} {{request.seconds >= 1}}")
    note("stack " + request.stack.partition(chr(10))[0])
    {late}

def worker_exit(worker):
    note(f"exit {{worker.number}} {{worker.generation}} {{worker.reason}}, {{worker.status}}")
"""


def write(folder: Path, loaded: str = "pass", late: str = "pass") -> Path:
    path = folder / "notes"
    (folder / "noting.py").write_text(NOTING.format(path=str(path), loaded=loaded, late=late))
    return path


def notes(path: Path, what: str) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.removeprefix(f"{what} ") for line in lines if line.startswith(what)]


def test_shared_code_is_told_once_in_the_process_that_workers_are_forked_from(
    program: StartProgram, tmp_path: Path
) -> None:
    path = write(tmp_path)
    server = program("raw:app", "--hooks", "noting", "-w", "2", "--preload", "on")
    first = server.template().pid
    server.reload()
    assert server.stop() == 0
    before, after = notes(path, "loaded")
    assert before == f"1 True {first} True"
    assert after.startswith("2 True ")
    assert after.endswith(" True")


def test_code_that_each_worker_imports_is_told_in_each(program: StartProgram, tmp_path: Path) -> None:
    path = write(tmp_path)
    server = program("raw:app", "--hooks", "noting", "-w", "2", "--preload", "off")
    assert sorted(notes(path, "loaded")) == sorted(f"1 False {worker.pid} True" for worker in server.workers())
    assert server.stop() == 0


def test_what_generation_loaded_leaves_behind_is_judged_as_what_the_import_does(
    program: StartProgram, tmp_path: Path
) -> None:
    """A thread would be missing in every worker; that the hook asks for its pid speaks against nothing."""
    path = write(tmp_path, loaded="threading.Thread(target=threading.Event().wait, daemon=True, name='poller').start()")
    server = program("raw:app", "--hooks", "noting")
    server.log.wait("each worker imports for itself.*poller")
    assert [line.split()[1] for line in notes(path, "loaded")] == ["True", "False"]
    assert server.stop() == 0


def test_a_generation_loaded_that_hangs_refuses_the_reload(program: StartProgram, tmp_path: Path) -> None:
    """It counts to boot_timeout, as the import does, and the log shows where it hangs."""
    write(tmp_path)
    server = program("raw:app", "--hooks", "noting", "--boot-timeout", "2")
    since = server.log.mark()
    write(tmp_path, loaded="threading.Event().wait()")
    server.send(signal.SIGHUP)
    assert "boot_timeout" in server.log.wait("reload failed", since).text
    server.log.wait("noting.py.*in generation_loaded", since)
    with server.connect() as wire:
        assert wire.get().status == 200


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_request_that_is_too_long_is_told_with_its_stack_and_its_worker_says_why_it_leaves(
    program: StartProgram, gate: Gate, tmp_path: Path, threads: str
) -> None:
    path = write(tmp_path)
    server = program("faults:app", "--hooks", "noting", "--timeout", "1", "--threads", threads, environ=gate.environ)
    (worker,) = server.workers()
    with server.connect() as wire:
        wire.ask("/lock?password=x", headers="X-Request-Id: slow-one\r\n")
        gate.wait_for()
        assert wire.answer().status == 504
    assert wait_gone(worker.pid, BOUND)
    assert notes(path, "timeout") == ["1 GET /lock slow-one 127.0.0.1 True"]
    assert "faults.py" in notes(path, "stack")[0]
    server.until(lambda: notes(path, "exit"), "the worker's exit")
    assert notes(path, "exit") == ["1 1 timeout, 0"]
    assert server.stop() == 0


def test_a_request_timeout_that_hangs_holds_up_no_answer_and_ends_with_its_worker(
    program: StartProgram, gate: Gate, tmp_path: Path
) -> None:
    """It runs in a thread of its own; at the exit it is waited for, as long as a call may last."""
    write(tmp_path, late="threading.Event().wait()")
    server = program("faults:app", "--hooks", "noting", "--timeout", "1", environ=gate.environ)
    (worker,) = server.workers()
    with server.connect() as wire:
        wire.ask("/lock")
        gate.wait_for()
        assert wire.answer().status == 504
    server.log.wait("hook request_timeout has taken")
    assert wait_gone(worker.pid, BOUND)
    with server.connect() as wire:
        assert wire.get("/pid").status == 200
    assert server.stop() == 0


def exits(server: Program, path: Path, count: int) -> list[str]:
    server.until(lambda: len(notes(path, "exit")) >= count, "the exits")
    return sorted(notes(path, "exit"))


def test_an_exit_is_told_with_its_reason_and_its_status(program: StartProgram, tmp_path: Path) -> None:
    """In the words that the status counts ends by."""
    path = write(tmp_path)
    server = program("raw:app", "--hooks", "noting", "-w", "2")
    server.send(signal.SIGTTOU)
    assert exits(server, path, 1) == ["2 1 fewer workers, 0"]
    server.reload()
    assert exits(server, path, 2)[0] == "1 1 reload, 0"
    assert server.stop() == 0
    assert sorted(notes(path, "exit"))[1:] == ["1 2 stop, 0", "2 1 fewer workers, 0", "2 2 stop, 0"]


def test_a_recycled_worker_knows_it(program: StartProgram, tmp_path: Path) -> None:
    path = write(tmp_path)
    server = program("raw:app", "--hooks", "noting", "--max-requests", "1")
    with server.connect() as wire:
        assert wire.get().status == 200
    assert exits(server, path, 1)[0] == "1 1 recycled, 0"
    server.send(signal.SIGQUIT)
    server.wait()
    assert notes(path, "exit")[-1].endswith("stop, 0")


def test_a_worker_that_does_not_become_ready_knows_it(program: StartProgram, tmp_path: Path) -> None:
    path = write(tmp_path)
    settings = tmp_path / "forkserver.toml"
    settings.write_text('hooks = "noting"\n')
    server = program("raw:app")
    settings.write_text('hooks = "noting"\nready_path = "/fail"\n')
    server.send(signal.SIGHUP)
    server.log.wait("reload failed")
    assert exits(server, path, 1)[0].endswith("not ready, 3")
    assert server.stop() == 0
