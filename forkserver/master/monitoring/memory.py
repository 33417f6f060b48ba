"""Which workers are due for recycling: by their age, and by the memory that they have grown to.

Each worker's lifetime is shortened by a random part, so that workers which started together do not end together. Memory
is looked at every ``LOOK_SECONDS``, and never where the setting is off.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from forkserver.linux import process_info
from forkserver.master.model.backoff import HEALTHY_SECONDS
from forkserver.master.model.lifecycle import NEVER, Worker

MIB: Final = 1024 * 1024
LOOK_SECONDS: Final = 1.0
SPREAD: Final = 0.1  # of a lifetime: drawn for each worker, and taken off it


def end_of_life(lifetime: float, now: float, draw: Callable[[], float] = random.random) -> float:
    """When a worker that begins to serve ``now`` is due for recycling; NEVER where ``lifetime`` is 0: no limit."""
    return now + lifetime * (1 - SPREAD * draw()) if lifetime else NEVER


def resident(pid: int) -> int:
    """Bytes of the resident set; 0 where it is unknown."""
    try:
        return process_info.resident(pid)
    except OSError:  # it has just ended, or we have no descriptor left: looked at again later
        return 0


class MemoryWatch:
    """Looks at the memory of the workers from their start on. ``next_look`` is when to call ``look`` again."""

    def __init__(self, size: Callable[[int], int] = resident) -> None:
        self.next_look = 0.0
        self._size = size
        self._first: dict[Worker, int] = {}  # bytes at the first look, of workers that have just begun to serve

    def look(self, workers: Iterable[tuple[Worker, int]], now: float) -> list[tuple[Worker, str]]:
        """The workers that are too large, and why in words; each worker comes with the bytes that it may have."""
        watched = [(worker, most) for worker, most in workers if most]
        self.next_look = now + LOOK_SECONDS if watched else NEVER
        sizes = [(worker, self._size(worker.pid), most) for worker, most in watched]
        for worker, size, _ in sizes:
            self._first.setdefault(worker, size if now - worker.ready_at < HEALTHY_SECONDS else 0)
        self._first = {worker: self._first[worker] for worker, _, _ in sizes}
        return [
            (worker, self._words(worker, size, most))
            for worker, size, most in sizes
            if size > most and self._is_due(worker, most, now)
        ]

    def _is_due(self, worker: Worker, most: int, now: float) -> bool:
        """One that is too large from the start serves a while, or it would be replaced at every look."""
        return self._first[worker] <= most or now - worker.ready_at >= HEALTHY_SECONDS

    def _words(self, worker: Worker, size: int, most: int) -> str:
        said = f"its memory is {size / MIB:.0f} MiB (max_worker_memory: {most / MIB:.0f} MiB)"
        first = self._first[worker]
        if first <= most:
            return said
        return f"{said}; it had {first / MIB:.0f} MiB when it began to serve, as a new one will: raise the setting"
