"""Signals as events: with their senders, the private ones of the master, and what of them is given back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.linux import signals
from forkserver.linux.signals import BlockedSignals, Received, Signals

UNSEEN = 2**22 + 1  # no process: the kernel gives no such pid, proc(5), pid_max


@pytest.fixture
def blocked() -> Iterator[BlockedSignals]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    made = BlockedSignals()
    yield made
    made.take()
    made.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_signal_comes_with_its_sender(blocked: BlockedSignals) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.pthread_kill(threading.get_ident(), number)  # to this thread: others do not block it
    assert sorted(blocked.take()) == [
        Received(signal.SIGHUP, os.getpid(), os.getuid(), False),
        Received(signal.SIGTERM, os.getpid(), os.getuid(), False),
    ]
    assert blocked.take() == []


def test_a_signal_names_its_sender() -> None:
    name = Path("/proc/self/comm").read_text().strip()
    assert str(Received(signal.SIGTERM, os.getpid(), 7, False)) == f"SIGTERM from pid {os.getpid()} ({name}, uid 7)"


@pytest.mark.parametrize(
    ("received", "said"),
    [
        (Received(signal.SIGTERM, UNSEEN, 1000, False), f"SIGTERM from pid {UNSEEN} (uid 1000)"),
        (Received(signal.SIGTERM, 0, 0, False), "SIGTERM from outside this pid namespace"),
        (Received(signal.SIGINT, 0, 0, True), "SIGINT from a terminal"),
        (Received(signal.SIGTERM, 0, 0, True), "SIGTERM"),
    ],
    ids=["a process that has ended", "another namespace", "Ctrl-C", "the kernel"],
)
def test_a_sender_that_is_no_process_here(received: Received, said: str) -> None:
    assert str(received) == said


def test_a_process_cannot_write_into_the_log_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It chooses its name itself (prctl, PR_SET_NAME), line breaks and control sequences included."""
    before = Path("/proc/self/comm").read_bytes()
    Path("/proc/self/comm").write_bytes(b"a\x1b[2J\nb\xff")
    try:
        said = str(Received(signal.SIGTERM, os.getpid(), 0, False))
    finally:
        Path("/proc/self/comm").write_bytes(before)
    assert said.isprintable()
    assert "(a?[2J?b\\xff, uid 0)" in said


def test_the_masters_own_signals_are_none_that_a_person_sends() -> None:
    assert signals.LEAVE != signals.LEAVE_NOW
    assert signal.SIGRTMIN < signals.LEAVE < signal.SIGRTMAX
    assert {signals.LEAVE, signals.LEAVE_NOW, signals.LAST_WORDS}.isdisjoint(signals.HANDLED)


@pytest.fixture
def _at_rest() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*signals.HANDLED, signals.LEAVE, signals.LEAVE_NOW)}
    signals.rest()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_at_rest")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_what_does_nothing_in_a_process_at_rest_ends_a_child_that_it_forks(number: signal.Signals) -> None:
    """The application forks while it is imported, too, and ends its children by SIGTERM."""
    signal.raise_signal(number)
    pid = os.fork()
    if pid == 0:
        signal.raise_signal(number)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -number


@pytest.mark.usefixtures("_at_rest")
def test_ctrl_c_in_a_child_of_a_process_at_rest_raises_and_the_application_s_handlers_stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the application does
    pid = os.fork()
    if pid == 0:
        handlers = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
        os._exit(0 if handlers == (signal.default_int_handler, signal.SIG_IGN) else 1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def noted() -> Iterator[Signals]:
    handler, wakeup = signal.getsignal(signal.SIGUSR1), signal.set_wakeup_fd(-1)
    made = Signals([signal.SIGUSR1])
    yield made
    made.close()
    signal.signal(signal.SIGUSR1, handler)
    signal.set_wakeup_fd(wakeup)


@pytest.mark.parametrize(
    ("the_applications", "afterwards"),
    [(signal.SIG_DFL, signal.SIG_IGN), (signal.default_int_handler, signal.default_int_handler)],
)
def test_a_client_that_goes_does_not_end_the_process(the_applications: Any, afterwards: Any) -> None:
    """Programs for a shell's pipe let SIGPIPE end them, and applications import such programs."""
    before = signal.signal(signal.SIGPIPE, the_applications)
    try:
        signals.outlive_clients()
        assert signal.getsignal(signal.SIGPIPE) == afterwards
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_a_signal_is_taken_once(noted: Signals) -> None:
    signal.raise_signal(signal.SIGUSR1)
    assert noted.take() == [signal.SIGUSR1]
    assert noted.take() == []


def test_closing_twice_closes_once(noted: Signals, tmp_path: Path) -> None:
    """The numbers may be another's by then."""
    numbers = (noted.fileno(), noted._woken)
    with (tmp_path / "file").open("wb") as file:
        noted.close()
        for number in numbers:
            os.dup2(file.fileno(), number)
        noted.close()
        signal.raise_signal(signal.SIGUSR1)
        for number in numbers:
            assert os.fstat(number).st_size == 0, "a handler that still runs writes nothing there"
            os.close(number)
