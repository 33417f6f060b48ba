"""Which connection is closed first when a worker runs short of connections, descriptors or memory.

In this order: connections whose answer is out; then idle connections or unfinished requests, whichever are more, so
that a crowd of either kind does not drive out the other. Of idle ones the longest idle goes first, of unfinished
requests the slowest. A request that is whole, a call in hand and a WebSocket are never closed here.

What a candidate has sent is read before it is judged: a worker that is late must not take a client for slow. A new
connection has ``GRACE_SECONDS`` before it can be closed: a client that works sends its head within a round trip.

An eviction looks at a bounded number of connections, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Final

from forkserver.serving.connection import BODY, CLOSED, LINGERING, READING, Connection

if TYPE_CHECKING:
    from forkserver.serving.loop import Loop

GRACE_SECONDS: Final = 0.25  # a round trip of a distant client
_LOOKED_AT: Final = 16  # of the first connections in an order, to find one that can be closed


class Shortage(Enum):
    """What a worker has run short of; the value is for messages."""

    CONNECTIONS = "connections"
    DESCRIPTORS = "descriptors"
    MEMORY = "memory"
    SPOOL = "spool space"


class Eviction:
    """Closes connections of ``loop`` to make room. Called with the baton held."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def evict(self, count: int, shortage: Shortage) -> int:
        """Close up to ``count`` connections for want of what ``shortage`` names; return how many were closed."""
        closed = 0
        while closed < count and self._evict_one(shortage):
            closed += 1
        return closed

    def patience(self) -> float | None:
        """Seconds until a connection that is too new to be closed no longer is; None where there is none."""
        heads = self._loop.heads
        oldest = heads.first()
        if oldest is None:
            return None
        seconds = heads.deadline(oldest) - heads.seconds + GRACE_SECONDS - self._loop.now
        return seconds if seconds > 0 else None

    def _evict_one(self, shortage: Shortage) -> bool:
        idle, unfinished = self._evict_idle, self._evict_unfinished
        loop = self._loop
        few = len(loop.heads) + len(loop.bodies) <= len(loop.resting)
        steps: tuple[Callable[[Shortage], bool], ...] = (idle, unfinished) if few else (unfinished, idle)
        return self._evict_answered() or any(step(shortage) for step in steps)

    def _evict_answered(self) -> bool:
        """Close a connection whose answer is out; one that was refused goes although its client still sends."""
        lingering, discarding = self._loop.lingering, self._loop.discarding
        for connection in [*islice(lingering, _LOOKED_AT), *islice(discarding, 1)]:
            refused = connection.queue is discarding
            if refused or (connection.state == LINGERING and not connection.has_more()):
                connection.close()
                return True
        return False

    def _evict_idle(self, _shortage: Shortage) -> bool:
        """Close the connection that has waited longest for its next request."""
        for connection in islice(self._loop.resting, _LOOKED_AT):
            waits = connection.state == READING and not connection.queued and not connection.buffer
            if waits and not connection.has_more():
                connection.close()
                return True
        return False

    def _evict_unfinished(self, shortage: Shortage) -> bool:
        return self._evict_first(self._old_heads(), shortage)

    def _old_heads(self) -> list[Connection]:
        """Connections that wait longest for a head to come whole, older than the grace."""
        heads, latest = self._loop.heads, self._loop.now - GRACE_SECONDS
        return [each for each in islice(heads, _LOOKED_AT) if heads.deadline(each) - heads.seconds <= latest]

    def _evict_first(self, candidates: Iterable[Connection], shortage: Shortage) -> bool:
        """Close the first of ``candidates`` that is still unfinished when what it has sent is read."""
        for connection in candidates:
            if self._read(connection) and connection.state in (READING, BODY):
                self._loop.guard(connection, connection.evict, shortage.value)
                return True
        return False

    def _read(self, connection: Connection) -> bool:
        """Read what ``connection`` has sent; False where it waits for us and not we for it, or has closed."""
        if connection.queued or not connection.interest:
            return False
        self._loop.read_now(connection)
        return connection.state != CLOSED and not connection.queued
