"""The order of the slowest request bodies, and of the answers that are taken most slowly.

Connections whose body or answer is on its way are kept in deadline queues, one for each power of two of their rate. So
each is looked at once in a while, and the slowest are at hand without a search. One that began too recently to be
measured is in the queue ``fresh``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from forkserver.server.connection.timeout_queue import TimeoutQueue

FAST_BYTES: Final = 16 * 1024  # a second; a body or an answer that moves so fast is never closed to make room
_LOOKS: Final = 8  # in a timeout
_LONGEST_LOOK_SECONDS: Final = 5.0

T = TypeVar("T")


class RateQueues(Generic[T]):
    """Connections whose body or answer is on its way, each in one queue, which says when to look at it next.

    ``timeout`` is how many seconds they have without progress, ``first_look`` after how many they have a rate.
    """

    def __init__(self, timeout: float, first_look: float) -> None:
        self.timeout = timeout
        seconds = min(_LONGEST_LOOK_SECONDS, timeout / _LOOKS)
        self.fresh: TimeoutQueue[T] = TimeoutQueue(min(first_look, seconds))
        self._bands: list[TimeoutQueue[T]] = [TimeoutQueue(seconds) for _ in range(band_of(FAST_BYTES) + 1)]
        self.queues = [self.fresh, *self._bands]

    def __len__(self) -> int:
        return sum(map(len, self.queues))

    def __iter__(self) -> Iterator[T]:
        """The slow ones, the slowest first, then the fresh ones, then those that are fast."""
        for queue in [*self.slow(), self.fresh, self.fast]:
            yield from queue

    def holds(self, queue: TimeoutQueue[T] | None) -> bool:
        """Whether ``queue`` is one of them."""
        return queue in self.queues

    def queue(self, rate: float) -> TimeoutQueue[T]:
        """The queue of those that move at ``rate``, in bytes a second."""
        return self._bands[band_of(rate)]

    def is_faster(self, one: TimeoutQueue[T], other: TimeoutQueue[T]) -> bool:
        """Whether those in ``one`` are faster than those in ``other``; both are of ``queue``."""
        return self._bands.index(one) > self._bands.index(other)

    def slow(self) -> list[TimeoutQueue[T]]:
        """The queues of those that may be closed to make room, the slowest first."""
        return self._bands[:-1]

    @property
    def fast(self) -> TimeoutQueue[T]:
        """The queue of those that moved fast when they were looked at last."""
        return self._bands[-1]

    def not_fast(self) -> int:
        """How many are fresh or slow."""
        return len(self) - len(self.fast)


def band_of(rate: float) -> int:
    """The number of the queue of those that move at ``rate``: its power of two; one for all that are fast."""
    return int(min(rate, FAST_BYTES)).bit_length()
