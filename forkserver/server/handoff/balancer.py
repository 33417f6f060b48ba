"""The other workers, as one worker sees them: who is idle, and what they are to have.

It promises that a request goes on to a sibling only where it would wait here for long, and that a connection which
nobody takes stays. It refuses to know why a worker leaves.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from forkserver.ipc.scoreboard import WAITING, Scoreboard
from forkserver.server.connection.connection import READING, READY
from forkserver.server.handoff.queue import Handoff

if TYPE_CHECKING:
    from forkserver.server.connection.connection import Connection
    from forkserver.server.loop.event_loop import Loop

PATIENCE: Final = 0.005  # seconds a request waits before somebody looks for an idle sibling again
_SLOW: Final = 0.0005  # a call this long on average makes it worth it to send a connection on
_WEIGHT: Final = 1 / 8  # of the last call in the average


class Balancer:
    """Ways to the other workers of ``board``."""

    def __init__(self, loop: Loop, board: Scoreboard, handoff: Handoff) -> None:
        self._loop = loop
        self.board = board
        self._handoff = handoff
        self._pace = 0.0  # seconds that a call takes, of late
        self.slow = False  # so long that a request which would wait for one had better go elsewhere
        self._shown = 0
        self._outlet_watched = False
        self.reachable = True  # they live and take connections

    def serve(self) -> bool:
        """Whether there are any just now."""
        return self.board.serving > 1

    def have_idle(self) -> bool:
        """Whether one of them has a free thread."""
        return self._idle() > 0

    def note(self, seconds: float) -> None:
        """A call has taken ``seconds``."""
        self._pace += (seconds - self._pace) * _WEIGHT
        self.slow = self._pace > _SLOW
        self.show_fewer()

    def show_fewer(self) -> None:
        """A request has stopped waiting."""
        if self._shown:
            self._show()

    def relieve_before_call(self) -> None:
        """The first request that waits is about to be served here; the others are not to wait for it."""
        calls = self._loop.calls
        first = calls.popleft()
        try:
            self.hand_off_waiting()
        finally:
            calls.appendleft(first)

    def hand_off_waiting(self) -> None:
        """Let idle siblings have requests that wait here, one each, the oldest first."""
        calls, stay = self._loop.calls, []
        idle = self._idle()
        while calls and idle > 0:
            call = calls.popleft()
            connection, data, since = call
            if connection.state != READY:
                continue
            if data is not None and self.give(connection, data, since):
                idle -= 1
            else:
                stay.append(call)
        calls.extendleft(reversed(stay))
        self._show()

    def _show(self) -> None:
        """Count the requests that wait, for whoever tells of a death of ours."""
        if self._loop.row is not None:
            self._loop.row.words[WAITING] = self._shown = len(self._loop.calls)

    def relieve_late(self) -> None:
        """As ``hand_off_waiting``, of requests that have waited although several threads run the application."""
        loop = self._loop
        free = loop.row is not None and loop.row.idle()  # one of our own threads is about to take the first
        if loop.calls and not free and loop.now - loop.calls[0][2] >= PATIENCE:
            self.hand_off_waiting()

    def _idle(self) -> int:
        own = self._loop.row
        return sum(row.idle() for row in self.board if row is not own)

    def give(self, connection: Connection, data: bytes, since: float = 0.0) -> bool:
        """Hand ``connection`` on, with ``data`` that was read from it; False where it stays."""
        return self.reachable and connection.give(self._handoff, data, since)

    # Leaving

    def inherit(self) -> None:
        """This worker retires: its siblings get what waits for a request."""
        loop = self._loop
        for connection in [*loop.idle, *loop.parting, *loop.heads]:
            if connection.state == READING and not connection.queued and not self.give(connection, connection.buffer):
                if not connection.buffer:
                    connection.wait_in(loop.parting)
                if self._handoff.full():  # else it is this one that cannot go
                    self._wait_for_room()
                    return

    def _wait_for_room(self) -> None:
        if not self._outlet_watched:
            self._outlet_watched = True
            self._loop.register(self._handoff.outlet(), select.EPOLLOUT, self._go_on)

    def _go_on(self, _event: int) -> None:
        self._loop.unwatch(self._handoff.outlet())
        self._outlet_watched = False
        if self.reachable:
            self.inherit()

    def close(self) -> None:
        """Give the descriptors back."""
        self._handoff.close()
