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
print(os.strerror(ctypes.get_errno()) if libc.ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None) else "", flush=True)
sys.stdin.read()
"""
STILL = ("--graceful-timeout", "1")

Trace = Callable[[int], subprocess.Popen[str]]


@pytest.fixture
def trace() -> Iterator[Trace]:
    """Have a process of its own trace a worker, until its standard input is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(pid: int) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        tracer = subprocess.Popen([sys.executable, "-c", TRACER, str(pid)], stdin=pipe, stdout=pipe, text=True)
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
