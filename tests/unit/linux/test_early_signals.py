"""Signals that come while the program starts wait for the master, or do what they do to any program."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from forkserver.linux import early_signals


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
