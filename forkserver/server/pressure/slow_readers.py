"""Clients that do not take their answers: which of them are cut off when the spool or a thread runs short.

An answer that its client does not take is kept in memory, then in the spool, so that it does not hold a thread of the
application. Two things can run short:

* The spool. Then the slowest readers that have something in it are cut off, slowest first, as far as they take less
  than ``SLOW_RATE``; the others are left to go on, and the call that needs room waits.
* Threads. A call that has more to send than can be kept waits for its client (``Sending``). That is no fault while
  nobody else needs the thread. Once a request has waited for ``PATIENCE_SECONDS``, the slowest reader is cut off if it
  takes less than ``FAIR_RATE``.

A reader younger than ``GRACE_SECONDS`` is never cut off. What is cut off ends with a reset, so that the client can tell
that the answer is not whole, and the log says so with figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final

from forkserver.config.values.numbers import KIB, readable_size
from forkserver.server.connection.connection import DRAINING, FAIR_RATE, READY

if TYPE_CHECKING:
    from forkserver.server.connection.connection import Connection
    from forkserver.server.loop.event_loop import Loop

SLOW_RATE: Final = 16 * KIB  # bytes a second: a phone on 2G reaches it, a client that reads nothing does not
GRACE_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.05  # after a look that found no slow reader
_LOOKED_AT: Final = 64  # of the readers that made no progress for longest


class SlowReaders:
    """The readers of ``loop``. Called with the baton held."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.waiting: set[Connection] = set()  # whose calls wait for them
        self._idle_until = 0.0  # nothing was found a moment ago

    def make_room(self, size: int, rate: float = SLOW_RATE) -> bool:
        """Cut off readers slower than ``rate`` until the spool has room for ``size`` bytes; whether any was cut off."""
        if rate == SLOW_RATE and monotonic() < self._idle_until:
            return False
        spool, cut = self._loop.spool, 0
        slowest, before, reason = 0.0, spool.held(), ""
        for pace, connection in self._slower_than(rate, self._holders()):
            why = spool.excess() or spool.shortage(size)
            if why is None:
                break
            connection.reset()
            cut, slowest, reason = cut + 1, max(slowest, pace), why
        if cut:
            self._loop.notices.cut_readers(cut, slowest, before, reason)
        else:
            self._idle_until = monotonic() + RETRY_SECONDS
        return cut > 0

    def _holders(self) -> Iterator[Connection]:
        """Readers that have something in the spool, and whose connection is in no other thread's hands."""
        spooled = (each for each in self._loop.writes if each.state == DRAINING and each.out and each.out.spooled)
        yield from islice(spooled, _LOOKED_AT)
        for connection in self.waiting:
            if connection.out and connection.out.spooled:
                yield connection

    def _slower_than(self, rate: float, readers: Iterable[Connection]) -> list[tuple[float, Connection]]:
        """Those of ``readers`` that are slower and past their grace, the slowest first, each with its rate."""
        now = monotonic()
        paces = [(each.pace, each) for each in readers if each.pace is not None]
        rates = [(pace.rate(now), each) for pace, each in paces if now - pace.began >= GRACE_SECONDS]
        return sorted(((found, each) for found, each in rates if found < rate), key=lambda pair: pair[0])

    def is_slowest(self, connection: Connection) -> bool:
        """Whether ``connection``, whose call waits for it, is slow, and of those the slowest; the log names it then."""
        slower = self._slower_than(FAIR_RATE, {*self.waiting, connection})
        if not slower or slower[0][1] is not connection or connection.pace is None:
            return False
        taken, share = readable_size(connection.pace.taken()), readable_size(self._loop.spool.answer_bytes)
        self._loop.notices.cut_waiting(connection.described(), taken, slower[0][0], share)
        return True

    def keep_others_waiting(self) -> bool:
        """Whether a request has waited too long for a thread of this worker, while calls wait for their clients."""
        loop, since = self._loop, monotonic() - PATIENCE_SECONDS
        if not loop.context.worker:
            return False
        if any(connection.state == READY and at <= since for connection, _, at in loop.calls):
            return True
        if loop.pool is not None or (loop.balancer is not None and loop.balancer.have_idle()):
            return False
        return loop.acceptor.sought()  # nothing is accepted while the only thread is in a call
