"""How long to wait before what has failed is tried again.

It promises that the wait grows with each failure in a row up to a cap, and that what has been well for a while is tried
at once. It refuses to look at a clock, and to know what is tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

FIRST_DELAY: Final = 0.5  # seconds before a second try; doubled each time, up to LAST_DELAY
LAST_DELAY: Final = 30.0
HEALTHY_SECONDS: Final = 5.0  # who has served so long was well, and what killed it is no loop


def delay(failures: int) -> float:
    """Seconds to wait after ``failures`` in a row."""
    return float(min(FIRST_DELAY * 2 ** min(failures - 1, 16), LAST_DELAY)) if failures else 0.0


@dataclass
class Health:
    """How one thing that is tried again and again has fared; ``retry_at`` is when it may be tried next."""

    failures: int = 0
    retry_at: float = 0.0
    _spared: bool = False  # one early death is replaced at once: it may have been kill -9

    def failed(self, now: float) -> None:
        """It did not come to life."""
        self.failures += 1
        self._spared = True
        self.retry_at = now + delay(self.failures)

    def died(self, lived: float, now: float) -> None:
        """It has lived for ``lived`` seconds and is no more."""
        if lived >= HEALTHY_SECONDS:
            self.recovered()
        if self._spared:
            self.failed(now)
        self._spared = True

    def recovered(self) -> None:
        """It is well: whatever comes next is tried at once."""
        self.failures, self.retry_at, self._spared = 0, 0.0, False


@dataclass
class Fortunes:
    """The health of each slot."""

    _slots: dict[int, Health] = field(default_factory=dict)
    _well_at: float = 0.0  # when one that was well, and is no more, had begun to serve

    def __iter__(self) -> Iterator[Health]:
        return iter(self._slots.values())

    def of(self, slot: int) -> Health:
        """How the workers of ``slot`` have fared."""
        return self._slots.get(slot) or Health()

    def failed(self, slot: int, now: float) -> None:
        """A worker of ``slot`` has not come to serve."""
        self._slots.setdefault(slot, Health()).failed(now)

    def died(self, slot: int, ready_at: float, leaving: bool, now: float) -> None:
        """A worker of ``slot`` that has served is no more; that is no fault where it was ``leaving``."""
        if now - ready_at >= HEALTHY_SECONDS:
            self._well_at = max(self._well_at, ready_at)
        if not leaving:
            self._slots.setdefault(slot, Health()).died(now - ready_at, now)

    def well_at(self, ready_at: Iterable[float], now: float) -> float:
        """When the last worker that is called well had begun to serve; ``ready_at`` are those that live."""
        well = (since for since in ready_at if now - since >= HEALTHY_SECONDS)
        return max(self._well_at, *well, 0.0)

    def clear(self) -> None:
        """Other code comes: what was before says nothing of it."""
        self._slots.clear()
