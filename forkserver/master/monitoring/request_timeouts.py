"""Request timeouts: the calls of the application that last too long, as the scoreboard shows them.

``next_look`` is the earliest time at which a call can become too long, so the master does not wake before. Each call is
named once. What follows for its worker is decided in the model (transitions.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from forkserver.ipc.busy_call import Busy
from forkserver.ipc.scoreboard import Row
from forkserver.linux.common.records import NamedTuple
from forkserver.master.model.lifecycle import NEVER, Process, Worker

NANO = 1e-9
LEAST_SECONDS = 0.01  # between two looks: a worker can write that a call of its is too long in a moment, always
AWAITING_SECONDS = 1.0  # until a call that waits for its client is looked at again: it may go on at any time


class TimedOutRequest(NamedTuple):
    """A call of the worker's ``thread``, begun at ``since`` (ns), that has lasted ``seconds``, longer than it may.

    ``request`` is its request line, with the request's id.
    """

    worker: Worker
    thread: int
    since: int
    request: str
    seconds: float


class RequestTimeouts:
    """Watches the calls of all workers. ``next_look`` is when to call ``look`` again."""

    def __init__(self) -> None:
        self.next_look = 0.0
        self._least = 0.0
        self._named: set[tuple[Worker, int, int]] = set()  # worker, thread and begin

    def snapshot(self, places: Mapping[Process, int]) -> list[tuple[int, int, int]]:
        """What the next program is told: the calls that were named, by the places of their workers."""
        return [(places[worker], thread, since) for worker, thread, since in self._named if worker in places]

    def restore(self, named: Iterable[tuple[int, int, int]], processes: Sequence[Process]) -> None:
        """Go on with the calls that the program before has named."""
        calls = ((processes[at], thread, since) for at, thread, since in named)
        self._named = {(worker, thread, since) for worker, thread, since in calls if isinstance(worker, Worker)}

    def look(self, rows: Iterable[tuple[Worker, Row, float]], now: float) -> list[TimedOutRequest]:
        """The calls that are too long at ``now``; each worker comes with its row and the seconds a call may last."""
        found: list[TimedOutRequest] = []
        named, self._named = self._named, set()
        self.next_look, self._least = NEVER, now + LEAST_SECONDS
        for worker, row, most in rows:
            self._look_again_at(now + most)  # a call that begins after this look cannot be too long before
            for thread in range(row.places):
                busy = row.busy(thread)
                if busy is None:
                    continue
                key = (worker, thread, busy.since)
                if key in named:
                    self._named.add(key)
                elif busy.awaits_client:
                    self._look_again_at(now + AWAITING_SECONDS)
                elif (over := _over(busy, most)) > now:
                    self._look_again_at(over)
                else:
                    self._named.add(key)
                    found.append(TimedOutRequest(worker, thread, busy.since, busy.told(), busy.seconds(now)))
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
