"""Signals that come while the program starts wait for the master, or do what they do to any program."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from forkserver.linux import early_signals, syscalls


@pytest.fixture(autouse=True)
def same_mask() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def blocked() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_what_asks_to_end_is_not_held() -> None:
    """A start that is ended has nothing to finish."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    early_signals.hold()
    assert blocked() == {signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2}


def test_what_was_blocked_before_stays_so_when_the_others_are_let_through() -> None:
    """The next program of an upgrade begins with all signals of its master blocked."""
    before = {signal.SIGUSR2, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    early_signals.hold().let_through()
    assert blocked() == before


def test_an_end_of_a_child_is_told_though_the_parent_ignored_sigchld() -> None:
    """What is ignored stays so over an exec, and the kernel reaps the children then."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        early_signals.hold()
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_signal_that_was_held_is_not_lost() -> None:
    came: list[int] = []
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    handler = signal.signal(signal.SIGUSR1, lambda signum, _frame: came.append(signum))
    try:
        held = early_signals.hold()
        signal.raise_signal(signal.SIGUSR1)
        assert came == []
        held.let_through()
        assert came == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, handler)


def test_a_program_without_another_thread_is_not_executed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_signals, "_other_threads", lambda: False)
    monkeypatch.setattr(os, "execve", executed := Executed())
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    early_signals.begin_again_with({signal.SIGTERM}, early_signals.hold())
    assert executed.masks == []
    assert signal.SIGTERM not in blocked()


def test_a_program_beside_a_thread_is_executed_once_more_with_its_signals_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads of the interpreter's start inherit the mask then. A second time would be without end."""
    ended = threading.Event()
    monkeypatch.setattr(syscalls, "initial_environ", lambda: {"THE_START": "1"})
    monkeypatch.setattr(os, "execve", executed := Executed())
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        early_signals.begin_again_with({signal.SIGTERM}, early_signals.hold())
        early_signals.begin_again_with({signal.SIGTERM}, early_signals.hold())
    finally:
        ended.set()
        thread.join()
    assert executed.masks == [{signal.SIGTERM, *early_signals.EARLY}]
    assert executed.words == sys.orig_argv
    assert executed.environ == {"THE_START": "1"}


class Executed:
    """In place of execve(2): the signals that were blocked each time."""

    def __init__(self) -> None:
        self.masks: list[set[int]] = []
        self.words: list[str] = []
        self.environ: dict[str, str] = {}

    def __call__(self, _program: str, words: list[str], environ: dict[str, str]) -> None:
        self.masks.append(blocked())
        self.words, self.environ = words, environ
