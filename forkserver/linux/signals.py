"""Signals as events of a loop, and the fork that keeps them apart.

The master blocks its signals and reads them from a descriptor, which names their senders. A worker has handlers, since
a blocked signal would stay blocked in the programs that the application starts: a handler only notes and wakes. A
process that was just forked gets no signal before its own handlers stand, and leaves its parent's frames behind.

A signal to the whole process group (Ctrl-C, ``timeout``, a process manager) reaches the master, the template and the
workers. The master acts on it. The others do nothing until the master tells them, by an order on their channel or,
where they import and hear none, by ``LEAVE`` or ``LEAVE_NOW``, which no other program sends.

Source: signal(7), signalfd(2), PEP 475 (why a wake-up descriptor is needed: the poll is restarted after a handler).
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import get_ident
from types import FrameType
from typing import Final

from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple

TO_LEAVE: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_FOR_THE_MASTER: Final = frozenset({signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1})
HANDLED: Final = TO_LEAVE | _FOR_THE_MASTER | {signal.SIGUSR2, signal.SIGCHLD}
OF_A_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
# Has faulthandler write where a worker stands that hears nothing any more. Its handler reads the frames of threads
# without the interpreter's lock, and crashes where one of them runs: so only where none can, and not by a signal that a
# person would send.
LAST_WORDS: Final = signal.SIGRTMIN + 3
LEAVE: Final = signal.SIGRTMIN + 4  # from the master alone: finish open requests and leave; ends a process that imports
LEAVE_NOW: Final = signal.SIGRTMIN + 5  # from the master alone: leave at once

Main = Callable[[], int]
_forking: Final[dict[int, set[int]]] = {}  # by thread, what it had blocked before
_NAME_BYTES: Final = 64  # of a sender's name; the kernel keeps 16, proc(5)


class Received(NamedTuple):
    """A signal with its sender: ``pid`` is 0 where that is no process, or one that our pid namespace does not show."""

    signum: signal.Signals
    pid: int
    uid: int
    from_kernel: bool

    def __str__(self) -> str:
        if self.from_kernel:
            return f"{self.signum.name} from a terminal" if self.signum in OF_A_TERMINAL else self.signum.name
        if not self.pid:
            return f"{self.signum.name} from outside this pid namespace"
        name = _process_name(self.pid)
        sender = f"{name}, uid {self.uid}" if name else f"uid {self.uid}"
        return f"{self.signum.name} from pid {self.pid} ({sender})"


def _process_name(pid: int) -> str:
    """The name of ``pid`` as ``ps`` shows it, escaped, for a process chooses its own; empty where it has ended."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read(_NAME_BYTES).rstrip(b"\n").decode("utf-8", "backslashreplace")
    except OSError:
        return ""
    return "".join(each if each.isprintable() else "?" for each in name)


class ChildEntry(BaseException):
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
        except ChildEntry as child:
            main = child.main


def spawn(main: Main) -> int:
    """Fork a child that goes on with ``main``, with every handled signal blocked, and return its pid.

    The child gets out by ``ChildEntry``. Raises OSError.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    pid = -1
    try:
        pid = syscalls.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid == 0:
        raise ChildEntry(main)
    return pid


def block() -> None:
    """Hold every signal back that asks to leave, for a process at its end: the interpreter takes its handlers away."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*HANDLED, LEAVE, LEAVE_NOW))


def unblock() -> None:
    """Let the handled signals through: our handlers stand."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _note(_signum: int, _frame: FrameType | None) -> None:
    """For a signal that must do nothing here: SIG_IGN would leak into the programs that the application starts."""


class BlockedSignals:
    """The handled signals, blocked; ``fileno`` is readable when there are some to ``take``. Raises OSError.

    They stay blocked and pending over a fork and over an exec (signal(7)), so an upgrade loses none.
    """

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        self._descriptor = syscalls.signalfd(HANDLED)

    def fileno(self) -> int:
        return self._descriptor

    def take(self) -> list[Received]:
        """The signals that came since the last time; several of one number may have become one."""
        return [Received(signal.Signals(each[0]), *each[1:]) for each in syscalls.read_signals(self._descriptor)]

    def close(self) -> None:
        """Give the descriptor back; in a child this leaves the parent's own alone."""
        os.close(self._descriptor)


class Signals:
    """Notes the signals it is made for; ``fileno`` is readable when there are some to ``take``."""

    def __init__(self, noted: Iterable[int]) -> None:
        self._noted: list[int] = []
        # The descriptor only wakes. What came is noted by the handler, so nothing is lost when the pipe is full.
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for signum in noted:
            self.note(signum)

    def note(self, signum: int) -> None:
        """Note ``signum``, too."""
        signal.signal(signum, self._handle)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self._noted.append(signum)
        # Once more: the interpreter's byte comes before this handler runs, and in a worker it may be another thread
        # that is woken by it, and has read it by now.
        with suppress(OSError):  # full, so it wakes; or closed
            os.write(self._woken, b"\0")

    def fileno(self) -> int:
        return self._wake

    def take(self) -> list[int]:
        """The signals that came since the last time, in the order of their handlers."""
        try:
            while os.read(self._wake, 4096):
                continue
        except BlockingIOError:
            pass  # emptied
        # One by one, and the list stays the same: the handler runs in the main thread, and this perhaps in another.
        return [self._noted.pop(0) for _ in range(len(self._noted))]

    def close(self) -> None:
        """Give the descriptors back; in a child this leaves the parent's own alone. Closing twice is once."""
        if self._wake < 0:
            return
        signal.set_wakeup_fd(-1)
        # A handler may still run, and the numbers may soon be another's.
        wake, woken, self._wake, self._woken = self._wake, self._woken, -1, -1
        os.close(wake)
        os.close(woken)


def forget_parent() -> None:
    """First of all in a child: no handler of the parent's is to run here. Its others are replaced by ``rest``."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def rest() -> None:
    """The dispositions of a process without a loop: the master's private signals end it, all others do nothing."""
    for signum in (LEAVE, LEAVE_NOW):
        signal.signal(signum, signal.SIG_DFL)
    for signum in (*TO_LEAVE, *_FOR_THE_MASTER):
        signal.signal(signum, _note)


def _before_fork() -> None:
    """Hold the handled signals back while this thread forks: in the child one of our handlers would swallow them."""
    _forking[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.pop(get_ident()))


def _after_fork_in_child() -> None:
    """Give a signal for which a handler of ours stands its usual effect; the application's own handlers stay.

    So ``Process.terminate`` ends a child that the application forks, also while it is imported. Our own children have
    these signals blocked until their handlers stand (``spawn``).
    """
    for signum in (*TO_LEAVE, *_FOR_THE_MASTER):
        handler = signal.getsignal(signum)
        if handler is _note or getattr(handler, "__func__", None) is Signals._handle:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    _after_fork()
    _forking.clear()  # the other threads are not here


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def outlive_clients() -> None:
    """Ignore SIGPIPE again where the application lets it end its process: a client that goes would end the worker.

    The module subprocess lets it end the programs that the application starts all the same (``restore_signals``).
    """
    if signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def default() -> None:
    """The dispositions of any Python program, for a child that the application forks."""
    signal.set_wakeup_fd(-1)
    faulthandler.unregister(LAST_WORDS)
    for signum in (*TO_LEAVE, *_FOR_THE_MASTER, signal.SIGUSR2, LEAVE, LEAVE_NOW):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
