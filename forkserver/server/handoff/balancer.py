"""Passes connections to sibling workers: requests that would wait here for long, and all others when this one retires.

With one thread, requests that wait for a slow call go into the queue between workers, and the worker that is free first
takes the oldest one, this one included: all of them serve one queue. Before a call, and with several threads, whose
worker takes what it finds whether or not a thread is free, they go to siblings that the scoreboard shows idle. A
retiring worker passes on every connection that waits for its next request. What cannot be passed on stays.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from forkserver.ipc.figures import HANDED_ON
from forkserver.ipc.scoreboard import SERVING, STATE, WAITING, Row, Scoreboard
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.protocols import ConnectionPoller
from forkserver.server.connection.states import READING, READY
from forkserver.server.connection.timeouts import Timeouts
from forkserver.server.handoff.queue import HandedConnection, Handoff

RETRY_SECONDS: Final = 0.005  # a request waits before an idle sibling is looked for again
_SLOW: Final = 0.0005  # seconds; with calls this long on average it is worth it to send a connection on
_WEIGHT: Final = 1 / 8  # of the last call in the average


class BalancerPoller(ConnectionPoller, Protocol):
    """Tells when the queue between workers has room."""

    def register(self, fd: int, mask: int, target: Callable[[int], object]) -> None:
        """Call ``target(event)`` at the events of ``mask``."""

    def unwatch(self, fd: int) -> None:
        """Forget a watched descriptor."""


class Balancer:
    """Ways from this worker, whose row of ``board`` is ``row``, to the others; ``waiting`` are its calls."""

    def __init__(
        self,
        poller: BalancerPoller,
        timeouts: Timeouts,
        waiting: deque[Any],
        board: Scoreboard,
        handoff: Handoff,
        row: Row | None,
    ) -> None:
        self._poller = poller
        self._timeouts = timeouts
        self._waiting = waiting
        self.board = board
        self._handoff = handoff
        self._row = row
        self._average = 0.0  # seconds of a call, of late
        self.slow = False  # so long that a request which would wait for one had better go elsewhere
        self._shown = 0
        self._outlet_watched = False
        self.reachable = True  # the siblings live and take connections

    def has_siblings(self) -> bool:
        """Whether other workers serve just now."""
        return self.board.serving > 1

    def others_serve(self) -> bool:
        """Whether a sibling takes what is handed on. This worker may be one that ``has_siblings`` no longer counts."""
        return any(row.words[STATE] == SERVING for row in self.board if row is not self._row)

    def serves_sooner(self) -> bool:
        """Whether what is handed on is served sooner: by a sibling, or by one that starts while all threads hang."""
        return self.others_serve() or not (self._row is None or self._row.has_free_thread())

    def idle(self) -> int:
        """How many siblings have a free thread."""
        own = self._row
        return sum(row.idle() for row in self.board if row is not own)

    def note(self, seconds: float) -> None:
        """A call has taken ``seconds``."""
        self._average += (seconds - self._average) * _WEIGHT
        self.slow = self._average > _SLOW
        self.show_fewer()

    def show_fewer(self) -> None:
        """A request has stopped waiting."""
        if self._shown:
            self._show()

    def hand_off_others(self) -> None:
        """The first request that waits is about to be served here; the others are not to wait for it."""
        first = self._waiting.popleft()
        try:
            self.hand_off_waiting()
        finally:
            self._waiting.appendleft(first)

    def hand_off_all(self) -> bool:
        """The only thread is in a slow call: pass all that wait for it to the worker that is free first.

        Whether nothing waits here any more.
        """
        if self._waiting:
            self._hand_off(len(self._waiting) if self.others_serve() else 0)
        return not self._waiting

    def hand_off_waiting(self) -> None:
        """Pass requests that wait here to idle siblings, one each, the oldest first."""
        self._hand_off(self.idle())

    def _hand_off(self, most: int) -> None:
        waiting, stay = self._waiting, []
        while waiting and most > 0:
            call = waiting.popleft()
            connection, data = call
            if connection.state is not READY:
                continue
            if data is None or not connection.can_move:
                stay.append(call)
            elif self.give(connection, data, connection.whole_at):
                most -= 1
            else:
                stay.append(call)
                if self._handoff.full():  # else it is this one that cannot go
                    break
        waiting.extendleft(reversed(stay))
        self._show()

    def _show(self) -> None:
        """Show in the scoreboard how many requests wait: the master reports it when a worker dies."""
        if self._row is not None:
            self._row.words[WAITING] = self._shown = len(self._waiting)

    def hand_off_late(self) -> None:
        """As ``hand_off_waiting``, for requests that have waited although several threads run the application."""
        waiting = self._waiting
        free = self._row is not None and self._row.idle()  # one of our own threads is about to take the first
        if waiting and not free and self._timeouts.now - waiting[0][0].whole_at >= RETRY_SECONDS:
            self.hand_off_waiting()

    def give(self, connection: Connection, data: bytes, since: float = 0.0) -> bool:
        """Pass ``connection`` on, with ``data`` that was read from it; False where it stays."""
        if not self.reachable or not connection.can_move:
            return False
        self._poller.suspend(connection)
        queue, timeouts = connection.queue, self._timeouts
        deadline = queue.deadline(connection) if queue is not None else timeouts.now + timeouts.heads.seconds
        handed = HandedConnection(connection.listener.number, connection.peer, deadline, since, data)
        if not self._handoff.give(connection.sock, handed):
            if connection.state is READING:
                self._poller.watch_reading(connection)
            return False
        connection.close()  # our copy of it: the connection lives on in the queue
        if self._row is not None:
            self._row.words[HANDED_ON] += 1
        return True

    # Leaving

    def hand_off_idle(self) -> None:
        """This worker retires: its siblings get what waits for a request."""
        timeouts = self._timeouts
        for connection in [*timeouts.idle, *timeouts.parting, *timeouts.heads]:
            waits = connection.state is READING and not connection.queued
            if waits and not self.give(connection, connection.buffer):
                if not connection.begun:
                    connection.wait_in(timeouts.parting)
                if self._handoff.full():  # else it is this one that cannot go
                    self._wait_for_room()
                    return

    def _wait_for_room(self) -> None:
        if not self._outlet_watched:
            self._outlet_watched = True
            self._poller.register(self._handoff.outlet(), select.EPOLLOUT, self._go_on)

    def _go_on(self, _event: int) -> None:
        self._poller.unwatch(self._handoff.outlet())
        self._outlet_watched = False
        if self.reachable:
            self.hand_off_idle()

    def close(self) -> None:
        """Give the descriptors back."""
        self._handoff.close()

    def forget(self) -> None:
        """In a child that the application forked: the row of the scoreboard is the worker's."""
        self._row = None
        self.close()
