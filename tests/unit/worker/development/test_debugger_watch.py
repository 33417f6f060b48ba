"""When a debugger counts as in use."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Audit hooks stay for as long as their process: in one of its own.
PROGRAM = """
import os, select, sys
from forkserver.ipc.scoreboard import Row
from forkserver.server.threads.request_deadline import RequestDeadline
from forkserver.worker.development.debugger_watch import DebuggerWatch

row = Row(memoryview(bytearray(4096)), 0, 2)
deadline = RequestDeadline(row, 30.0)
deadline.enlist(0)
told = []
watch = DebuggerWatch(row, deadline, told.append)

def hear():
    if select.select([watch.fileno()], [], [], 0)[0]:
        watch.hear()

{body}
print(told)
"""


def run(body: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], input="c\n", capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1].removeprefix("(Pdb) ")


@pytest.mark.process
def test_a_call_that_reads_a_line_or_traces_uses_one_until_it_is_over() -> None:
    for use in ("input()", "sys.settrace(None)", "breakpoint()"):
        body = (
            f"row.begin(b'GET /')\n{use}\nhear()\nassert not watch.look()\nrow.end()\nassert watch.look()\nwatch.end()"
        )
        assert run(body) == "[True, False]", use


@pytest.mark.process
def test_such_a_call_has_all_the_time_that_it_likes() -> None:
    body = "row.begin(b'GET /')\ninput()\ntold.append(row.busy().deadline - row.busy().since > 30 * 86400 * 10**9)"
    assert run(body) == "[True]"


@pytest.mark.process
def test_what_reads_a_line_outside_of_calls_is_none() -> None:
    assert run("input()\nhear()\nassert not watch.look()") == "[]"


@pytest.mark.process
def test_a_process_that_the_application_has_forked_tells_nothing() -> None:
    body = (
        "row.begin(b'GET /')\nif not (pid := os.fork()):\n    watch.forget()\n    input()\n    watch.forget()\n"
        "    os._exit(0)\nassert os.waitpid(pid, 0)[1] == 0\nhear()"
    )
    assert run(body) == "[]"
