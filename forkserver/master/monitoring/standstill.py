"""Workers that stand still although no signal has stopped them: a debugger holds them, or their main thread has ended.

The kernel tells the master neither. So where the master looks for calls that are too long, the workers that serve and
have written nothing to the scoreboard since the look before are looked at in /proc. What is found is looked at once
more after ``AGAIN_SECONDS``: a tracer such as py-spy stops a process for a moment, and one that ends has no main thread
for a moment. Each worker is named once, until it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from forkserver.ipc.scoreboard import Row
from forkserver.linux import process_info
from forkserver.master.model.lifecycle import NEVER, State, Worker

LOOK_SECONDS: Final = 5.0  # between two looks, at least
AGAIN_SECONDS: Final = 1.0


class Standstill:
    """Looks at workers that serve. ``next_look`` is when to look again at what was found."""

    def __init__(self, standing: Callable[[int], str] = process_info.standing) -> None:
        self.next_look = NEVER
        self._standing = standing
        self._not_before = 0.0
        self._written: dict[Worker, bytes] = {}
        self._found: dict[Worker, str] = {}
        self._named: dict[Worker, str] = {}

    def look(self, rows: Iterable[tuple[Worker, Row, float]], now: float) -> list[tuple[Worker, str]]:
        """The workers that stand still, each with ``process_info.STOPPED`` or ``process_info.ENDING``."""
        if now < min(self._not_before, self.next_look):
            return []
        self._not_before, self.next_look = now + LOOK_SECONDS, NEVER
        before, found = (self._written, self._found), {}
        self._written = {
            worker: row.words.tobytes() for worker, row, _ in rows if worker.state is State.SERVING and worker.pid
        }
        for worker, written in self._written.items():
            if before[0].get(worker) == written and worker.deadline == NEVER and (how := self._standing(worker.pid)):
                found[worker] = how
        named = {worker: how for worker, how in found.items() if before[1].get(worker) == how}
        new = [(worker, how) for worker, how in named.items() if self._named.get(worker) != how]
        self._found, self._named = found, named
        if len(named) < len(found):
            self.next_look = now + AGAIN_SECONDS
        return new
