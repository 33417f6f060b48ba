"""The deadlines of a worker's connections: one queue for each reason to wait.

A connection waits in one queue at a time, and the queue says how long. The loop sleeps until ``next_at`` at most and
then takes the expired ones out of each queue. ``next_at`` may be too early, never too late: a deadline that is put off
leaves it as it is. Times are seconds of ``clock``, CLOCK_MONOTONIC; ``now`` is the time of the turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from forkserver.linux.syscalls import monotonic
from forkserver.server.connection.rate_queues import RateQueues
from forkserver.server.connection.timeout_queue import TimeoutQueue, earliest

if TYPE_CHECKING:
    from forkserver.config.settings import Settings

NEVER: Final = float("inf")
# How much of a refused request is read and dropped before the close: as nginx does by lingering_time and
# lingering_timeout. Only a client on this machine can reach the bytes before the seconds.
LINGER_SECONDS: Final = 30.0
LINGER_QUIET_SECONDS: Final = 5.0  # without anything new
LINGER_BYTES: Final = 4 * 1024**3
_BODY_SECONDS: Final = 1.0  # after which a body has a rate
_ANSWER_SECONDS: Final = 2.0  # an answer: its first says little (send_rate.py), and it may be taken in another
_ANSWERED_SECONDS: Final = 2.0  # after an answer, until the client closes
_EXPIRED_SECONDS: Final = 1.0  # an interrupted call may unwind so long before its client is answered without it
_PARTING_SECONDS: Final = 1.5  # a retiring worker waits so long for a request that may be on its way
_LATE_SECONDS: Final = 1.0  # a deadline that is seen so late says that nothing was read meanwhile
_PARK_SECONDS: Final = 1.0  # how exact the idle deadline is; a busy connection is not put in order on every request


class Timeouts:
    """The deadline queues of one worker; ``wake`` ends the sleep of the thread that turns the loop."""

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = monotonic, wake: Callable[[], object] = lambda: None
    ) -> None:
        self.clock = clock
        self._wake = wake
        self.heads: TimeoutQueue[Any] = TimeoutQueue(settings.header_timeout)
        self.bodies: RateQueues[Any] = RateQueues(settings.body_timeout, _BODY_SECONDS)
        self.answers: RateQueues[Any] = RateQueues(settings.write_timeout, _ANSWER_SECONDS)
        self.idle: TimeoutQueue[Any] = TimeoutQueue(settings.keep_alive)
        self.lingering: TimeoutQueue[Any] = TimeoutQueue(_ANSWERED_SECONDS)
        self.discarding: TimeoutQueue[Any] = TimeoutQueue(LINGER_QUIET_SECONDS)
        self.parting: TimeoutQueue[Any] = TimeoutQueue(_PARTING_SECONDS)
        self.expired: TimeoutQueue[Any] = TimeoutQueue(_EXPIRED_SECONDS)
        self.resting = self.idle  # where a connection waits for its next request
        self.refusing = self.discarding  # where one waits whose request was refused
        self.queues = (
            self.heads, self.idle, self.lingering, self.discarding, self.parting, self.expired,
            *self.bodies.queues, *self.answers.queues,
        )  # fmt: skip
        self.park_seconds = self._calm_seconds = min(_PARK_SECONDS, self.idle.seconds / 10)
        self.now = clock()
        self.late_seconds = 0.0  # for how long in all nothing was read, because the application kept the interpreter
        self.next_at = NEVER
        self.sleeps_until = -1.0  # when the loop wakes; before any time while it is awake

    def put(self, queue: TimeoutQueue[Any], connection: Any) -> None:
        """Let ``connection`` expire when ``queue`` says."""
        queue.put(connection, self.now)
        due = self.now + queue.seconds
        if due < self.next_at:
            self.look_at(due)

    def put_until(self, queue: TimeoutQueue[Any], connection: Any, deadline: float) -> None:
        """Let ``connection`` expire at ``deadline``."""
        queue.put_until(connection, deadline)
        if deadline < self.next_at:
            self.look_at(deadline)

    def look_at(self, due: float) -> None:
        """Look for what has expired at ``due``, which is before ``next_at``."""
        self.next_at = due
        if due < self.sleeps_until:
            self._wake()  # it is another thread that sleeps

    def note_late(self, polled: float) -> None:
        """The loop has come to look at ``polled``; where that is late, clients were kept from sending meanwhile."""
        if polled - self.next_at >= _LATE_SECONDS:
            self.late_seconds += polled - self.next_at

    def reckon(self, *others: float) -> None:
        """Find out when to look next: for the first deadline, or one of ``others``."""
        self.next_at = min(earliest(self.queues) or NEVER, *others)

    def hurry(self) -> None:
        """Put a connection in order of its deadline whenever it comes to rest."""
        self.park_seconds = -1.0

    def calm_down(self) -> None:
        """Put busy connections in order of their deadlines once in a while only."""
        self.park_seconds = self._calm_seconds

    def retire(self) -> None:
        """The worker retires: a connection waits only a moment for its next request."""
        self.resting = self.parting
        self.hurry()
