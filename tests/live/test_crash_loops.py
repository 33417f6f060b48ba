"""Workers that die as fast as they are started, and forks that fail or hang: tried again ever later, in few words."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from harness import processes, reach
from harness.clients import get
from harness.gate import Gate
from harness.program import LaunchProgram, Program, StartProgram

# Hooks of the application's that fail around each fork while a file is there that the test makes.
FAULTY = """
import os, resource, threading

def before_fork():
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (0 if os.path.exists({full!r}) else hard, hard))

def after_fork():
    if os.path.exists({dies!r}):
        os._exit(9)
    if os.path.exists({hangs!r}):
        with open(os.environ["GATE_ARRIVALS"], "wb", buffering=0) as arrivals:
            arrivals.write(b".")
        threading.Event().wait()

os.register_at_fork(before=before_fork, after_in_child=after_fork)

def app(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Faults:
    """The folder of an application that fails when the test wants it."""

    def __init__(self, folder: Path) -> None:
        self.dies, self.hangs, self.full = folder / "dies", folder / "hangs", folder / "full"
        names = {"dies": str(self.dies), "hangs": str(self.hangs), "full": str(self.full)}
        (folder / "mysite.py").write_text(FAULTY.format(**names))


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path)


def test_a_crash_loop_is_stated_once_then_counted(program: StartProgram, faults: Faults) -> None:
    """The line that says why must not drown in its own repetitions."""
    server = program("mysite:app", "-w", "2")
    survivor, victim = server.workers()
    since = server.log.mark()
    faults.dies.touch()
    os.kill(victim.pid, signal.SIGKILL)
    server.log.wait(r"worker=2 gen=1 pid=\? did not start: .*; it is replaced in 0\.5 s", since)
    server.log.wait(r"worker=2 gen=1 pid=\? did not start: the same again, 1 time; it is replaced in 1\.0 s", since)
    server.log.wait(r"the same again, 2 times; it is replaced in 2\.0 s", since)
    with server.connect() as wire:
        assert wire.get().text == str(survivor.pid), "who lives serves on"
    faults.dies.unlink()
    server.until(lambda: len(server.workers()) == 2, "the worker that starts at last")


def test_an_import_that_fails_in_each_worker_shows_its_traceback_once(program: StartProgram, tmp_path: Path) -> None:
    (tmp_path / "mysite.py").write_text("from raw import app\n")
    server = program("mysite:app", "-w", "2", "--preload=off")
    since = server.log.mark()
    (tmp_path / "mysite.py").write_text("raise RuntimeError('no database')\n")
    for worker in server.workers():
        os.kill(worker.pid, signal.SIGKILL)
    server.log.wait(r"did not start: the same again, 3 times; it is replaced in \d+\.\d s", since)
    said = "\n".join(entry.text for entry in server.log.entries[since:])
    assert said.count("RuntimeError: no database") <= 2, f"in the reason, and at the end of one traceback:\n{said}"
    assert said.count("Traceback") == 1


def test_a_worker_that_dies_before_it_speaks_is_told_with_its_pid(program: StartProgram, tmp_path: Path) -> None:
    """At-fork hooks of the application run before any code of ours in the new process."""
    (tmp_path / "mysite.py").write_text(
        f"""
import os
from raw import app
here = int(os.readlink("/proc/self"))  # os.getpid() would speak against sharing this import

def after_fork():
    grandchild = os.getppid() != here  # the worker; between it and the template stands one that ends at once
    if grandchild and os.path.exists({str(tmp_path / "dies")!r}):
        os._exit(9)

os.register_at_fork(after_in_child=after_fork)
"""
    )
    server = program("mysite:app")
    (worker,) = server.workers()
    since = server.log.mark()
    (tmp_path / "dies").touch()
    os.kill(worker.pid, signal.SIGKILL)
    found = server.log.wait(r"worker=1 gen=1 pid=\d+ did not start: exit status 9, by itself", since)
    assert str(worker.pid) not in found.text


def test_a_request_that_kills_its_worker_again_and_again_leaves_no_time_without_a_worker(
    program: StartProgram, tmp_path: Path
) -> None:
    """Each worker is replaced at once; a delay would keep the clients that do no harm waiting."""
    (tmp_path / "mysite.py").write_text(
        """
import os, signal

def app(environ, start_response):
    if environ["PATH_INFO"] == "/kill":
        os.kill(os.getpid(), signal.SIGKILL)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
    )
    server = program("mysite:app", "-w", "2")
    since = server.log.mark()
    for _ in range(16):
        with server.connect() as killing:
            killing.ask("/kill")
            assert killing.ended()
        with server.connect() as wire:
            assert wire.get().text == "ok"
    assert server.stop() == 0
    said = [entry.text for entry in server.log.entries[since:] if re.search(" error .*SIGKILL", entry.text)]
    assert all(re.search("; it is replaced(; |$)| more workers? crashed within", text) for text in said), said
    full = [text for text in said if "; it is replaced" in text]
    counted = [int(number) for text in said if (number := _counted(text)) is not None]
    assert len(full) >= 10, "ten in full, then one more every ten seconds"
    assert len(full) + sum(counted) == 16, "lines that count have the rest"


def _counted(text: str) -> str | None:
    """How many requests a line that sums up crashes speaks of; None for another line."""
    found = re.search(r"more workers? crashed within .*; they were serving GET /kill \((\d+)\)$", text)
    return found[1] if found else None


@pytest.fixture
def half_forked(program: StartProgram, faults: Faults, gate: Gate) -> Callable[[str], Program]:
    """A program whose template stands in a fork that hangs in a hook of the application."""

    def make(boot_timeout: str) -> Program:
        server = program("mysite:app", "-w", "2", "--boot-timeout", boot_timeout, environ=gate.environ)
        faults.hangs.touch()
        os.kill(server.workers()[0].pid, signal.SIGKILL)
        gate.wait_for()
        faults.hangs.unlink()
        return server

    return make


def test_a_template_that_hangs_in_a_fork_is_killed_and_replaced(half_forked: Callable[[str], Program]) -> None:
    server = half_forked("4")
    template = server.template()
    (between,) = psutil.Process(template.pid).children()
    server.log.wait(rf"template gen=1 pid={template.pid} has not forked a worker within boot_timeout")
    assert processes.wait_gone(template.pid)
    assert processes.wait_gone(between.pid), "it was known to the template alone, and ends with it"
    server.until(lambda: len(server.workers()) == 2, "a worker of the next generation")
    assert {worker.generation for worker in server.workers()} == {1, 2}
    assert server.stop() == 0


def test_a_stop_leaves_no_half_forked_process(half_forked: Callable[[str], Program]) -> None:
    """The template cannot hear, and what it waits for never ends. The end of every test looks for what is left."""
    server = half_forked("60")
    (between,) = psutil.Process(server.template().pid).children()
    assert server.stop() == 0
    assert processes.wait_gone(between.pid)


# No process to be had


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that the application's user may enter."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with reach.public_folder() as made:
        yield made


@pytest.fixture
def public_faults(folder: Path) -> Faults:
    return Faults(folder)


@pytest.fixture
def limited(launch: LaunchProgram, folder: Path, public_faults: Faults) -> Program:
    """A program whose template counts against a limit of processes, which root's does not."""
    arguments = ["-b", f"unix:{folder}/app.sock", "-w", "2", "mysite:app"]
    if os.geteuid() == 0:
        server = launch("--user", "nobody", *arguments, cwd=folder, command=reach.command(folder))
    else:
        server = launch(*arguments, cwd=folder)
    return server.wait_ready()


@pytest.mark.permission
def test_a_fork_that_fails_is_waited_out(limited: Program, public_faults: Faults, folder: Path) -> None:
    """EAGAIN says nothing of the code: the same template forks again as soon as it can."""
    server, address = limited, f"{folder}/app.sock"
    template = server.template()
    victim, survivor = server.workers()
    public_faults.full.touch()
    since = server.log.mark()
    os.kill(victim.pid, signal.SIGKILL)
    limit = r"\(RLIMIT_NPROC of uid \d+ is 0; raise LimitNPROC= of the unit, or ulimit -u\)"
    server.log.wait(f"no new process: cannot fork a worker: Resource .* {limit}; next try in 0.5 s", since)
    server.log.wait("no new process: the same again, 2 times; next try in 2.0 s", since)
    assert get(address).text == str(survivor.pid)
    public_faults.full.unlink()
    _until_answered_by_another(address, {victim.pid, survivor.pid})
    assert server.template() == template
    assert server.stop() == 0


@pytest.mark.permission
@pytest.mark.as_user  # root's master is not limited
def test_a_reload_waits_for_a_fork_that_fails(limited: Program, folder: Path) -> None:
    server = limited
    hard = resource.prlimit(server.pid, resource.RLIMIT_NPROC)[1]
    before = {worker.pid for worker in server.workers()}
    resource.prlimit(server.pid, resource.RLIMIT_NPROC, (0, hard))
    since = server.log.mark()
    server.send(signal.SIGHUP)
    server.log.wait("no new process: cannot fork a template: Resource temporarily unavailable .*; next try in", since)
    assert int(get(f"{folder}/app.sock").text) in before
    resource.prlimit(server.pid, resource.RLIMIT_NPROC, (hard, hard))
    server.log.wait("generation 2 serves", since)
    assert server.stop() == 0


def _until_answered_by_another(address: str, before: set[int]) -> None:
    """Ask until a worker that is not among those ``before`` answers."""
    while int(get(address).text) in before:
        continue
