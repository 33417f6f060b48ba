"""Workers by slot, state and generation, kept so that one event costs the same with ten workers as with a thousand.

The fleet calls ``add``, ``touch`` and ``remove`` with every change of a worker, and the slot of that worker is looked
at again. All slots are, where their number or the generations that are outdated change (``refresh``), which a reload
does twice. All of it follows from the fleet's facts, so an upgrade carries none of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from typing import Final

from forkserver.master.model.lifecycle import BOOTING, NEVER, PRESENT, State, Worker

_ORDERABLE: Final = (State.STARTING, State.SERVING)  # may be told to retire


class SlotIndex:
    """The workers of a fleet with ``wanted`` slots, where those of ``outdated`` generations are to be replaced.

    The sets hold slot numbers, or workers in the order in which they came into them.
    """

    def __init__(self, workers: Iterable[Worker], wanted: int, outdated: frozenset[int]) -> None:
        self.looked_at = 0  # slots, since the start: what an event costs
        self.generations: Counter[int] = Counter()  # of living workers
        self.keepers: dict[int, Worker] = {}  # the newest worker of a slot that serves code still wanted
        self.empty: set[int] = set()  # without a worker that serves or is about to
        self.unkept: set[int] = set()  # without a keeper
        self.stale: list[int] = []  # sorted: all that serve it, or are about to, are of outdated code
        self.crowded: set[int] = set()  # with more workers than one that may be told to retire, or no slot any more
        self.timed: dict[Worker, None] = {}  # with a deadline or an end of their life
        self.booting: dict[Worker, None] = {}
        self.serving: dict[Worker, None] = {}
        self._born: dict[Worker, int] = {}
        self._count = 0
        self._slots: dict[int, list[Worker]] = {}
        self._wanted, self._outdated = wanted, outdated
        for worker in workers:
            self.add(worker)
        self.refresh(wanted, outdated)

    def add(self, worker: Worker) -> None:
        """``worker`` is new."""
        self._count += 1
        self._born[worker] = self._count
        self._slots.setdefault(worker.slot, []).append(worker)
        self.generations[worker.generation] += 1
        self.touch(worker)

    def remove(self, worker: Worker) -> None:
        """``worker`` has ended."""
        del self._born[worker]
        self._slots[worker.slot].remove(worker)
        self.generations[worker.generation] -= 1
        if not self.generations[worker.generation]:
            del self.generations[worker.generation]
        for group in (self.timed, self.booting, self.serving):
            group.pop(worker, None)
        self._look(worker.slot)

    def touch(self, worker: Worker) -> None:
        """The state or a time of ``worker`` has changed."""
        for group, belongs in (
            (self.timed, worker.deadline < NEVER or worker.recycle_at < NEVER),
            (self.booting, worker.state in BOOTING),
            (self.serving, worker.state is State.SERVING),
        ):
            if belongs:
                group.setdefault(worker)
            else:
                group.pop(worker, None)
        self._look(worker.slot)

    def age(self, worker: Worker) -> tuple[int, int]:
        """Orders workers: by generation, then by the order in which they came."""
        return worker.generation, self._born[worker]

    def of(self, slot: int) -> list[Worker]:
        """The workers of ``slot``, the oldest first."""
        return self._slots.get(slot, [])

    def refresh(self, wanted: int, outdated: frozenset[int]) -> None:
        """The number of slots is ``wanted`` now, or other generations are outdated."""
        self._wanted, self._outdated = wanted, outdated
        self.empty, self.unkept, self.crowded = set(), set(), set()
        self.keepers, self.stale = {}, []
        for slot in {*self._slots, *range(wanted)}:
            self._look(slot)

    def _look(self, slot: int) -> None:
        self.looked_at += 1
        wanted, outdated = self._wanted, self._outdated
        workers = self.of(slot)
        present = [each for each in workers if each.state in PRESENT]
        serving = [each for each in present if each.state is State.SERVING and each.generation not in outdated]
        keeper = max(serving, key=self.age, default=None)
        if keeper is None:
            self.keepers.pop(slot, None)
        else:
            self.keepers[slot] = keeper
        is_slot = slot < wanted
        orderable = sum(each.state in _ORDERABLE for each in workers)
        _put(self.empty, slot, is_slot and not present)
        _put(self.unkept, slot, is_slot and keeper is None)
        _put(self.crowded, slot, orderable > (1 if is_slot else 0))
        self._put_stale(slot, is_slot and all(each.generation in outdated for each in present))
        if not workers and not is_slot:
            self._slots.pop(slot, None)

    def _put_stale(self, slot: int, belongs: bool) -> None:
        at = bisect_left(self.stale, slot)
        found = at < len(self.stale) and self.stale[at] == slot
        if belongs and not found:
            insort(self.stale, slot)
        elif found and not belongs:
            del self.stale[at]


def _put(group: set[int], slot: int, belongs: bool) -> None:
    if belongs:
        group.add(slot)
    else:
        group.discard(slot)
