"""Things that wait for a deadline, in the order of their deadlines.

All of one queue wait for the same time, so that a new one goes to the end, and taking out what is due costs as much as
is due. Times are passed in, in seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class TimeoutQueue(Generic[T]):
    """Things that are due the same time after they were put in, so that they stay in order of their deadlines."""

    __slots__ = ("_due", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: OrderedDict[T, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[T]:
        return iter(self._due)

    def __contains__(self, thing: object) -> bool:
        return thing in self._due

    def put(self, thing: T, now: float) -> None:
        """Make ``thing`` due ``seconds`` after ``now``, whether or not it was waiting already."""
        self._due[thing] = now + self.seconds
        self._due.move_to_end(thing)

    def put_until(self, thing: T, deadline: float) -> None:
        """Make ``thing`` due at ``deadline``, between those that are due before and after it."""
        self._due.pop(thing, None)
        later: list[tuple[T, float]] = []
        while self._due and next(reversed(self._due.values())) > deadline:
            later.append(self._due.popitem())
        self._due[thing] = deadline
        self._due.update(reversed(later))

    def deadline(self, thing: T) -> float:
        """When ``thing``, which is waiting, is due."""
        return self._due[thing]

    def discard(self, thing: T) -> None:
        """Forget ``thing``, waiting or not."""
        self._due.pop(thing, None)

    def first(self) -> T | None:
        """The thing that is due first."""
        return next(iter(self._due), None)

    def next_due(self) -> float | None:
        """When the first thing is due, or None."""
        return next(iter(self._due.values()), None)

    def due(self, now: float) -> list[T]:
        """Take out what is due at ``now``."""
        found: list[T] = []
        while self._due:
            thing, deadline = next(iter(self._due.items()))
            if deadline > now:
                break
            del self._due[thing]
            found.append(thing)
        return found


def earliest(queues: Iterable[TimeoutQueue[T]]) -> float | None:
    """When the first thing of all ``queues`` is due, or None."""
    times = [due for queue in queues if (due := queue.next_due()) is not None]
    return min(times) if times else None
