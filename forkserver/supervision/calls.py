"""Calls of the application that last too long, as the scoreboard shows them.

It promises to look again exactly when the oldest call could become too long, and not to wake anybody before. It refuses
to kill: a call that is too long is named twice, first as a suspect, and if it is the same call still, as condemned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forkserver.scoreboard import Row
from forkserver.supervision.lives import NEVER, Worker
from forkserver.supervision.roster import STACKS_SECONDS


@dataclass(frozen=True)
class Overdue:
    """A call that has lasted ``seconds``, longer than it may; ``condemned`` once it has been a suspect long enough."""

    worker: Worker
    line: str
    seconds: float
    condemned: bool


class Calls:
    """Watches the calls of all workers. ``next_look`` is when to call ``look`` again."""

    def __init__(self) -> None:
        self.next_look = 0.0
        self._suspects: dict[tuple[Worker, int, int], float] = {}  # worker, thread and serial: when it is condemned

    def look(self, rows: Iterable[tuple[Worker, Row, float]], now: float) -> list[Overdue]:
        """The calls that are too long at ``now``; each worker comes with its row and the seconds a call may last."""
        found: list[Overdue] = []
        suspects, self._suspects = self._suspects, {}
        self.next_look = NEVER
        for worker, row, most in rows:
            self._look_again_at(now + most)  # a call that begins after this look cannot be too long before
            for thread in range(row.threads):
                busy = row.busy(thread)
                if busy is None:
                    continue
                since, serial, line = busy
                seconds = now - since / 1e9
                if seconds < most:
                    self._look_again_at(now + most - seconds)
                    continue
                key = (worker, thread, serial)
                condemned_at = suspects.get(key, now + STACKS_SECONDS)
                self._suspects[key] = condemned_at
                self._look_again_at(condemned_at)
                if key not in suspects or now >= condemned_at:
                    found.append(Overdue(worker, line, seconds, now >= condemned_at))
        return found

    def _look_again_at(self, time: float) -> None:
        self.next_look = min(self.next_look, time)
