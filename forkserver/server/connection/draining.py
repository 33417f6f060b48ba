"""A connection whose client takes its answer more slowly than the application makes it.

What the kernel does not take stays in the transport and goes out as the client takes it: while the call lasts and
after it. The client has ``write_timeout`` seconds for each bit of progress; a drip is none. While the application's
thread waits for room, the connection decides how long (``check_progress``).
"""

from __future__ import annotations

from typing import Final

from forkserver.server.connection.lifecycle import OpenConnection
from forkserver.server.connection.states import BODY, CALLING, CLOSED, DRAINING, LINGERING, READING
from forkserver.server.connection.transport import WAIT_SECONDS
from forkserver.server.wsgi.response_sink import ClientGoneError

_LEAST_RATE: Final = 256  # bytes a second, on average over write_timeout: what is taken more slowly is no progress


class DrainingConnection(OpenConnection):
    """Sends what the client had not taken, and watches its progress."""

    __slots__ = ()

    def writable(self, _event: int = 0) -> None:
        """Go on sending what the client had not taken."""
        if self.state is CLOSED:
            return  # a moment ago, in the same turn
        try:
            progress = self.transport.flush()
        except ClientGoneError as gone:
            self._lose_client(gone)
            return
        if self.transport.out:
            if progress and self.state in (CALLING, DRAINING):
                self._note_progress()
        elif self.state is CALLING:
            self.loop.poller.suspend(self)  # the application has more to say
            self.forget_deadline()
        elif self.state is DRAINING:
            self._end_draining()
        else:  # it was OpenSSL that had something to say, before there is an answer
            self.loop.poller.watch_reading(self)

    def _lose_client(self, gone: ClientGoneError) -> None:
        if self.state not in (CALLING, DRAINING):
            self.close()
            return
        if isinstance(gone.__cause__, EOFError) and self.exchange is not None:
            self.exchange.report(str(gone.__cause__))
        self.reset()

    def _end_draining(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.log_out()
            if exchange.response is None:
                self.exchange = None
        if self.persistent:
            self.park()
            self.loop.note_unsent()
        else:
            self.finish()

    def kept(self) -> None:
        """What the client has not taken goes on while the application is at work on the rest."""
        if self.state is CALLING:  # also while no thread drives beside: the background driver may come yet
            self.wait_for_client()
            self.loop.poller.watch_writing(self)
        elif self.transport.seals and self.state in (READING, BODY):
            self.loop.poller.watch_writing(self)

    def waiting(self, waits: bool) -> None:
        """The application's thread begins to wait for the client, or has done so."""
        waiting = self.loop.slow_readers.waiting
        (waiting.add if waits else waiting.discard)(self)

    def check_progress(self, size: int) -> None:
        """Raises ClientGoneError where the wait for room for ``size`` bytes is to end without it."""
        pace, now = self.transport.pace, self.loop.timeouts.clock()
        if pace is None or now < pace.looked_at + WAIT_SECONDS:
            return
        pace.looked_at = now
        stalled = self._last_progress(now) + self.loop.timeouts.answers.timeout <= now
        if stalled or self.loop.slow_readers.must_yield(self, size):
            self.doomed = True
            raise ClientGoneError

    def _note_progress(self) -> None:
        """Look whether the client has taken enough to count, once in a while."""
        timeouts, pace = self.loop.timeouts, self.transport.pace
        if pace is not None and timeouts.now - pace.progress_at >= min(1.0, timeouts.answers.timeout / 10):
            self._last_progress(timeouts.now)

    def _takes_slowly(self) -> bool:
        """Whether the client has made progress within ``write_timeout``; it is looked at later again then."""
        timeouts, pace = self.loop.timeouts, self.transport.pace
        now, answers = timeouts.now, timeouts.answers
        deadline = self._last_progress(now) + answers.timeout
        if pace is None or deadline <= now:
            return False
        queue = answers.queue(pace.rate(now))
        self.wait_in(queue)
        if deadline < queue.deadline(self):
            timeouts.put_until(queue, self, deadline)
        return True

    def _last_progress(self, now: float) -> float:
        """When the client last took enough of the answer to count."""
        pace = self.transport.pace
        return pace.look(now, _LEAST_RATE * self.loop.timeouts.answers.timeout) if pace is not None else now

    def part(self) -> None:
        """Close unless an answer is on its way: with nothing unread, closing cannot become a reset."""
        if self.state is LINGERING:
            self.discard()
        if self.state is LINGERING or (self.state is READING and not self.queued):
            self.close()
