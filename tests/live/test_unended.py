"""Workers that SIGKILL does not end, because a debugger holds them: a reload and a stop end all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from harness import processes
from harness.controlled import StartControlled

# The kernel keeps a traced process that was killed until its tracer has waited for it, see ptrace(2).
TRACER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
print(os.strerror(ctypes.get_errno()) if libc.ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None) else "", flush=True)
if sys.argv[2:] == ["stop"]:
    libc.ptrace(PTRACE_INTERRUPT, int(sys.argv[1]), None, None)
sys.stdin.read()
"""
STILL = ("--graceful-timeout", "1")

Trace = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def trace() -> Iterator[Trace]:
    """Have a process of its own trace a worker, until its standard input is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(pid: int, *more: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        tracer = subprocess.Popen([sys.executable, "-c", TRACER, str(pid), *more], stdin=pipe, stdout=pipe, text=True)
        started.append(tracer)
        assert tracer.stdout is not None
        if why := tracer.stdout.readline().strip():
            pytest.skip(f"a process cannot be traced here: {why}")
        return tracer

    yield start
    for each in started:
        each.communicate()


def test_a_reload_ends_although_a_debugger_holds_a_worker_of_before(controlled: StartControlled, trace: Trace) -> None:
    server = controlled("raw:app", *STILL)
    (held,) = server.program.workers()
    tracer = trace(held.pid)
    server.do("reload", wait=True)
    assert server.do("status")["generation"] == 2
    server.program.log.wait(rf"pid={held.pid} has not ended 5 s after SIGKILL: process {tracer.pid} \(.*\) traces it")
    tracer.communicate()
    server.program.log.wait(rf"pid={held.pid}, which was killed before, has ended at last")
    server.do("reload", wait=True)
    assert server.program.stop() == 0


def test_a_stop_ends_although_a_debugger_holds_a_worker(controlled: StartControlled, trace: Trace) -> None:
    server = controlled("raw:app", *STILL)
    (held,) = server.program.workers()
    tracer = trace(held.pid)
    assert server.program.stop() == 0
    server.program.log.wait(rf"pid={held.pid} was killed and has not ended: process {tracer.pid} \(.*\) traces it")
    tracer.communicate()
    assert processes.reap(held.pid), "it was left to whatever adopts it"


def test_a_caller_is_told_what_holds_the_worker_that_was_to_be_killed(
    controlled: StartControlled, trace: Trace
) -> None:
    server = controlled("raw:app", *STILL)
    (held,) = server.program.workers()
    tracer = trace(held.pid)
    answer = server.ask("kill", worker=f"pid={held.pid}")
    assert not answer["ok"]
    assert f"pid={held.pid} was sent SIGKILL and has not ended: process {tracer.pid} (" in answer["error"]
    server.program.log.wait(rf"pid={held.pid} has not ended 5 s after SIGKILL")
    server.program.until(lambda: held.pid not in {each.pid for each in server.program.workers()}, "its successor")
    assert server.program.stop() == 0


def test_a_worker_that_a_debugger_has_stopped_is_told_and_not_shown_as_serving(
    controlled: StartControlled, trace: Trace
) -> None:
    server = controlled("raw:app", "--timeout", "1")
    (held,) = server.program.workers()
    tracer = trace(held.pid, "stop")
    server.program.log.wait(
        rf"pid={held.pid} is stopped, and all that it holds waits: process {tracer.pid} \(.*\) traces it"
    )
    assert [each["state"] for each in server.do("status")["workers"]] == ["stopped"]
    tracer.communicate()
    server.program.until(
        lambda: [each["state"] for each in server.do("status")["workers"]] == ["serving"], "it goes on"
    )
    assert server.program.stop() == 0
