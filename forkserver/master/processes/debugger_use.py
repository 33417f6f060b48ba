"""Workers in which a person uses a debugger: nothing is reloaded meanwhile, and the terminal is set back after one.

A debugger sets the terminal for editing a line, and sets it back when the line is there. Where its process ends before
that, the terminal would show nothing of what is typed.
"""

from __future__ import annotations

from forkserver.linux.terminal import Terminal
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.lifecycle import Worker
from forkserver.master.model.transitions import Transitions


class DebuggerUse:
    """Hears of debuggers, and has them ``save`` the terminal."""

    def __init__(self, terminal: Terminal, transitions: Transitions) -> None:
        self._terminal = terminal
        self._transitions = transitions

    def heard(self, worker: Worker, on: bool, log: ErrorLog, now: float) -> None:
        """``worker`` says that a debugger is in use in it, or no longer."""
        if on != worker.in_debugger:
            log.debug(f"{worker}: a debugger is {'in use' if on else 'no longer in use'}")
            self._transitions.worker_in_debugger(worker, on, now)

    def ended(self, worker: Worker) -> None:
        """``worker`` has ended."""
        if worker.in_debugger:
            worker.in_debugger = False
            self._terminal.restore()
