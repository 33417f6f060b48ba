"""Back-off and pace of restarts: when a process that failed or crashed is started again.

A worker that never became ready is tried again after a delay that grows with each failure of its slot, up to a cap; the
cap is a second while no worker serves, when a try takes nothing from any client. A worker that crashed after it was
ready is replaced at once: what kills it is mostly a request, and a delay would leave the other clients without a
worker. Only the number of such restarts per second is bounded (``RestartPace``), so that a worker that crashes by
itself right after it was ready is no fork bomb. No clock is read here: the time comes with each fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from forkserver.linux.common.records import Record, fresh

FIRST_DELAY: Final = 0.5  # seconds before a second try; doubled each time, up to LAST_DELAY
LAST_DELAY: Final = 30.0
LAST_FORK_DELAY: Final = 4.0  # where the kernel had no process: to ask costs little, and workers may be missing
URGENT_DELAY: Final = 1.0  # while no worker serves
HEALTHY_SECONDS: Final = 5.0  # a worker that has served so long was well: its death is no restart loop
RESTARTS_PER_SECOND: Final = 10.0  # of workers that crashed within HEALTHY_SECONDS, after a burst
RESTARTS_AT_ONCE: Final = 10  # the least burst; two for each worker where that is more


class RestartPace(Record):
    """A bound on how often something happens: ``per_second`` on average, ``burst`` times at once.

    The generic cell rate algorithm (ITU-T I.371): ``_booked`` is the time up to which the average is used up.
    """

    per_second: float
    burst: int
    _booked: float = 0.0

    def room(self, now: float) -> int:
        """How many times it may happen at ``now``."""
        used = max(0.0, self._booked - now) * self.per_second
        return max(0, int(self.burst - used + _ROUNDING))

    def take(self, now: float) -> None:
        """Count one more, whether there was room or not: what was taken beyond the bound leaves no debt."""
        self._booked = min(max(self._booked, now) + 1 / self.per_second, now + self.burst / self.per_second)

    @property
    def room_at(self) -> float:
        """When there is room for one; a time in the past where there is room."""
        return self._booked - (self.burst - 1) / self.per_second


_ROUNDING: Final = 1e-6  # of a time: what is due at ``room_at`` has room then


def delay(failures: int, most: float = LAST_DELAY) -> float:
    """Seconds to wait after ``failures`` in a row, ``most`` at most."""
    return float(min(FIRST_DELAY * 2 ** min(failures - 1, 16), most)) if failures else 0.0


class Backoff(Record):
    """Failures of one thing that is tried again; ``retry_at`` is the time of the next try."""

    failures: int = 0
    retry_at: float = 0.0
    _spared: bool = False  # one early death is replaced at once: it may have been kill -9
    crashes: int = 0  # in a row, each within HEALTHY_SECONDS after it was ready

    @property
    def troubled(self) -> bool:
        """Whether it has failed, or crashed more than once in a row: one crash may be a kill -9."""
        return bool(self.failures) or self.crashes > 1

    def became_ready(self) -> None:
        """It is ready: earlier failures do not count any more."""
        self.failures, self.retry_at = 0, 0.0

    def crashed(self, lived: float) -> None:
        """It has ended ``lived`` seconds after it was ready; it is started again at once, within the pace."""
        if lived >= HEALTHY_SECONDS:
            self.recovered()
        else:
            self.crashes += 1

    def failed(self, now: float, most: float = LAST_DELAY) -> None:
        """It did not become ready; it is tried again after ``most`` seconds at the latest."""
        self.failures += 1
        self._spared = True
        self.retry_at = now + delay(self.failures, most)

    def died(self, lived: float, now: float, most: float = LAST_DELAY) -> None:
        """It has ended after ``lived`` seconds; it is tried again after ``most`` seconds at the latest."""
        if lived >= HEALTHY_SECONDS:
            self.recovered()
        if self._spared:
            self.failed(now, most)
        self._spared = True

    def ended(self, lived: float, now: float) -> None:
        """What nothing waits for has ended after ``lived`` seconds: one that was well is started again at once."""
        if lived >= HEALTHY_SECONDS:
            self.recovered()
        else:
            self.failed(now)

    def hasten(self, at: float) -> None:
        """It is needed: it is tried again ``at`` that time at the latest."""
        self.retry_at = min(self.retry_at, at)

    def recovered(self) -> None:
        """It is well: after the next failure it is tried again at once."""
        self.failures, self.retry_at, self._spared, self.crashes = 0, 0.0, False, 0


class SlotBackoffs(Record):
    """The backoff of each slot, and the pace at which crashed workers are replaced."""

    _slots: dict[int, Backoff] = fresh(default_factory=dict)
    _well_at: float = 0.0  # when the last worker that was well, and has exited, had begun to serve
    restarts: RestartPace = fresh(default_factory=lambda: RestartPace(RESTARTS_PER_SECOND, RESTARTS_AT_ONCE))

    def __iter__(self) -> Iterator[Backoff]:
        return iter(self._slots.values())

    def of(self, slot: int) -> Backoff:
        """The backoff of ``slot``."""
        return self._slots.get(slot) or Backoff()

    def ordered(self, slot: int, slots: int, now: float) -> None:
        """A worker of ``slot``, one of so many ``slots``, is started."""
        self.restarts.burst = max(RESTARTS_AT_ONCE, 2 * slots)
        if self.of(slot).crashes:
            self.restarts.take(now)

    def failed(self, slot: int, now: float, most: float) -> None:
        """A worker of ``slot`` did not become ready; it is tried again after ``most`` seconds at the latest."""
        self._slots.setdefault(slot, Backoff()).failed(now, most)

    def died(self, slot: int, ready_at: float, leaving: bool, now: float) -> None:
        """A worker of ``slot`` that has served has exited, which is no crash where it was ``leaving``."""
        if now - ready_at >= HEALTHY_SECONDS:
            self._well_at = max(self._well_at, ready_at)
        if not leaving:
            self._slots.setdefault(slot, Backoff()).crashed(now - ready_at)

    def became_ready(self, slot: int, first: bool, now: float) -> None:
        """A worker of ``slot`` serves; the ``first`` after a time without any shows that the others need not wait."""
        if slot in self._slots:
            self._slots[slot].became_ready()
        if first:
            self.hasten(now)

    def hasten(self, at: float) -> None:
        """A worker of each slot is tried again ``at`` that time at the latest."""
        for backoff in self._slots.values():
            backoff.hasten(at)

    def well_at(self, ready_at: Iterable[float], now: float) -> float:
        """When the last worker that is called well had begun to serve; ``ready_at`` are the times of living workers."""
        well = (since for since in ready_at if now - since >= HEALTHY_SECONDS)
        return max(self._well_at, *well, 0.0)

    def clear(self) -> None:
        """Forget all: failures of the old code say nothing of the new."""
        self._slots.clear()
