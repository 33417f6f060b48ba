"""Calls of the application that last too long, as the scoreboard shows them.

It promises to look again exactly when the oldest call could become too long, not to wake anybody before, and to name
each call once. It refuses to kill: what follows is for the roster to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from forkserver.ipc.scoreboard import Busy, Row
from forkserver.master.model.lifecycle import NEVER, Worker

NANO = 1e-9
LEAST_SECONDS = 0.01  # between two looks: a worker can write that a call of its is too long in a moment, always
AWAITING_SECONDS = 1.0  # until a call that waits for its client is looked at again: it may go on at any time


class TimedOutRequest(NamedTuple):
    """A call of the worker's ``thread``, begun at ``since`` (ns), that has lasted ``seconds``, longer than it may."""

    worker: Worker
    thread: int
    since: int
    line: str
    seconds: float


class RequestTimeouts:
    """Watches the calls of all workers. ``next_look`` is when to call ``look`` again."""

    def __init__(self, named: Iterable[tuple[Worker, int, int]] = ()) -> None:
        self.next_look = 0.0
        self._least = 0.0
        self.named = set(named)  # worker, thread and begin

    def look(self, rows: Iterable[tuple[Worker, Row, float]], now: float) -> list[TimedOutRequest]:
        """The calls that are too long at ``now``; each worker comes with its row and the seconds a call may last."""
        found: list[TimedOutRequest] = []
        named, self.named = self.named, set()
        self.next_look, self._least = NEVER, now + LEAST_SECONDS
        for worker, row, most in rows:
            self._look_again_at(now + most)  # a call that begins after this look cannot be too long before
            for thread in range(row.threads):
                busy = row.busy(thread)
                if busy is None:
                    continue
                key = (worker, thread, busy.since)
                if key in named:
                    self.named.add(key)
                elif busy.awaits_client:
                    self._look_again_at(now + AWAITING_SECONDS)
                elif (over := _over(busy, most)) > now:
                    self._look_again_at(over)
                else:
                    self.named.add(key)
                    found.append(TimedOutRequest(worker, thread, busy.since, busy.line, busy.seconds(now)))
        return found

    def _look_again_at(self, time: float) -> None:
        self.next_look = max(self._least, min(self.next_look, time))


def _over(busy: Busy, most: float) -> float:
    """When the call is too long: the time it has asked for itself, else ``most`` seconds after it began.

    Never for a WebSocket.
    """
    if busy.websocket:
        return NEVER
    return busy.deadline * NANO if busy.deadline else busy.since * NANO + most
