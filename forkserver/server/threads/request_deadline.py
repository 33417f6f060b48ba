"""How long the call in hand may last, where the application wants more than ``timeout``.

Only the thread that serves a request can ask for it, so that no request gets another's time. The master reads the
deadline in the scoreboard and ends the call.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Final

from forkserver.ipc.scoreboard import Row
from forkserver.linux.syscalls import monotonic_ns

RENEWAL_SECONDS: Final = 0.05  # between two renewals of a deadline: small blocks come by thousands a second
_NANOSECONDS: Final = 1_000_000_000
_MOST_SECONDS: Final = 10.0 * 366 * 86400  # the scoreboard's word has room for some centuries


class RequestDeadline:
    """The time that application threads ask for. ``row`` is None in a script, where no master ends a call."""

    def __init__(self, row: Row | None, timeout: float) -> None:
        self._row = row
        self._timeout = timeout
        # Nanoseconds of a renewal, 0 for none: longer by the time until the next one, so that none comes too late.
        self.renewal = (
            round((timeout + RENEWAL_SECONDS) * _NANOSECONDS) if row is not None and timeout < math.inf else 0
        )
        self._threads: dict[int, int] = {}

    @property
    def numbers(self) -> Mapping[int, int]:
        """The numbers of the application threads by their idents; it grows when one is started."""
        return self._threads

    def enlist(self, number: int) -> None:
        """The thread that calls this is application thread ``number``."""
        self._threads[threading.get_ident()] = number

    def number(self) -> int | None:
        """Which application thread the calling one is; None for a thread of other origin."""
        return self._threads.get(threading.get_ident())

    def extend(self, seconds: float) -> None:
        """``environ["forkserver.extend_deadline"]``: let this request last ``seconds`` from now, or longer if it may.

        Raises ValueError for what is no time, RuntimeError in another thread than the one that serves the request.
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"{seconds!r} seconds: give a number above 0, the seconds from now")
        if self._row is None:
            return
        number = self._threads.get(threading.get_ident())
        if number is None:
            raise RuntimeError("not the thread that serves this request: call extend_deadline there")
        busy = self._row.busy(number)
        if busy is not None and self._timeout < math.inf:  # else it may last as long as it likes already
            own = busy.since + round(self._timeout * _NANOSECONDS)
            self._row.extend(max(own, monotonic_ns() + round(min(seconds, _MOST_SECONDS) * _NANOSECONDS)), number)

    def await_client(self, waits: bool, thread: int, seconds: float = 0.0) -> None:
        """``thread`` waits for its client to take something, or has waited so many ``seconds``: they do not count."""
        row = self._row
        if row is None:
            return
        if not waits and self._timeout < math.inf and (busy := row.busy(thread)) is not None:
            deadline = busy.deadline or busy.since + round(self._timeout * _NANOSECONDS)
            row.extend(deadline + round(seconds * _NANOSECONDS), thread)
        row.await_client(waits, thread)

    def here(self) -> Callable[[float], None]:
        """``extend`` for the request that the calling thread serves; calls in threads of other origin are not ended."""
        return self.extend if threading.get_ident() in self._threads else _boundless

    def name(self, request_id: str) -> None:
        """Show in the scoreboard which request the calling thread serves; one of other origin has no place there."""
        number = self._threads.get(threading.get_ident())
        if self._row is not None and number is not None:
            self._row.name(request_id, number)

    def renew(self) -> None:
        """The request in hand has come on: ``timeout`` counts from now, or up to RENEWAL_SECONDS later."""
        row = self._row
        if row is not None and (number := self._threads.get(threading.get_ident())) is not None:
            row.come_on(number)
            if self.renewal:
                row.extend(monotonic_ns() + self.renewal, number)

    def thread_of(self, number: int) -> int | None:
        """What the interpreter calls application thread ``number``; None where none has that number."""
        idents = [ident for ident, known in list(self._threads.items()) if known == number]
        return idents[-1] if idents else None  # one that has ended was started anew


def _boundless(_seconds: float) -> None:
    """Such a request may last as long as it likes."""
