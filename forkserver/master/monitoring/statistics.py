"""Statistics of living and ended workers: the facts behind ``forkserverctl status``.

All are plain values that JSON holds, in the words of the log. Memory is measured once in ``LOOK_SECONDS`` at most,
however often a caller asks. Figures that workers write in the scoreboard are passed on as they are.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from forkserver.ipc import figures, scoreboard
from forkserver.ipc.busy_call import Busy
from forkserver.ipc.scoreboard import Row
from forkserver.linux import process_info, syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import BOOTING, NEVER, State, Worker
from forkserver.master.monitoring.figure_totals import FigureTotals
from forkserver.master.monitoring.memory import LOOK_SECONDS, resident

_FIGURES: Final = {
    "requests": scoreboard.REQUESTS,
    "held": scoreboard.OPEN,
    "parked": scoreboard.PARKED,
    "unsent": scoreboard.UNSENT,
    "waiting": scoreboard.WAITING,
    "accelerated": scoreboard.ACCELERATED,
    "declined": scoreboard.DECLINED,
}


MOST_DEATHS: Final = 20
_MOST_REMAINS: Final = 500  # characters: what hundreds of threads were serving would swell each status


class WorkerDeath(NamedTuple):
    """An end without an order, or for a call that took too long; ``at`` is CLOCK_MONOTONIC.

    ``worker`` is its number, ``cause`` how it ended, ``remains`` what it was serving and had open, both in words.
    """

    at: float
    worker: int
    pid: int
    generation: int
    cause: str
    remains: str


class StatisticsSnapshot(NamedTuple):
    """What the next program is told: requests and ends of ended workers, and the pids of workers that hang.

    ``ends`` are counted by reason, ``since`` is when counting began. ``lost_lines`` are those of
    ended workers and the master's own; an older program did not count them. ``figures`` are what ended workers have
    counted, by word of a row, ``reloads`` how many were done, and how many were refused, and ``served_since`` is when
    the generation that serves has taken over. ``deaths`` are the last ones.
    """

    requests: int
    ends: dict[str, int]
    since: float
    hung: list[int]
    lost_lines: int = 0
    figures: dict[int, int] = {}  # noqa: RUF012  # never changed: the default of a named tuple
    reloads: tuple[int, int] = (0, 0)
    served_since: float = NEVER
    deaths: list[WorkerDeath] = []  # noqa: RUF012


class Statistics:
    """Counts living workers by ``row_of``, which gives a worker's row, and remembers ended ones.

    ``since`` (CLOCK_MONOTONIC) is when it began; ``snapshot`` is what the program before has counted.
    """

    def __init__(
        self,
        fleet: Fleet,
        row_of: Callable[[Worker], Row],
        size: Callable[[int], int] = resident,
        snapshot: StatisticsSnapshot | None = None,
        standing: Callable[[int], str] = process_info.standing,
    ) -> None:
        self._fleet = fleet
        self._row_of = row_of
        self._size = size
        self._sizes: dict[int, int] = {}
        self._standing = standing
        self._stands: dict[int, str] = {}  # how workers stand still, by pid
        self._sized_at = -NEVER
        past = snapshot or StatisticsSnapshot(0, {}, syscalls.clock(), [])
        self.since = past.since
        self._ends: Counter[str] = Counter(past.ends)
        known = {scoreboard.REQUESTS: past.requests, scoreboard.LOST_LINES: past.lost_lines}
        self.figures = FigureTotals(lambda: map(row_of, fleet.workers), past.figures or known)
        self.reloads_done, self.reloads_refused = past.reloads
        self.served_since = past.served_since
        self._deaths = deque(past.deaths, MOST_DEATHS)
        self._hung = {worker for worker in fleet.workers if worker.pid in past.hung}

    def snapshot(self) -> StatisticsSnapshot:
        """What the next program is told."""
        hung = [worker.pid for worker in self._hung]
        figures = self.figures.of_ended()
        return StatisticsSnapshot(
            requests=figures[scoreboard.REQUESTS],
            ends=dict(self._ends),
            since=self.since,
            hung=hung,
            lost_lines=figures[scoreboard.LOST_LINES],
            figures=figures,
            reloads=(self.reloads_done, self.reloads_refused),
            served_since=self.served_since,
            deaths=list(self._deaths),
        )

    # What happens

    def lose_lines(self, count: int) -> None:
        """The master could not write so many lines of its log."""
        self.figures.add(scoreboard.LOST_LINES, count)

    def serves(self, first: bool) -> None:
        """A generation has taken over, the ``first`` or by a reload."""
        self.served_since = syscalls.clock()
        self.reloads_done += not first

    def refused(self) -> None:
        """A reload was refused."""
        self.reloads_refused += 1

    def hung(self, worker: Worker) -> None:
        """A call in it has lasted too long, which is the reason of its end, however it ends."""
        self._hung.add(worker)

    def ended(self, worker: Worker, before: State, cause: str, ordered: bool, remains: str = "") -> None:
        """It has ended, in the state ``before``; ``cause`` is that in words, ``ordered`` whether it was told to.

        ``remains`` is what it was serving and had open, in words.
        """
        self.figures.ended(self._row_of(worker))
        if worker in self._hung or not ordered:
            number, pid, generation = worker.slot + 1, worker.pid, worker.generation
            self._deaths.append(WorkerDeath(syscalls.clock(), number, pid, generation, cause, remains[:_MOST_REMAINS]))
        if not self._fleet.stopping:
            self._ends[self._reason(worker, before, cause, ordered)] += 1
        self._hung.discard(worker)

    def _reason(self, worker: Worker, before: State, cause: str, ordered: bool) -> str:
        if worker in self._hung:
            return "timeout"
        if not ordered:
            how, _, by = cause.partition(":")[0].partition(", ")  # without the details of this end
            return "not ready" if before in BOOTING else f"{how} ({by})"
        return self._fleet.reason_to_leave(worker)

    # What can be asked

    @property
    def requests(self) -> int:
        """Requests that all workers so far have answered."""
        return self.figures[scoreboard.REQUESTS]

    @property
    def lost_lines(self) -> int:
        """Lines of both logs that could not be written, because their reader was stuck or a disk full."""
        return self.figures[scoreboard.LOST_LINES]

    def generation_seconds(self, now: float) -> float | None:
        """Seconds since the generation that serves has taken over; None before the first does."""
        return None if self.served_since == NEVER else round(now - self.served_since, 3)

    @property
    def busy(self) -> int:
        """Calls of the application that go on."""
        rows = map(self._row_of, self._fleet.workers)
        return sum(row.busy(thread) is not None for row in rows for thread in range(row.threads))

    @property
    def all_busy(self) -> bool:
        """Whether no worker has a free thread."""
        return not any(self._row_of(each).idle() for each in self._fleet.workers)

    @property
    def ends(self) -> dict[str, int]:
        """How many workers have been replaced or have crashed, by reason, since the start."""
        return dict(self._ends)

    def deaths(self, now: float) -> list[dict[str, Any]]:
        """The last workers that have ended without an order, or for a call that took too long; the newest first."""
        return [
            {
                "worker": death.worker,
                "pid": death.pid,
                "generation": death.generation,
                "cause": death.cause,
                "remains": death.remains,
                "seconds": round(max(0.0, now - death.at), 3),
            }
            for death in reversed(self._deaths)
        ]

    def workers(self, now: float) -> list[dict[str, Any]]:
        """Every worker by slot and age: its pid, its state, its figures, and what it is busy with."""
        self._measure(now)
        ordered = sorted(self._fleet.workers, key=lambda each: (each.slot, each.generation))
        return [self._shown(worker, now) for worker in ordered]

    def _shown(self, worker: Worker, now: float) -> dict[str, Any]:
        row = self._row_of(worker)
        calls = row.calls()
        stopped = worker.state is State.SERVING and worker.deadline < NEVER
        return {
            "worker": worker.slot + 1,
            "pid": worker.pid,
            "generation": worker.generation,
            "state": process_info.STOPPED if stopped else self._state(worker),
            "seconds": round(now - worker.ready_at, 3) if worker.ready_at < NEVER else None,
            **{name: row.figure(word) for name, word in _FIGURES.items()},
            "application_seconds": row.figure(figures.LASTED) / 1e9,
            "memory": self._sizes.get(worker.pid, 0),
            "busy": [_call(busy, now) for busy in calls],
        }

    def _state(self, worker: Worker) -> str:
        serving = worker.state is State.SERVING
        return (self._stands.get(worker.pid) if serving else "") or worker.state.value

    def _measure(self, now: float) -> None:
        if now >= self._sized_at + LOOK_SECONDS:
            self._sizes = {}
            self._stands = {worker.pid: self._standing(worker.pid) for worker in self._fleet.serving()}
            self._sized_at = now
        for pid in (os.getpid(), *self._pids()):
            if pid and pid not in self._sizes:  # one that has begun since the last look is not shown without memory
                self._sizes[pid] = self._size(pid)

    def _pids(self) -> list[int]:
        return [worker.pid for worker in self._fleet.workers]

    def memory_of_master(self) -> int:
        """Bytes of the master's own resident set, as of the last look."""
        return self._sizes.get(os.getpid(), 0)


def _call(busy: Busy, now: float) -> dict[str, Any]:
    """One call of the application: its request line and id, how long it lasts, whether it has become a WebSocket."""
    return {
        "request": busy.line,
        "request_id": busy.request_id,
        "seconds": round(busy.seconds(now), 3),
        "websocket": busy.websocket,
    }
