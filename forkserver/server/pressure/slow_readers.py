"""Clients that do not take their answers: which of them are cut off when the spool or a thread runs short.

An answer that its client does not take is kept in memory, then in the spool, so that it does not hold a thread of the
application. Two things can run short:

* The spool. Then the slowest readers that have something in it are cut off, slowest first, as far as they take less
  than ``SLOW_RATE``; the others are left to go on, and the call that needs room waits.
* Threads. A call that has more to send than can be kept waits for its client (``transport.py``). That is no fault
  while no other request needs the thread. Once one has waited for ``OTHERS_SECONDS``, the slowest reader is cut off if
  it takes less than ``FAIR_RATE``.

A reader younger than ``GRACE_SECONDS`` is never cut off. What is cut off ends with a reset, so that the client can tell
that the answer is not whole, and the log says so with figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from forkserver.config.values.numbers import KIB, readable_size
from forkserver.server.buffers.spool import Spool
from forkserver.server.client_notices import Notices
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.states import DRAINING
from forkserver.server.connection.timeouts import Timeouts

FAIR_RATE: Final = 64 * KIB  # bytes a second: a client that takes less must not keep a thread from others
SLOW_RATE: Final = 16 * KIB  # bytes a second: a phone on 2G reaches it, a client that reads nothing does not
GRACE_SECONDS: Final = 1.0
OTHERS_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.05  # after a look that found no slow reader
_LOOKED_AT: Final = 64  # of the readers that made no progress for longest


class SlowReaders:
    """The readers of one worker. Called with the loop lock.

    ``others_wait(since)``: whether a request has waited for a thread of this worker since then.
    """

    def __init__(
        self, timeouts: Timeouts, spool: Spool, notices: Notices, others_wait: Callable[[float], bool]
    ) -> None:
        self._timeouts = timeouts
        self._spool = spool
        self._notices = notices
        self._others_wait = others_wait
        self.waiting: set[Connection] = set()  # whose calls wait for them
        self._idle_until = 0.0  # nothing was found a moment ago

    def make_room(self, size: int, rate: float = SLOW_RATE) -> bool:
        """Cut off readers slower than ``rate`` until the spool has room for ``size`` bytes; whether any was cut off."""
        if rate == SLOW_RATE and self._timeouts.clock() < self._idle_until:
            return False
        spool, cut = self._spool, 0
        slowest, before, reason = 0.0, readable_size(spool.used), ""
        for pace, connection in self._slower_than(rate, self._holders()):
            why = spool.excess() or spool.shortage(size)
            if why is None:
                break
            connection.reset()
            cut, slowest, reason = cut + 1, max(slowest, pace), why
        if cut:
            self._notices.cut_readers(cut, slowest, before, reason)
        else:
            self._idle_until = self._timeouts.clock() + RETRY_SECONDS
        return cut > 0

    def _holders(self) -> Iterator[Connection]:
        """Readers that have something in the spool, and whose connection is in no other thread's hands."""
        draining = (each for each in self._timeouts.answers if each.state is DRAINING)
        yield from islice((each for each in draining if _spooled(each)), _LOOKED_AT)
        for connection in self.waiting:
            if _spooled(connection):
                yield connection

    def _slower_than(self, rate: float, readers: Iterable[Connection]) -> list[tuple[float, Connection]]:
        """Those of ``readers`` that are slower and past their grace, the slowest first, each with its rate."""
        now = self._timeouts.clock()
        paces = [(each.transport.pace, each) for each in readers if each.transport.pace is not None]
        rates = [(pace.rate(now), each) for pace, each in paces if now - pace.began >= GRACE_SECONDS]
        return sorted(((found, each) for found, each in rates if found < rate), key=lambda pair: pair[0])

    def is_slowest(self, connection: Connection) -> bool:
        """Whether ``connection``, whose call waits for it, is slow, and of those the slowest; the log names it then."""
        slower = self._slower_than(FAIR_RATE, {*self.waiting, connection})
        pace = connection.transport.pace
        if not slower or slower[0][1] is not connection or pace is None:
            return False
        taken, share = readable_size(pace.taken()), readable_size(self._spool.answer_bytes)
        self._notices.cut_waiting(connection.described(), taken, slower[0][0], share)
        return True

    def must_yield(self, connection: Connection, size: int) -> bool:
        """Whether the wait of ``connection`` for room for ``size`` bytes ends because others wait for the thread."""
        out = connection.transport.out
        own_share = out is not None and out.exceeds_share(size)
        return (
            self._others_wait(self._timeouts.clock() - OTHERS_SECONDS)
            and (own_share or not self.make_room(size, FAIR_RATE))
            and self.is_slowest(connection)
        )


def _spooled(connection: Connection) -> int:
    """Bytes of its answer that are in the spool."""
    return connection.transport.out.spooled if connection.transport.out else 0
