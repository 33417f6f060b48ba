"""Looks after the requests that wait in a worker while all of its threads are busy.

A request that finds no free thread is answered 503 after ``queue_timeout``, and the operator is told, once, that
streams or slow calls hold every thread (``saturation.py``). With one thread the background driver looks, and nothing is
accepted while the call lasts: there the clients that wait are in the listeners' queues, and when they are accepted the
time counts that they have waited (``accept_delay.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkserver.ipc.scoreboard import SERVING, STATE
from forkserver.server.connection.states import READY
from forkserver.server.connection.timeouts import NEVER
from forkserver.server.handoff.balancer import RETRY_SECONDS
from forkserver.server.loop.protocols import WorkerLoop
from forkserver.server.pressure.saturation import Saturation, taken_for_long

if TYPE_CHECKING:
    from forkserver.server.threads.thread_pool import Pool


class CallBacklog:
    """What ``loop`` has not passed to the application yet. A script, which has no row, logs nothing of it."""

    def __init__(self, loop: WorkerLoop) -> None:
        self._loop = loop
        self._row = loop.row
        self._saturation = Saturation(loop.row, loop.calls.seconds) if loop.row is not None else None

    def attend(self, pool: Pool) -> None:
        """Look after what ``pool`` has not taken yet, and after threads of it that have ended."""
        loop = self._loop
        if loop.calls.waiting or not pool.complete:
            if loop.balancer is not None:
                loop.balancer.hand_off_late()
            self.look()

    def look(self) -> None:
        """Do what is due, while the application is at work."""
        self._tell()
        self._loop.calls.turn_down_late()

    def _tell(self) -> None:
        saturation, since = self._saturation, self._since()
        if saturation is None or since is None or self._loop.timeouts.now < saturation.due(since):
            return
        streams = sum(connection.streams for connection in self._loop.connections)
        way_out = ", or set queue_timeout" if self._loop.calls.waiting and self._loop.calls.seconds == NEVER else ""
        notice = saturation.look(self._loop.timeouts.now, self._waiting(), streams, way_out)
        if notice is not None:
            self._loop.context.log.warning(notice)

    def seconds_left(self, limit: float | None) -> float | None:
        """Seconds, at most ``limit``, until ``look`` has something to do."""
        since = self._since()
        if since is None:
            return limit
        due = self._saturation.due(since) if self._saturation is not None else NEVER
        if self._loop.calls.waiting:
            due = min(due, since + self._loop.calls.seconds, self._loop.calls.next_look)
        seconds = max(RETRY_SECONDS, due - self._loop.timeouts.now)
        return min(seconds, limit) if limit is not None else seconds if seconds < NEVER else None

    def _since(self) -> float | None:
        """Since when something may have waited for the application, None where nothing has."""
        if self._loop.calls.waiting:
            return float(self._loop.calls.waiting[0][0].whole_at)
        if self._loop.tended and self._row is not None and (call := self._row.busy()):
            return call.since * 1e-9
        return None

    def _waiting(self) -> str:
        """What waits, in words; empty for nothing."""
        count = sum(connection.state is READY for connection, _ in self._loop.calls.waiting)
        if count:
            return "1 request waits" if count == 1 else f"{count} requests wait"
        return "clients wait for a free worker" if self._loop.clients_wait() and self._all_busy() else ""

    def _all_busy(self) -> bool:
        """Whether no worker has had a free thread for long: none of them will accept."""
        balancer, now = self._loop.balancer, self._loop.timeouts.now
        board = balancer.board if balancer is not None else ()
        return all(row.words[STATE] != SERVING or taken_for_long(row, now) for row in board)
