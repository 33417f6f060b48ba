"""Which connection is closed first when a worker runs short of connections, descriptors or room in the spool.

In this order: connections whose answer is out; then idle connections or unfinished requests, whichever are more, so
that a crowd of either kind does not drive out the other. Of idle ones the longest idle goes first, of unfinished
requests the slowest; answers that are taken slowly count among these. A request that is whole, a call in hand, a
WebSocket, and a body or an answer that makes good progress are never closed here.

What a candidate has sent is read before it is judged: a worker that is late must not take a client for slow. A new
connection has ``GRACE_SECONDS`` before it can be closed: a client that works sends its head within a round trip. Until
it is measured it goes after all that are slow; of a flood of new ones the oldest goes first. Where the new ones
outnumber the slow bodies that move at all, they go before these: a flood of connections that say nothing must not
drive out a phone's upload.

An eviction looks at a bounded number of connections, however many there are.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from itertools import islice
from operator import itemgetter
from typing import Final, Protocol

from forkserver.linux import descriptor_limit, syscalls
from forkserver.server.buffers.request_body import StreamedBody
from forkserver.server.client_notices import Notices
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.slowest_bodies import FAST_BYTES, band_of
from forkserver.server.connection.states import BODY, CLOSED, DRAINING, LINGERING, READING, ConnectionState
from forkserver.server.connection.timeout_queue import TimeoutQueue
from forkserver.server.connection.timeouts import Timeouts

GRACE_SECONDS: Final = 0.25  # a round trip of a distant client
STALLED_SECONDS: Final = 8.0  # without progress, after which an answer may be closed: FAST_BYTES make a lump in them
SETTLED_SECONDS: Final = 1.0  # after which a head has a rate; a body has one after its first look
_MOVING_BYTES: Final = 512  # a second: a body from a phone on a poor 2G network
_MOVING_BAND: Final = band_of(_MOVING_BYTES)
_USUAL_HEAD_BYTES: Final = 1024
_AGAIN_SECONDS: Final = 0.02
_LOOKED_AT: Final = 16  # of the first connections in an order, to find one that can be closed


class Shortage(Enum):
    """What a worker has run short of, in words, and the way out."""

    CONNECTIONS = "connections", "raise --worker-connections or --workers"
    DESCRIPTORS = "descriptors", descriptor_limit.WAY_OUT
    SPOOL = "spool space", "raise --max-spool, or lower --max-body"

    def __init__(self, what: str, way_out: str) -> None:
        self.what = what
        self.way_out = way_out


class EvictingLoop(Protocol):
    """The loop."""

    connections: set[Connection]

    @property
    def timeouts(self) -> Timeouts: ...
    def guard(self, connection: Connection, step: Callable[..., object], *args: object) -> None:
        """Do ``step``; a fault in it costs ``connection`` and nothing else."""

    def read_now(self, connection: Connection) -> None:
        """Read what ``connection`` has sent so far."""


class Eviction:
    """Closes connections of ``loop`` to make room. Called with the loop lock."""

    def __init__(self, loop: EvictingLoop, notices: Notices) -> None:
        self._loop = loop
        self._timeouts = loop.timeouts
        self._notices = notices

    def evict(self, count: int, shortage: Shortage) -> int:
        """Close up to ``count`` connections for want of what ``shortage`` names; return how many were closed."""
        closed = 0
        while closed < count and self._evict_one(shortage):
            closed += 1
        if not closed:
            self._notices.short_of(shortage.what, shortage.way_out, self._figures)
        return closed

    def evict_resting(self) -> bool:
        """Close a connection whose answer is out, or else the longest idle one; whether there was one.

        For a gain that is uncertain: no client that waits for its answer is closed.
        """
        return self._evict_answered() or self._evict_idle()

    def make_spool_room(self, upload: StreamedBody, length: int) -> str | None:
        """Close slow bodies until the spool holds ``length`` bytes of ``upload``; why it does not, else None."""
        why = upload.shortage(length)
        for connection in self._slowest() if why is not None else ():
            if connection.state is BODY and connection.size_in_spool and self._is_slow(connection):
                self._evict(connection, Shortage.SPOOL)
                if (why := upload.shortage(length)) is None:
                    break
        return why

    def seconds_left(self) -> float | None:
        """Seconds until it is worth another attempt where none could be closed; None where only a close can help.

        A connection may have been too new, or what it had sent made it another kind.
        """
        ends = [self._entered(queue, first) + GRACE_SECONDS for queue in self._new() if (first := queue.first())]
        if not ends and not self._timeouts.writes and not any(self._timeouts.bodies.slow()):
            return None
        return max(min(ends, default=0.0) - self._timeouts.now, _AGAIN_SECONDS)

    def _new(self) -> tuple[TimeoutQueue[Connection], TimeoutQueue[Connection]]:
        return self._timeouts.heads, self._timeouts.bodies.fresh

    @staticmethod
    def _entered(queue: TimeoutQueue[Connection], connection: Connection) -> float:
        """When ``connection`` was put into ``queue``."""
        return queue.deadline(connection) - queue.seconds

    def _evict_one(self, shortage: Shortage) -> bool:
        if self._evict_answered():
            return True
        timeouts = self._timeouts
        if len(timeouts.heads) + len(timeouts.bodies) + len(timeouts.writes) <= len(timeouts.resting):
            return self._evict_idle() or self._evict_unfinished(shortage)
        if self._evict_unfinished(shortage):
            return True
        if shortage is Shortage.CONNECTIONS and sum(map(len, self._new())) > len(timeouts.resting):
            return False  # a crowd that is too new to be judged: it is in a moment, and no idle client goes for it
        return self._evict_idle()

    def _evict_answered(self) -> bool:
        """Close a connection whose answer is out; one that was refused goes although its client still sends."""
        lingering, discarding = self._timeouts.lingering, self._timeouts.discarding
        for connection in [*islice(lingering, _LOOKED_AT), *islice(discarding, 1)]:
            refused = connection.queue is discarding
            if refused or (connection.state is LINGERING and not connection.has_more()):
                connection.close()
                return True
        return False

    def _evict_idle(self) -> bool:
        """Close the connection that has waited longest for its next request."""
        # A request that is whole, or in a call, keeps its place in the queue: it is not one of those looked at.
        idle = (each for each in self._timeouts.resting if each.state is READING and not (each.queued or each.buffer))
        for connection in islice(idle, _LOOKED_AT):
            if not connection.has_more():
                connection.close()
                return True
        return False

    def _evict_unfinished(self, shortage: Shortage) -> bool:
        """Close the slowest request that is not whole, or answer that is not taken."""
        for connection in self._slowest():
            if self._is_slow(connection):
                self._evict(connection, shortage)
                return True
            if connection.state in (LINGERING, CLOSED):  # its client has gone, or was refused for what it has sent
                connection.close()
                return True
        return False

    def _evict(self, connection: Connection, shortage: Shortage) -> None:
        self._notices.short_of(shortage.what, shortage.way_out, self._figures)
        self._loop.guard(connection, connection.evict, shortage.what)

    def _slowest(self) -> Iterator[Connection]:
        """Heads and bodies by their rate, answers that are taken slowly, then what has no rate yet, by its age.

        Where these are a crowd, bodies that move go after them.
        """
        timeouts = self._timeouts
        bands = [*timeouts.bodies.slow()]
        moving = bands[_MOVING_BAND:]
        yield from self._measured(bands[:_MOVING_BAND])
        if sum(map(len, self._new())) <= sum(map(len, moving)):
            yield from self._measured(moving, _MOVING_BAND)
        yield from sorted(self._older(timeouts.writes, STALLED_SECONDS, DRAINING), key=self._reading_rate)
        new = [
            (each, self._entered(queue, each)) for queue in self._new() for each in self._older(queue, GRACE_SECONDS)
        ]
        yield from [each for each, _ in sorted(new, key=itemgetter(1))]
        yield from self._measured(moving, _MOVING_BAND)  # with those that have just been found to move

    def _measured(self, queues: Iterable[TimeoutQueue[Connection]], first: int = 0) -> Iterator[Connection]:
        """Heads and bodies that come as slowly as the bodies in ``queues``, of which ``first`` is the band."""
        heads = [(self._head_rate(each), each) for each in self._older(self._timeouts.heads, SETTLED_SECONDS)]
        for band, queue in enumerate(queues, first):
            yield from [each for rate, each in heads if band_of(rate) == band]
            yield from [*islice(queue, _LOOKED_AT)]

    def _older(
        self, queue: TimeoutQueue[Connection], seconds: float, state: ConnectionState | None = None
    ) -> list[Connection]:
        """The first in ``queue``, the longest there first, that have been there for ``seconds``.

        With ``state``, those in it: the others are calls in hand, no more than there are threads.
        """
        latest = self._timeouts.now - seconds
        found = islice((each for each in queue if state in (None, each.state)), _LOOKED_AT)
        return [each for each in found if self._entered(queue, each) <= latest]

    def _head_rate(self, connection: Connection) -> float:
        """Bytes a second; what a head has beyond the usual makes it no faster."""
        seconds = self._timeouts.now - self._entered(self._timeouts.heads, connection)
        return min(connection.head_bytes, _USUAL_HEAD_BYTES) / seconds

    def _is_slow(self, connection: Connection) -> bool:
        """Whether ``connection`` is still unfinished, and as slow as it was, when what it has sent is read."""
        bodies, before = self._timeouts.bodies, connection.queue
        if connection.state is DRAINING:
            return self._reads_slowly(connection)
        if before is None or not self._read(connection) or connection.queue is not before:
            return False
        if connection.state is not BODY:
            return connection.state is READING
        rate = connection.body_rate()
        if before is bodies.fresh:
            if rate < _MOVING_BYTES:
                return True
        elif rate < FAST_BYTES and not bodies.is_faster(bodies.queue(rate), before):
            return True
        connection.wait_in(bodies.queue(rate))
        return False

    def _reads_slowly(self, connection: Connection) -> bool:
        """Whether the client takes its answer slowly; one that does not is looked at later again.

        No event says that it takes any: the kernel reports room only when a third of its buffer is free.
        """
        if syscalls.has_event(connection.fd, select.POLLOUT):
            return False
        if self._reading_rate(connection) < FAST_BYTES:
            return True
        connection.wait_in(self._timeouts.writes)
        return False

    def _reading_rate(self, connection: Connection) -> float:
        """Bytes of the answer that the client takes in a second."""
        return pace.rate(self._timeouts.now) if (pace := connection.transport.pace) is not None else 0.0

    def _figures(self) -> str:
        """What the connections of this worker do, in words."""
        timeouts = self._timeouts
        return (
            f"{len(self._loop.connections)} connections: {len(timeouts.heads)} without a whole request head, "
            f"{len(timeouts.bodies)} with a body on its way, {len(timeouts.resting)} idle, "
            f"{len(timeouts.writes)} with an answer that is not taken yet"
        )

    def _read(self, connection: Connection) -> bool:
        """Read what ``connection`` has sent; False where it waits for us and not we for it, or has closed."""
        if connection.queued or not connection.interest:
            return False
        self._loop.read_now(connection)
        return connection.state is not CLOSED and not connection.queued
