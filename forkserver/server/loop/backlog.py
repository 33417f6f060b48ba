"""The requests that wait in a worker while all of its threads are taken.

A request waits in ``loop.calls`` until a thread is free. Where none comes free, it is answered 503 after
``queue_timeout``, and the operator is told, once, that streams or slow calls hold every thread (``saturation.py``).
With one thread the steward looks, and nothing is accepted while the call lasts: there the clients that wait are in
the listeners' queues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkserver.ipc.scoreboard import SERVING, STATE, Row
from forkserver.server.connection.connection import READY
from forkserver.server.handoff.balancer import PATIENCE
from forkserver.server.pressure.saturation import Saturation, taken_for_long

if TYPE_CHECKING:
    from forkserver.server.loop.event_loop import Loop

_NEVER = float("inf")


class CallBacklog:
    """What ``loop`` has not given to the application yet; ``queue_seconds`` is how long it may wait.

    ``row`` is the worker's row of the scoreboard, None in a script, where nothing is told.
    """

    def __init__(self, loop: Loop, row: Row | None, queue_seconds: float) -> None:
        self._loop = loop
        self._row = row
        self._queue_seconds = queue_seconds
        self._saturation = Saturation(row, queue_seconds) if row is not None else None

    def look(self) -> None:
        """Do what is due, while the application is at work."""
        self._tell()
        self._turn_down()

    def _tell(self) -> None:
        saturation, since = self._saturation, self._since()
        if saturation is None or since is None or self._loop.now < saturation.due(since):
            return
        streams = sum(connection.streams for connection in self._loop.connections)
        way_out = ", or set queue_timeout" if self._loop.calls and self._queue_seconds == _NEVER else ""
        told = saturation.look(self._loop.now, self._waiting(), streams, way_out)
        if told is not None:
            self._loop.log.warning(told)

    def seconds_left(self, limit: float | None) -> float | None:
        """Seconds, at most ``limit``, until ``look`` has something to do."""
        since = self._since()
        if since is None:
            return limit
        due = self._saturation.due(since) if self._saturation is not None else _NEVER
        if self._loop.calls:
            due = min(due, since + self._queue_seconds)
        seconds = max(PATIENCE, due - self._loop.now)
        return min(seconds, limit) if limit is not None else seconds if seconds < _NEVER else None

    def _turn_down(self) -> None:
        """Answer what has waited longer than queue_timeout."""
        loop, calls = self._loop, self._loop.calls
        while calls and (calls[0][0].state != READY or loop.now - calls[0][2] > self._queue_seconds):
            connection, _, _ = calls.popleft()
            if connection.state == READY:
                loop.guard(connection, connection.turn_down)

    def _since(self) -> float | None:
        """Since when something may have waited for the application, None where nothing has."""
        if self._loop.calls:
            return self._loop.calls[0][2]
        if self._loop.tended and self._row is not None and (call := self._row.busy()):
            return call.since * 1e-9
        return None

    def _waiting(self) -> str:
        """What waits, in words; empty for nothing."""
        count = sum(connection.state == READY for connection, _, _ in self._loop.calls)
        if count:
            return "1 request waits" if count == 1 else f"{count} requests wait"
        return "clients wait to be accepted" if self._loop.acceptor.sought() and self._all_taken() else ""

    def _all_taken(self) -> bool:
        """Whether no worker has had a free thread for long: none of them will accept."""
        balancer, now = self._loop.balancer, self._loop.now
        board = balancer.board if balancer is not None else ()
        return all(row.words[STATE] != SERVING or taken_for_long(row, now) for row in board)
