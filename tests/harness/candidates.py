"""Connections that may be closed to make room, as facts that a test sets: no sockets, and a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from forkserver.config import settings as table
from forkserver.server.connection.states import BODY, CLOSED, DRAINING, READING, ConnectionState
from forkserver.server.connection.timeouts import Timeouts
from forkserver.server.pressure.eviction import Eviction, Shortage
from harness.fakes import FakeClock

CROWD = Shortage.CONNECTIONS


class Candidate:
    """A connection in a deadline queue; ``comes`` is what happens when what it has sent is read."""

    def __init__(self, name: str, state: ConnectionState, timeouts: Timeouts, house: House, rate: float) -> None:
        self.name, self.state, self.rate = name, state, rate
        self.queue: Any = None
        self.queued = False
        self.interest = 1
        self.buffer = b""
        self.fd = -1
        self.unread = False
        self.size_in_spool = 0
        self.head_bytes = 100
        self.transport: Any = SimpleNamespace(pace=SimpleNamespace(rate=lambda _now: self.rate, began=timeouts.now))
        self.comes: Callable[[], None] = lambda: None
        self._timeouts, self._house = timeouts, house

    def __repr__(self) -> str:
        return self.name

    def wait_in(self, queue: Any) -> None:
        if self.queue is not None:
            self.queue.discard(self)
        self.queue = queue
        self._timeouts.put(queue, self)

    def has_more(self) -> bool:
        return self.unread

    def body_rate(self) -> float:
        return self.rate

    def close(self) -> None:
        if self.state is not CLOSED:
            self.state = CLOSED
            self.queue.discard(self)
            self._house.connections.discard(self)
            self._house.closed.append(self.name)

    def evict(self, what: str) -> None:
        assert what in {each.what for each in Shortage}
        self.close()


class House:
    """An eviction over candidates, which notes what it has closed."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.timeouts = Timeouts(table.defaults(), self.clock)
        self.connections: set[Any] = set()
        self.closed: list[str] = []
        self.told: list[str] = []
        self.full = -1  # a descriptor that has no room
        loop: Any = self
        self.eviction = Eviction(loop, loop)

    def guard(self, _connection: object, step: Callable[..., object], *args: object) -> None:
        step(*args)

    def read_now(self, connection: Candidate) -> None:
        connection.comes()

    def short_of(self, what: str, way_out: str, figures: Callable[[], str]) -> None:
        self.told.append(f"{what}; {figures()}; {way_out}")

    def add(self, name: str, queue: Any, state: ConnectionState = READING, rate: float = 0.0) -> Candidate:
        made = Candidate(name, state, self.timeouts, self, rate)
        made.wait_in(queue)
        self.connections.add(made)
        return made

    def body(self, name: str, rate: float) -> Candidate:
        """A body that was measured: it comes at ``rate``, in bytes a second."""
        return self.add(name, self.timeouts.bodies.queue(rate), BODY, rate)

    def answer(self, name: str, rate: float | None = None) -> Candidate:
        """An answer whose client takes it at ``rate``; one that has just begun without it."""
        answers = self.timeouts.answers
        made = self.add(name, answers.fresh if rate is None else answers.queue(rate), DRAINING, rate or 0.0)
        made.fd = self.full
        return made

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.timeouts.now = self.clock.now

    def evicted(self, count: int, shortage: Shortage = CROWD) -> list[str]:
        """Those that are closed to make room, in their order."""
        before = len(self.closed)
        assert self.eviction.evict(count, shortage) == len(self.closed) - before
        return self.closed[before:]
