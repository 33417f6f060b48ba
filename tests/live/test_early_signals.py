"""Signals that come before the master is there: those for a master wait for it, those that end a program end it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.program import APPS, Program, listener

Launch = Callable[..., Program]
# The program, to which a signal comes while it reads its command line: before the master is imported.
SIGNALLED = """
import os, signal, sys
from forkserver.cli import serve
from forkserver.config import loading

def action(argv, read=loading.action):
    os.kill(os.getpid(), signal.{name})
    return read(argv)

loading.action = action
if signal.{name} in (signal.SIGQUIT, signal.SIGTERM):
    signal.signal(signal.{name}, signal.SIG_DFL)  # a shell has jobs in the background ignore SIGQUIT
sys.exit(serve.main())
"""
# What instrumentation runs in the interpreter before the program: a thread that exports what was measured. Programs
# that the application starts are to do without it.
INSTRUMENTED = """
import os, threading

del os.environ["PYTHONPATH"]
threading.Thread(target=threading.Event().wait, name="exporter", daemon=True).start()
"""
# What a parent that ignores SIGCHLD leaves to the program that it executes.
DEAF_TO_ENDS = """
import signal, sys
from forkserver.cli import serve

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
sys.exit(serve.main())
"""
RAW = ("--pythonpath", str(APPS), "raw:app")


def signalled(signum: signal.Signals) -> tuple[str, ...]:
    return (sys.executable, "-c", SIGNALLED.format(name=signum.name))


@pytest.mark.parametrize(
    ("signum", "line"),
    [
        (signal.SIGHUP, "generation 2 serves"),
        (signal.SIGUSR1, "log files are opened again"),
        (signal.SIGUSR2, "upgraded to forkserver"),
        (signal.SIGTTIN, "workers wanted: 3"),
        (signal.SIGTTOU, "workers wanted: 1"),
    ],
)
def test_the_master_acts_on_a_signal_that_came_before_it(launch: Launch, signum: signal.Signals, line: str) -> None:
    """It ended the start without a word; and no child of the master has it blocked."""
    with listener() as made:
        server = launch("-w", "2", *RAW, command=signalled(signum), listeners=[made])
    server.wait_ready()
    server.log.wait(line)
    for member in server.family():
        assert member.role == "master" or blocked(member.pid) == 0, member
    assert server.stop() == 0


def test_ends_of_workers_are_seen_where_the_parent_ignored_sigchld(launch: Launch) -> None:
    """The kernel reaped each child without a word: no worker was replaced, no reload ended, and no stop."""
    with listener() as made:
        server = launch("-w", "1", *RAW, command=(sys.executable, "-c", DEAF_TO_ENDS), listeners=[made])
    server.wait_ready()
    server.process.send_signal(signal.SIGHUP)
    server.log.wait("generation 2 serves")
    assert server.stop() == 0


def blocked(pid: int) -> int:
    """The signals that ``pid`` blocks, a bit each, proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16)


def test_signals_are_the_masters_where_a_thread_ran_before_it(launch: Launch, tmp_path: Path) -> None:
    """The kernel gave each to that thread, which did not block it: HUP ended the master, and the service with it."""
    (tmp_path / "sitecustomize.py").write_text(INSTRUMENTED)
    with listener() as made:
        server = launch("-w", "1", *RAW, listeners=[made], environ={"PYTHONPATH": str(tmp_path)})
    server.wait_ready()
    assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) > 1
    server.process.send_signal(signal.SIGHUP)
    server.log.wait("generation 2 serves")
    for member in server.family():
        assert member.role == "master" or blocked(member.pid) == 0, member
    assert server.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_start_ends_by_a_signal_that_asks_for_it(launch: Launch, signum: signal.Signals) -> None:
    assert launch(*RAW, command=signalled(signum)).wait() == -signum


@pytest.mark.parametrize("flag", ["--help", "--check-config"])
def test_what_becomes_no_master_ends_by_hup_as_any_program(launch: Launch, flag: str) -> None:
    assert launch(flag, *RAW, command=signalled(signal.SIGHUP)).wait() == -signal.SIGHUP


def test_a_start_that_fails_has_its_own_exit_status(launch: Launch) -> None:
    server = launch("--chdir", "/nowhere/at/all", *RAW, command=signalled(signal.SIGHUP))
    assert server.wait() == 2
    server.log.wait("/nowhere/at/all")
