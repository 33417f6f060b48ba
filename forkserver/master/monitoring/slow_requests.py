"""Slow requests: the calls of the application that pass ``slow_log``, as the scoreboard shows them, and the last fifty.

A call is due when it has passed the limit, and again at each doubling of that: then its worker is asked to log where
it stands. A call that has given its client something counts anew from there; one that waits for its client, or for a
person at a debugger, and a WebSocket, do not count. Calls that are slow are looked at more often, so that their list
says how long they took.

What workers say is bounded and escaped here. So many are asked at once, and so many a second: the others are counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from forkserver.ipc.busy_call import Busy
from forkserver.ipc.scoreboard import Row
from forkserver.linux.common.escaping import printable
from forkserver.linux.common.records import NamedTuple, Record
from forkserver.linux.syscalls import wall_time
from forkserver.logs.error_format import RequestFacts
from forkserver.master.model.backoff import RestartPace
from forkserver.master.model.lifecycle import NEVER, UNHEARING, Process, Worker
from forkserver.master.monitoring.request_timeouts import AWAITING_SECONDS, NANO

KEPT: Final = 50
ASKED_AT_ONCE: Final = 20  # calls whose stacks are logged, and one more each second
SUMMARY_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 2.0  # for a worker to say that it has logged a call
_LOOK_SECONDS: Final = 0.1  # between two looks, at least
_PRECISION: Final = 16  # a call that is slow is looked at each time it has lasted by so small a part longer
_CLIENT_CHARACTERS: Final = 64
_PLACE_CHARACTERS: Final = 300

Key = tuple[Worker, int, int]  # and the thread, and since when (ns)
Rows = Iterable[tuple[Worker, Row, float]]  # workers with their rows, and slow_log; 0: off


class SlowRequest(Record):
    """One slow call. ``time`` is when it began (seconds since 1970), ``seconds`` how long it lasted when last seen.

    ``running`` says whether it goes on. ``client``, and the ``place`` of its innermost call, are what its worker says
    of it; empty where they are not known. ``next_seconds`` without progress make it due again.
    """

    worker: int  # as a person counts
    pid: int
    generation: int
    thread: int
    since: int
    time: float
    request: str
    request_id: str
    in_hook: bool
    seconds: float = 0.0
    next_seconds: float = 0.0
    running: bool = True
    client: str = ""
    place: str = ""

    def facts(self) -> RequestFacts:
        """For the log."""
        return RequestFacts(self.request, self.request_id, self.client, self.seconds)


class SlowRequestSnapshot(NamedTuple):
    """What the next program is told of one; ``process`` is the place of its worker, -1 where the call is over."""

    process: int
    call: SlowRequest


class SlowRequests:
    """Watches the calls of all workers. ``next_look`` is when to call ``look`` again; ``clock`` gives the time."""

    def __init__(self, clock: Callable[[], float] = wall_time) -> None:
        self.next_look = NEVER
        self._clock = clock
        self._running: dict[Key, SlowRequest] = {}
        self._asked: dict[Key, tuple[SlowRequest, float]] = {}  # and by when the worker is to have answered
        self._last: deque[SlowRequest] = deque(maxlen=KEPT)
        self._pace = RestartPace(1.0, ASKED_AT_ONCE)
        self._left_out = 0
        self._summary_at = NEVER

    # Looking

    def look(self, rows: Rows, now: float) -> list[Key]:
        """The calls that their workers are to be asked for."""
        due: list[Key] = []
        before, self._running = self._running, {}
        self.next_look = min(self._summary_at, *(until for _, until in self._asked.values()), NEVER)
        for worker, row, limit in rows:
            if limit:
                self._look_again_at(now + limit, now)  # a call that begins after this look is not slow before
                due += self._of_worker(worker, row, limit, before, now)
        for call in before.values():
            call.running = False
        return due

    def _of_worker(
        self, worker: Worker, row: Row, limit: float, before: dict[Key, SlowRequest], now: float
    ) -> list[Key]:
        due: list[Key] = []
        for thread in range(row.places):
            busy = row.busy(thread)
            if busy is None or busy.websocket:
                continue
            key = worker, thread, busy.since
            call = before.pop(key, None)
            waits, lasted = busy.awaits_client or worker.in_debugger, busy.seconds_without_progress(now)
            if not waits and lasted >= (call.next_seconds if call else limit):
                call = call or self._begin(key, busy, thread == row.loop, now)
                while call.next_seconds <= lasted:
                    call.next_seconds = 2 * call.next_seconds or limit
                due += [key] if self._ask(key, call, now) else []
            if call is not None:
                call.seconds = busy.seconds(now)
                self._running[key] = call
                self._look_again_at(now + call.seconds / _PRECISION, now)
            left = AWAITING_SECONDS if waits else (call.next_seconds if call else limit) - lasted
            self._look_again_at(now + left, now)
        return due

    def _begin(self, key: Key, busy: Busy, in_hook: bool, now: float) -> SlowRequest:
        worker, thread, since = key
        call = SlowRequest(
            worker.slot + 1, worker.pid, worker.generation, thread, since, self._clock() - busy.seconds(now),
            busy.line, busy.request_id, in_hook, busy.seconds(now),
        )  # fmt: skip
        self._last.appendleft(call)
        return call

    def _ask(self, key: Key, call: SlowRequest, now: float) -> bool:
        """Whether the worker is to be asked, and can be."""
        if key in self._asked or key[0].state in UNHEARING:  # in which all threads are shown, or nothing is heard
            return False
        if not self._pace.room(now):
            self._left_out += 1
            self._summary_at = min(self._summary_at, now + SUMMARY_SECONDS)
            return False
        self._pace.take(now)
        self._asked[key] = call, now + ANSWER_SECONDS
        self._look_again_at(now + ANSWER_SECONDS, now)
        return True

    def _look_again_at(self, time: float, now: float) -> None:
        self.next_look = min(self.next_look, max(now + _LOOK_SECONDS, time))

    # Answers

    def shown(self, worker: Worker, thread: int, since: int, client: str, place: str) -> None:
        """``worker`` has logged where a call stands; what it was not asked for is not heard."""
        asked = self._asked.pop((worker, thread, since), None)
        if asked is not None:
            call, _ = asked
            call.client, call.place = _bounded(client, _CLIENT_CHARACTERS), _bounded(place, _PLACE_CHARACTERS)

    def unseen(self, rows: Callable[[], Rows], now: float) -> list[SlowRequest]:
        """The calls that a worker has not shown in time; each is named once."""
        late = [key for key, (_, until) in self._asked.items() if now >= until]
        if late:
            self.settle(rows())
        return [self._asked.pop(key)[0] for key in late]

    def left_out(self, now: float) -> int:
        """How often no worker was asked since that was last told, for there were too many; 0 until it is time."""
        if now < self._summary_at:
            return 0
        count, self._left_out, self._summary_at = self._left_out, 0, NEVER
        return count

    # What can be asked

    def settle(self, rows: Rows) -> None:
        """Note which calls have ended since the last look."""
        rows_by_worker = {worker: row for worker, row, _ in rows}
        for (worker, thread, since), call in self._running.items():
            row = rows_by_worker.get(worker)
            busy = None if row is None else row.busy(thread)
            call.running = busy is not None and busy.since == since

    def listed(self, now: float) -> list[dict[str, Any]]:
        """The last ones, newest first, as plain values."""
        return [
            {
                "time": round(call.time, 3),
                "seconds": round(max(0.0, now - call.since * NANO) if call.running else call.seconds, 3),
                "running": call.running,
                "worker": call.worker,
                "pid": call.pid,
                "generation": call.generation,
                "request": call.request,
                "request_id": call.request_id,
                "client": call.client,
                "place": call.place,
            }
            for call in self._last
        ]

    # Over an upgrade

    def snapshot(self, places: Mapping[Process, int]) -> list[SlowRequestSnapshot]:
        """What the next program is told, by the places of the workers."""
        running = {id(call): places.get(key[0], -1) for key, call in self._running.items()}
        return [SlowRequestSnapshot(running.get(id(call), -1), call) for call in self._last]

    def restore(self, snapshot: Iterable[SlowRequestSnapshot], processes: Sequence[Process]) -> None:
        """Go on with what the program before has seen."""
        self.next_look = 0.0
        for process, call in snapshot:
            worker = processes[process] if process >= 0 else None
            call.running = isinstance(worker, Worker)
            if isinstance(worker, Worker):
                self._running[worker, call.thread, call.since] = call
            self._last.append(call)


def _bounded(text: str, most: int) -> str:
    """``text`` of a worker's as it fits into a list, a terminal and a page."""
    return printable(text[:most])[:most]
