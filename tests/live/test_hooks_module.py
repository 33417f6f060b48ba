"""The hooks module under the real program: when a hook is called, and what one that misbehaves costs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import BOUND
from harness.gate import Gate
from harness.load import Load
from harness.processes import wait_gone
from harness.program import APPS, LaunchProgram, StartProgram

NOTES = """
import os

with open({path!r}, "a") as file:
    file.write(f"imported pid={{os.readlink('/proc/self')}}\\n")  # os.getpid() would speak against sharing

def note(what, worker):
    with open({path!r}, "a") as file:
        own = worker.pid == os.getpid()
        file.write(f"{{what}} {{worker.number}} {{worker.generation}} {{own}} pid={{worker.pid}}\\n")

def post_fork(worker):
    note("post_fork", worker)

def worker_ready(worker):
    note("worker_ready", worker)

def worker_exit(worker):
    note("worker_exit", worker)
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    (tmp_path / "noting.py").write_text(NOTES.format(path=str(path)))
    return path


def read(notes: Path, pid: int = 0) -> list[str]:
    """What was noted, of the process ``pid`` alone if there is one; without the pids."""
    lines = [line.split(" pid=") for line in notes.read_text().splitlines()]
    return [what for what, by in lines if pid in (0, int(by))]


@pytest.mark.parametrize("preload", ["on", "off"])
def test_each_hook_is_called_once_at_its_moment(program: StartProgram, notes: Path, preload: str) -> None:
    """The module is imported where the application is, and the hooks are called in the worker in any case."""
    server = program("raw:app", "--hooks", "noting", "--preload", preload)
    (worker,) = server.workers()
    with server.connect() as wire:
        assert wire.get().status == 200
    imported_by = server.template().pid if preload == "on" else worker.pid
    assert server.stop() == 0
    assert [line for line in read(notes, imported_by) if line.startswith("imported")] == ["imported"]
    called = [line for line in read(notes, worker.pid) if not line.startswith("imported")]
    assert called == ["post_fork 1 1 True", "worker_ready 1 1 True", "worker_exit 1 1 True"]
    assert len(read(notes)) == 4, notes.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
def test_every_orderly_end_is_told(program: StartProgram, notes: Path, number: signal.Signals) -> None:
    """A quick stop too: who counts processes that have died must hear of each."""
    server = program("raw:app", "--hooks", "noting", "-w", "2")
    server.stop(number)
    assert sorted(line for line in read(notes) if line.startswith("worker_exit")) == [
        "worker_exit 1 1 True",
        "worker_exit 2 1 True",
    ]


def test_worker_exit_comes_after_the_last_answer(program: StartProgram, notes: Path, gate: Gate) -> None:
    """A pool that is closed before is missed by the request in flight."""
    server = program("raw:app", "--hooks", "noting", environ=gate.environ)
    (worker,) = server.workers()
    with server.connect() as wire:
        wire.ask("/gate")
        gate.wait_for()
        server.send(signal.SIGTERM)
        server.log.wait("stopping")
        assert read(notes, worker.pid)[-1] == "worker_ready 1 1 True"
        gate.open()
        assert wire.answer().status == 200
    assert server.wait() == 0
    assert read(notes, worker.pid)[-1] == "worker_exit 1 1 True"


def test_a_reload_takes_the_hooks_of_the_new_code_and_tells_the_old_ones(
    program: StartProgram, notes: Path, tmp_path: Path
) -> None:
    """Old workers leave by the code that they came with."""
    server = program("raw:app", "--hooks", "noting")
    (old,) = server.workers()
    with Load(server.address, clients=4) as load:
        load.more(50)
        server.reload()
        load.more(50)
    assert load.lost == []
    assert wait_gone(old.pid, BOUND)
    assert read(notes, old.pid)[-1] == "worker_exit 1 1 True"
    (new,) = server.workers()
    assert read(notes, new.pid) == ["post_fork 1 2 True", "worker_ready 1 2 True"]


@pytest.mark.parametrize("fault", ["raise RuntimeError('on purpose')", "import sys; sys.exit(3)", "1 / 0"])
def test_hooks_that_raise_cost_nothing_but_their_tracebacks(program: StartProgram, tmp_path: Path, fault: str) -> None:
    names = ("post_fork", "worker_ready", "worker_exit")
    (tmp_path / "failing.py").write_text("".join(f"def {name}(worker):\n    {fault}\n" for name in names))
    server = program("raw:app", "--hooks", "failing")
    with server.connect() as wire:
        assert wire.get().status == 200
    assert server.stop() == 0
    for name in names:
        server.log.wait(rf"error worker=1 gen=1 pid=\d+ hook {name}: .*; the worker goes on"), server.log.text()
        server.log.wait(rf"failing.py.*in {name}")


BROKEN = {
    "a module that raises": ("raise RuntimeError('no pool')", "hooks 'noting' failed while it was imported"),
    "a hook that is none": ("post_fork = 7", "hooks 'noting': post_fork is an int, not callable"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("preload", ["on", "off"])
def test_a_module_that_does_not_load_refuses_the_reload(
    program: StartProgram, notes: Path, tmp_path: Path, fault: str, preload: str
) -> None:
    """As the application does, and nobody who asks meanwhile notices."""
    text, said = BROKEN[fault]
    server = program("raw:app", "--hooks", "noting", "--preload", preload)
    before = server.workers()
    with Load(server.address, clients=4) as load:
        load.more(50)
        since = server.log.mark()
        (tmp_path / "noting.py").write_text(text)
        server.send(signal.SIGHUP)
        assert said in server.log.wait("reload failed", since).text
        load.more(50)
    assert load.lost == []
    assert server.workers() == before
    if "raises" in fault:
        server.log.wait("noting.py", since)


@pytest.mark.parametrize(("fault", "status"), [("a module that raises", 3), ("a hook that is none", 2)])
@pytest.mark.parametrize("arguments", [(), ("--check-config",)])
def test_a_first_start_and_a_check_end_with_the_reason(
    launch: LaunchProgram, tmp_path: Path, fault: str, status: int, arguments: tuple[str, ...]
) -> None:
    """The status says whose fault it is: the code's, or the name's."""
    text, said = BROKEN[fault]
    (tmp_path / "noting.py").write_text(text)
    always = ("-b", f"unix:{tmp_path}/s", "--pythonpath", str(APPS), "--hooks", "noting")
    server = launch(*always, *arguments, "raw:app")
    assert server.wait() == status, server.log.text()
    server.log.wait(f"^forkserver: {said}")


def test_a_post_fork_that_hangs_counts_to_boot_timeout(program: StartProgram, tmp_path: Path) -> None:
    """It is a part of the start: the reload is refused, and the stacks say where it hangs."""
    (tmp_path / "hanging.py").write_text("def post_fork(worker): pass\n")
    server = program("raw:app", "--hooks", "hanging", "--boot-timeout", "2")
    since = server.log.mark()
    (tmp_path / "hanging.py").write_text("import threading\ndef post_fork(worker):\n    threading.Event().wait()\n")
    server.send(signal.SIGHUP)
    assert "boot_timeout" in server.log.wait("reload failed", since).text
    server.log.wait("hanging.py.*in post_fork", since)
    with server.connect() as wire:
        assert wire.get().status == 200


@pytest.mark.parametrize("name", ["worker_ready", "worker_exit"])
def test_a_hook_that_hangs_is_found_as_a_call_that_hangs(program: StartProgram, tmp_path: Path, name: str) -> None:
    """Long before ``graceful_timeout``, which bounds how long a worker may take to leave."""
    (tmp_path / "hanging.py").write_text(
        f"import os, threading\n"
        f"def {name}(worker):\n"
        f"    if not os.path.exists({str(tmp_path / 'once')!r}):\n"
        f"        open({str(tmp_path / 'once')!r}, 'w').close()\n"
        f"        threading.Event().wait()\n"
    )
    server = program("raw:app", "--hooks", "hanging", "--timeout", "1")
    (worker,) = server.workers()
    os.kill(worker.pid, signal.SIGTERM)  # heard by one that waits for requests, and not by one that hangs already
    server.log.wait(f"hook {name}")
    assert wait_gone(worker.pid, BOUND)
    server.until(lambda: worker.pid not in {each.pid for each in server.workers()}, "another worker")
    with server.connect() as wire:
        assert wire.get().status == 200
