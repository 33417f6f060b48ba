"""Whether a person uses a debugger in a call: found where one begins to trace, or reads a line that is typed.

Every debugger for the terminal does one of both, whichever way it was called: ``breakpoint()``, ``pdb.set_trace()``,
IPython's, a post-mortem one. The interpreter tells audit hooks of both. From then on until its call is over the call
may last as long as it likes, and the master is told. The hook runs in the middle of the application, so it only notes
and wakes the loop, which sends reports.

Source: PEP 578, https://docs.python.org/3/library/audit_events.html (builtins.input, sys.settrace).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from forkserver.ipc.scoreboard import Row
from forkserver.server.threads.request_deadline import RequestDeadline

_EVENTS: Final = frozenset(("builtins.input", "sys.settrace"))
_CALL_SECONDS: Final = 366 * 86400.0


class DebuggerWatch:
    """Watches the calls that ``row`` shows; ``report(on)`` is called from the loop. ``fileno`` is readable for it."""

    def __init__(self, row: Row, deadline: RequestDeadline, report: Callable[[bool], object]) -> None:
        self._row = row
        self._deadline = deadline
        self._report = report
        self._pid = os.getpid()
        self._calls: dict[int, int] = {}  # in which a debugger is in use: since when (ns), by thread
        self.on = False  # and the loop has seen it
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        sys.addaudithook(self._audit)

    def fileno(self) -> int:
        return self._wake

    def _audit(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and self._wake >= 0 and os.getpid() == self._pid:
            self._begin()

    def _begin(self) -> None:
        number = self._deadline.number()
        busy = None if number is None else self._row.busy(number)
        if number is None or busy is None or self._calls.get(number) == busy.since:
            return
        self._calls[number] = busy.since
        self._deadline.extend(_CALL_SECONDS)
        with suppress(BlockingIOError):  # it was woken already
            os.eventfd_write(self._wake, 1)

    def hear(self) -> None:
        """From the loop: tell of what has begun."""
        with suppress(BlockingIOError):  # another turn has read it
            os.eventfd_read(self._wake)
        if self._calls and not self.on:
            self.on = True
            self._report(True)

    def look(self) -> bool:
        """From the main thread, between two turns of the loop: whether the last call with a debugger is over now."""
        if not self._calls:
            return False
        for number, since in list(self._calls.items()):
            busy = self._row.busy(number)
            if busy is None or busy.since != since:
                del self._calls[number]
        return self.on and not self._calls

    def end(self) -> None:
        """Tell that no debugger is in use any more."""
        self.on = False
        self._report(False)

    def forget(self) -> None:
        """In a process that the application has forked: it is no worker."""
        if self._wake >= 0:
            wake, self._wake = self._wake, -1
            os.close(wake)
