"""Which connection is closed first when a worker runs short of connections, descriptors or room in the spool.

In this order: connections whose answer is out; then idle connections or unfinished requests, whichever are more, so
that a crowd of either kind does not drive out the other. Of idle ones the longest idle goes first; of unfinished
requests, and of answers that their clients have not taken yet, the slowest. A request that is whole, a call in hand, a
WebSocket, and a body or an answer that makes good progress are never closed here.

What a candidate has sent, or taken, is looked at before it is judged: a worker that is late must not take a client for
slow. A new connection has ``GRACE_SECONDS`` before it can be closed: a client that works sends its head within a round
trip. An answer has ``STALLED_SECONDS``, because a client may read a lump of it before its kernel takes more. Where
answers are a crowd, more than all else that can be closed, they have ``ANSWER_GRACE_SECONDS``: else clients that read
nothing would give back at most so many places in eight seconds. Both count from the first byte that was kept for
the client, whatever it takes meanwhile.

Until it is measured, a connection goes after all that are slow; of a flood of new ones the oldest goes first. Where the
new ones outnumber the slow bodies and answers that move at all, they go before these: a flood of connections that say
nothing, or read nothing, must not drive out a phone's upload or download.

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
from forkserver.server.connection.rate_queues import FAST_BYTES, RateQueues, band_of
from forkserver.server.connection.states import BODY, CLOSED, DRAINING, LINGERING, READING
from forkserver.server.connection.timeout_queue import TimeoutQueue
from forkserver.server.connection.timeouts import Timeouts

GRACE_SECONDS: Final = 0.25  # a round trip of a distant client
STALLED_SECONDS: Final = 8.0  # after which an answer may be closed: FAST_BYTES make a lump in them (send_rate.py)
ANSWER_GRACE_SECONDS: Final = 1.25  # the same in a crowd of them: QUIET_SECONDS after what the kernel took in a moment
SETTLED_SECONDS: Final = 1.0  # after which a head has a rate; a body has one after its first look
_MOVING_BYTES: Final = 512  # a second: a body from a phone on a poor 2G network, or an answer to it
_MOVING_BAND: Final = band_of(_MOVING_BYTES)
_USUAL_HEAD_BYTES: Final = 1024
_AGAIN_SECONDS: Final = 0.02
_CLOSABLE: Final = frozenset((READING, BODY, DRAINING))
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
        for connection in self._slowest(Shortage.SPOOL) if why is not None else ():
            if connection.state is BODY and connection.size_in_spool and self._is_slow(connection):
                self._evict(connection, Shortage.SPOOL)
                if (why := upload.shortage(length)) is None:
                    break
        return why

    def seconds_left(self) -> float | None:
        """Seconds until it is worth another attempt where none could be closed; None where only a close can help.

        A connection may have been too new, or what it had sent made it another kind.
        """
        timeouts = self._timeouts
        graces = [(queue, GRACE_SECONDS) for queue in self._new()]
        graces.append((timeouts.answers.fresh, ANSWER_GRACE_SECONDS))
        ends = [self._entered(queue, first) + grace for queue, grace in graces if (first := queue.first())]
        if not ends and not timeouts.bodies and not timeouts.answers:
            return None
        slow = any(map(len, [*timeouts.bodies.slow(), *timeouts.answers.slow()]))
        latest = 0.0 if slow and not ends else timeouts.now + GRACE_SECONDS  # what is fast may have stalled by then
        return max(min([*ends, latest]) - timeouts.now, _AGAIN_SECONDS)

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
        if len(timeouts.heads) + len(timeouts.bodies) + len(timeouts.answers) <= len(timeouts.resting):
            return self._evict_idle() or self._evict_unfinished(shortage)
        if self._evict_unfinished(shortage):
            return True
        new = sum(map(len, [*self._new(), timeouts.answers.fresh]))
        if shortage is Shortage.CONNECTIONS and new > len(timeouts.resting):
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
        for connection in self._slowest(shortage):
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

    def _slowest(self, shortage: Shortage) -> Iterator[Connection]:
        """Heads, bodies and answers by their rate, then what has no rate yet, by its age.

        What moves goes after a crowd of the latter; where connections are short, not before this can be judged.
        """
        timeouts, grace = self._timeouts, self._answer_grace()
        yield from self._measured(range(_MOVING_BAND), grace)
        moving = range(_MOVING_BAND, len(timeouts.bodies.slow()))
        if not self._moving_are_outnumbered():
            yield from self._measured(moving, grace)
        new = [
            (self._began(queue, each), each)
            for queue, seconds in (
                (timeouts.heads, GRACE_SECONDS), (timeouts.bodies.fresh, GRACE_SECONDS),
                (timeouts.answers.fresh, grace),
            )
            for each in self._older(queue, seconds)
        ]  # fmt: skip
        yield from [each for _, each in sorted(new, key=itemgetter(0))]
        if shortage is not Shortage.CONNECTIONS or not self._moving_are_outnumbered():
            yield from self._measured(moving, grace)  # with those that have just been found to move
        yield from self._first(timeouts.bodies.fast)  # they may have stalled since
        yield from self._older(timeouts.answers.fast, grace)

    def _answer_grace(self) -> float:
        """Seconds that an answer has before it may be closed."""
        timeouts = self._timeouts
        others = len(timeouts.heads) + timeouts.bodies.not_fast() + len(timeouts.resting)
        return ANSWER_GRACE_SECONDS if timeouts.answers.not_fast() > others else STALLED_SECONDS

    def _moving_are_outnumbered(self) -> bool:
        """Whether slow bodies and answers that move are fewer than what is new."""
        bodies, answers = self._timeouts.bodies, self._timeouts.answers
        new = len(self._timeouts.heads) + len(bodies.fresh) + len(answers.fresh)
        return new > sum(map(len, [*bodies.slow()[_MOVING_BAND:], *answers.slow()[_MOVING_BAND:]]))

    def _measured(self, bands: Iterable[int], grace: float) -> Iterator[Connection]:
        """Heads, bodies and answers whose rate is in ``bands``, in their order."""
        timeouts = self._timeouts
        heads = [(self._head_rate(each), each) for each in self._older(timeouts.heads, SETTLED_SECONDS)]
        for band in bands:
            yield from [each for rate, each in heads if band_of(rate) == band]
            yield from self._first(timeouts.bodies.slow()[band])
            yield from self._older(timeouts.answers.slow()[band], grace)

    def _first(self, queue: TimeoutQueue[Connection]) -> list[Connection]:
        """The first in ``queue`` that may be closed; a request that is whole, or in a call, keeps its place there."""
        return [*islice((each for each in queue if each.state in _CLOSABLE and not each.queued), _LOOKED_AT)]

    def _older(self, queue: TimeoutQueue[Connection], seconds: float) -> list[Connection]:
        """Those of ``_first`` that have been at it for ``seconds``."""
        latest = self._timeouts.now - seconds
        return [each for each in self._first(queue) if self._began(queue, each) <= latest]

    def _began(self, queue: TimeoutQueue[Connection], connection: Connection) -> float:
        """When ``connection`` was put into ``queue``; of an answer, when its client first had not taken all of it."""
        if connection.state is not DRAINING or (pace := connection.transport.pace) is None:
            return self._entered(queue, connection)
        return pace.began

    def _head_rate(self, connection: Connection) -> float:
        """Bytes a second; what a head has beyond the usual makes it no faster."""
        seconds = self._timeouts.now - self._entered(self._timeouts.heads, connection)
        return min(connection.head_bytes, _USUAL_HEAD_BYTES) / seconds

    def _is_slow(self, connection: Connection) -> bool:
        """Whether ``connection`` is still unfinished, and as slow as it was, when what it has sent is read."""
        before = connection.queue
        if before is None:
            return False
        if connection.state is DRAINING:
            # No event says that the client takes any: the kernel reports room only when a third of its buffer is free.
            if syscalls.has_event(connection.fd, select.POLLOUT):
                return False
            return self._stays_slow(connection, before, self._timeouts.answers, self._reading_rate(connection))
        if not self._read(connection) or connection.queue is not before:
            return False
        if connection.state is not BODY:
            return connection.state is READING
        return self._stays_slow(connection, before, self._timeouts.bodies, connection.body_rate())

    def _stays_slow(
        self,
        connection: Connection,
        before: TimeoutQueue[Connection],
        queues: RateQueues[Connection],
        rate: float,
    ) -> bool:
        """Whether ``rate`` is no better than its queue, ``before``, says; else it is in that of its rate now."""
        if before is queues.fresh:
            if rate < _MOVING_BYTES:
                return True
            if queues is self._timeouts.answers:
                return False  # what it takes at first says little
        elif before is queues.fast:
            if rate < _MOVING_BYTES:
                return True
        elif rate < FAST_BYTES and not queues.is_faster(queues.queue(rate), before):
            return True
        if (queue := queues.queue(rate)) is not before:  # else it keeps its place, so that it is looked at in time
            connection.wait_in(queue)
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
            f"{len(timeouts.answers)} with an answer that is not taken yet"
        )

    def _read(self, connection: Connection) -> bool:
        """Read what ``connection`` has sent; False where it waits for us and not we for it, or has closed."""
        if connection.queued or not connection.interest:
            return False
        self._loop.read_now(connection)
        return connection.state is not CLOSED and not connection.queued
