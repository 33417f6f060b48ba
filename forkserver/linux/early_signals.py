"""Signals for the master that come while the program still starts: held back until there is a master to take them.

Their default action would end the program without a word. So they are blocked before anything slow is imported, stay
pending, and are read once the master runs (linux/signals.py). A program that becomes no master (--help,
--check-config) lets them through. SIGTERM, SIGINT and SIGQUIT are not held: until the master runs there is nothing to
finish or to remove. Before ``hold``, while the interpreter itself starts, a signal does what it does to any program.

Where the terminal closes meanwhile, SIGHUP is pending, and the terminal that tells what it meant has gone: so whether
there was one is looked up before.

Source: signal(7), sigprocmask(2); tty(4) on /dev/tty.
"""

from __future__ import annotations

import os
import signal
from typing import Final, NamedTuple

EARLY: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2)
_CONTROLLING: Final = "/dev/tty"  # opens only where there is one


class HeldSignals(NamedTuple):
    """The signals that were blocked ``before``, and whether the program has a controlling ``terminal``."""

    before: set[int]
    terminal: bool

    def let_through(self) -> None:
        """Block no more than before; what is pending does what it does by default."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


def hold() -> HeldSignals:
    """Block the signals for the master, in addition to what is blocked."""
    terminal = has_terminal()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EARLY)
    return HeldSignals(set(before), terminal)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal now."""
    try:
        opened = os.open(_CONTROLLING, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ENXIO: there is none; others in sandboxes without /dev/tty
        return False
    os.close(opened)
    return True
