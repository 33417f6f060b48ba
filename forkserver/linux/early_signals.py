"""Signals for the master that come while the program still starts: held back until there is a master to take them.

Their default action would end the program without a word. So they are blocked before anything slow is imported, stay
pending, and are read once the master runs (linux/signals.py). A program that becomes no master (--help,
--check-config) lets them through. SIGTERM, SIGINT and SIGQUIT are not held: until the master runs there is nothing to
finish or to remove. Before ``hold``, while the interpreter itself starts, a signal does what it does to any program.

A signal to the process goes to any thread that does not block it. Instrumentation that comes with the interpreter
(a sitecustomize module, as ddtrace-run and opentelemetry-instrument use) may have started threads already, and there
the default action would end the master whenever a signal comes. A thread has the mask of the thread that starts it, and
a mask outlives an exec: so the program is executed once more, with the master's signals blocked from its beginning.

Where the terminal closes meanwhile, SIGHUP is pending, and the terminal that tells what it meant has gone: so whether
there was one is looked up before.

Source: signal(7), sigprocmask(2), execve(2), wait(2); tty(4) on /dev/tty; proc_pid_task(5).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Set
from typing import Final

from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple

EARLY: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2)
_CONTROLLING: Final = "/dev/tty"  # opens only where there is one
_THREADS: Final = "/proc/self/task"  # has an entry for each thread, C libraries' too


class HeldSignals(NamedTuple):
    """The signals that were blocked ``before``, and whether the program has a controlling ``terminal``."""

    before: set[int]
    terminal: bool

    def let_through(self) -> None:
        """Block no more than before; what is pending does what it does by default."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


def hold() -> HeldSignals:
    """Block the signals for the master, in addition to what is blocked, and have the kernel keep ended children."""
    terminal = has_terminal()
    # Where our parent ignored it, we would: then the kernel tells nothing of a child's end (wait(2), NOTES).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EARLY)
    return HeldSignals(set(before), terminal)


def begin_again_with(blocked: Set[int], early: HeldSignals) -> None:
    """Execute this program anew with ``blocked`` blocked, where threads of before may take these signals.

    Does nothing where there is no other thread, or where the program has begun with these signals blocked.
    Raises OSError.
    """
    if blocked <= early.before or not _other_threads():
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    os.execve(sys.executable, sys.orig_argv, syscalls.initial_environ())


def _other_threads() -> bool:
    try:
        return len(os.listdir(_THREADS)) > 1
    except OSError:  # a sandbox without /proc
        return False


def has_terminal() -> bool:
    """Whether this process has a controlling terminal now."""
    try:
        opened = os.open(_CONTROLLING, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ENXIO: there is none; others in sandboxes without /dev/tty
        return False
    os.close(opened)
    return True
