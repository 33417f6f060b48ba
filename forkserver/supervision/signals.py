"""Signals as events of a loop, and the fork that keeps them apart.

It promises that a handler only notes and wakes, that a process which has just been forked gets no signal before its own
handlers stand, and that a child leaves its parent's frames behind. It refuses to know what a signal means.

Source: signal(7), PEP 475 (why a wake-up descriptor is needed: the poll is restarted after a handler).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Final

from forkserver import kernel

HANDLED: Final = frozenset(
    {
        signal.SIGHUP,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCHLD,
    }
)
# Has faulthandler write where a worker stands that hears nothing any more. Its handler reads the frames of threads
# without the interpreter's lock, and crashes where one of them runs: so only where none can, and not by a signal that a
# person would send.
LAST_WORDS: Final = signal.SIGRTMIN + 3
_TO_LEAVE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_FOR_THE_MASTER: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1)

Main = Callable[[], int]


class Forked(BaseException):
    """Raised in a process that was just forked: ``main`` is what it goes on with, on a stack of its own.

    A BaseException, so that nothing on the way up takes it for an error of the parent.
    """

    def __init__(self, main: Main) -> None:
        super().__init__()
        self.main = main


def run(main: Main) -> int:
    """Run ``main``, and in every process forked below it, that process's own; the exit status of whichever this is."""
    while True:
        try:
            return main()
        except Forked as child:
            main = child.main


def spawn(main: Main) -> int:
    """Fork a child that goes on with ``main``, with every handled signal blocked, and return its pid.

    The child gets out by ``Forked``. Raises OSError.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    pid = -1
    try:
        pid = kernel.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid == 0:
        raise Forked(main)
    return pid


def block() -> None:
    """Hold the handled signals back; they stay pending, over an exec too (signal(7)), until ``unblock``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


def unblock() -> None:
    """Let the handled signals through: our handlers stand."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _note(_signum: int, _frame: FrameType | None) -> None:
    """For a signal that must do nothing here: SIG_IGN would leak into the programs that the application starts."""


class Signals:
    """Notes the signals it is made for; ``fileno`` is readable when there are some to ``take``."""

    def __init__(self, noted: Iterable[signal.Signals]) -> None:
        self._noted: list[signal.Signals] = []
        # The descriptor only wakes. What came is noted by the handler, so nothing is lost when the pipe is full.
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for signum in noted:
            self.note(signum)

    def note(self, signum: signal.Signals) -> None:
        """Note ``signum``, too."""
        signal.signal(signum, self._handle)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self._noted.append(signal.Signals(signum))
        # Once more: the interpreter's byte comes before this handler runs, and in a worker it may be another thread
        # that is woken by it, and has read it by now.
        with suppress(OSError):  # full, so it wakes; or closed
            os.write(self._woken, b"\0")

    def fileno(self) -> int:
        return self._wake

    def take(self) -> list[signal.Signals]:
        """The signals that came since the last time, in the order of their handlers."""
        try:
            while os.read(self._wake, 4096):
                continue
        except BlockingIOError:
            pass  # emptied
        # One by one, and the list stays the same: the handler runs in the main thread, and this perhaps in another.
        return [self._noted.pop(0) for _ in range(len(self._noted))]

    def close(self) -> None:
        """Give the descriptors back; in a child this leaves the parent's own alone."""
        signal.set_wakeup_fd(-1)
        woken, self._woken = self._woken, -1  # a handler may still run, and the number may soon be another's
        os.close(self._wake)
        os.close(woken)


def forget_parent() -> None:
    """First of all in a child: no handler of the parent's is to run here. Its others are replaced by ``rest``."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def rest() -> None:
    """The dispositions of a process without a loop: what means leave ends it, what is for the master does nothing."""
    for signum in _TO_LEAVE:
        signal.signal(signum, signal.SIG_DFL)
    for signum in _FOR_THE_MASTER:
        signal.signal(signum, _note)


def default() -> None:
    """The dispositions of any Python program, for a child that the application forks."""
    signal.set_wakeup_fd(-1)
    for signum in (*_TO_LEAVE, *_FOR_THE_MASTER):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
