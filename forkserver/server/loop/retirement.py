"""How a worker leaves: it takes what is queued and nothing more, and ends when it has no connection left.

With a hand-off, siblings get the connections that wait for a request. Without one, each answer says close, and a
connection that stays idle is closed after a moment, in which a request that is on its way may still arrive. After the
grace what is left is named in the log and cut.
"""

from __future__ import annotations

from typing import Protocol

from forkserver.linux.sockets.resets import reset_at_close
from forkserver.server.connection.timeouts import NEVER
from forkserver.server.loop.protocols import WorkerLoop
from forkserver.server.loop.unfinished_requests import named


class RetiringAcceptor(Protocol):
    """The acceptor."""

    def drain(self, new_program: bool) -> None:
        """Take what is queued and stop; for a ``new_program``, inherited listeners keep their queue."""

    def adopt_all(self) -> None:
        """Take what siblings have handed on."""


class Retirement:
    """The retirement of the worker whose loop is ``loop``, which begins with ``begin``."""

    def __init__(self, loop: WorkerLoop, acceptor: RetiringAcceptor) -> None:
        self._loop = loop
        self._acceptor = acceptor
        self.end_at = NEVER  # when the grace is over

    def begin(self, grace_seconds: float, handoff: bool) -> None:
        """Leave when no connection is left, at the latest after ``grace_seconds``. ``handoff``: siblings go on.

        May be called again without ``handoff``: the siblings leave, too.
        """
        loop, balancer, timeouts = self._loop, self._loop.balancer, self._loop.timeouts
        handoff = handoff and balancer is not None
        timeouts.now = timeouts.clock()
        if not loop.retiring:
            loop.retiring = True
            timeouts.retire()
            self.end_at = timeouts.now + grace_seconds
            for connection in loop.connections:
                connection.stop_reading()
                if connection.stays:
                    connection.end_with_answer()
            timeouts.look_at(min(timeouts.next_at, self.end_at))
            if balancer is not None:
                balancer.reachable = handoff
            self._acceptor.drain(new_program=not handoff)
            loop.resume_accepting_after(NEVER)  # what was paused for want of something is over
            if balancer is not None and handoff:
                balancer.hand_off_idle()
            else:
                self._leave_alone()
        elif not handoff and balancer is not None and balancer.reachable:
            self._acceptor.adopt_all()
            self._leave_alone()
        if not loop.connections:
            loop.poller.wake()

    def _leave_alone(self) -> None:
        """No sibling takes what this worker has: every answer says close, and idle connections end.

        Nor does a stop wait for what refused clients have yet to send: their answer is out.
        """
        loop, timeouts = self._loop, self._loop.timeouts
        loop.closing = True
        for connection in loop.connections:
            connection.end_with_answer()
        timeouts.refusing = timeouts.lingering
        for connection in [*timeouts.discarding]:
            connection.wait_in(timeouts.lingering)
        if loop.balancer is not None:
            loop.balancer.reachable = False
        for connection in [*timeouts.idle, *timeouts.heads]:
            if not connection.begun:
                connection.wait_in(timeouts.parting)

    def end_if_due(self, now: float) -> None:
        """Cut what is left when the grace is over, and name it in the log."""
        if now < self.end_at:
            return
        self.end_at = NEVER
        loop = self._loop
        if left := named(loop.connections, loop.row):
            loop.context.log.warning(f"graceful_timeout is over; closing what is unfinished: {left}")
        self.close_all()

    @property
    def complete(self) -> bool:
        """Whether a retiring worker has nothing left to do."""
        loop = self._loop
        for sock in loop.handler_sockets.copy():  # a copy: threads take theirs out meanwhile
            if sock.fileno() < 0:
                loop.handler_sockets.discard(sock)
        return loop.retiring and not loop.connections and not loop.handler_sockets

    def close_all(self) -> None:
        """Close every connection at once; an application that still writes to one learns that it is gone."""
        for connection in list(self._loop.connections):
            connection.cut()
        for sock in self._loop.handler_sockets.copy():
            reset_at_close(sock)
            sock.close()
        self._loop.handler_sockets = set()
