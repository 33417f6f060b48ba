"""The order of the slowest request bodies.

Connections whose body is on its way are kept in deadline queues, one for each power of two of their rate. So each is
looked at once in a while, and the slowest are at hand without a search. A body that began too recently to be measured
is in the queue ``fresh``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from forkserver.server.connection.timeout_queue import TimeoutQueue

FAST_BYTES: Final = 16 * 1024  # a second; a body that comes so fast is never closed to make room
_FIRST_LOOK_SECONDS: Final = 1.0
_LOOKS: Final = 8  # in a body_timeout
_LONGEST_LOOK_SECONDS: Final = 5.0

T = TypeVar("T")


class BodyRates(Generic[T]):
    """Connections whose body is on its way, each in one queue, which says when to look at it next."""

    def __init__(self, timeout: float) -> None:
        seconds = min(_LONGEST_LOOK_SECONDS, timeout / _LOOKS)
        self.fresh: TimeoutQueue[T] = TimeoutQueue(min(_FIRST_LOOK_SECONDS, seconds))
        self._bands: list[TimeoutQueue[T]] = [TimeoutQueue(seconds) for _ in range(band_of(FAST_BYTES) + 1)]

    def __len__(self) -> int:
        return sum(map(len, self.queues))

    @property
    def queues(self) -> list[TimeoutQueue[T]]:
        """All of them."""
        return [self.fresh, *self._bands]

    def queue(self, rate: float) -> TimeoutQueue[T]:
        """The queue of bodies that come at ``rate``, in bytes a second."""
        return self._bands[band_of(rate)]

    def is_faster(self, one: TimeoutQueue[T], other: TimeoutQueue[T]) -> bool:
        """Whether bodies in ``one`` are faster than those in ``other``; both are of ``queue``."""
        return self._bands.index(one) > self._bands.index(other)

    def slow(self) -> Iterator[TimeoutQueue[T]]:
        """The queues of those that may be closed to make room, the slowest first."""
        return iter(self._bands[:-1])


def band_of(rate: float) -> int:
    """The number of the queue of those that come at ``rate``: its power of two; one for all that are fast."""
    return int(min(rate, FAST_BYTES)).bit_length()
