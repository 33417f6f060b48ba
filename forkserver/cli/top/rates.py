"""Figures between two readings: answers a second, percentiles, and how busy each worker was.

A master tells sums that only grow. What happened in an interval is the difference of two readings, with the master's
own clock; a service that was started anew begins anew.

Source of percentiles: https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile, which
assumes that times are spread evenly in a bucket.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from forkserver.cli.top.reading import Histogram, Reading, ShownWorker
from forkserver.linux.common.records import NamedTuple

MINUTE: Final = 60.0
SHARES: Final = (0.5, 0.95, 0.99)


class Sums(NamedTuple):
    """The sums of a reading at ``at``."""

    at: float
    answers: dict[str, int]
    application: Histogram
    waiting: Histogram
    request_bytes: int
    answer_bytes: int


class Rates(NamedTuple):
    """An interval of so many ``seconds``; figures are a second.

    ``application`` and ``waiting`` are percentiles by ``SHARES``, in seconds: infinite above the longest bound, None
    where there was no call.
    """

    seconds: float
    answers: dict[str, float]
    application: tuple[float | None, ...]
    waiting: tuple[float | None, ...]
    request_bytes: float
    answer_bytes: float

    @property
    def total(self) -> float:
        """Answers of every class."""
        return sum(self.answers.values())


class WorkerRates(NamedTuple):
    """What a worker did in an interval: requests a second, and the part of its threads' time that was in calls."""

    requests: float | None
    busy: float | None


class RecentReadings:
    """The last readings, as far as figures of the last interval and the last minute need them."""

    def __init__(self) -> None:
        self.now: Reading | None = None
        self._before: Reading | None = None
        self._sums: deque[Sums] = deque()

    def note(self, reading: Reading) -> None:
        """``reading`` is the newest; one of the same moment takes the place of the last."""
        if self.now is not None and reading.at < self.now.at:  # it was started anew
            self._sums.clear()
            self.now = None
        if self.now is None or reading.at > self.now.at:
            self._before, self.now = self.now, reading
            self._sums.append(_sums(reading))
        # One that is older than a minute is kept: the minute begins there.
        while len(self._sums) > 2 and self._sums[1].at <= reading.at - MINUTE:
            self._sums.popleft()

    @property
    def last(self) -> Rates | None:
        """Of the last interval; None before there is one."""
        return self._since(-2)

    @property
    def minute(self) -> Rates | None:
        """Of the last minute, or since this program looks."""
        return self._since(0)

    def _since(self, place: int) -> Rates | None:
        if self.now is None or len(self._sums) < 2:
            return None
        return _between(self._sums[place], self._sums[-1], self.now.bounds)

    def workers(self) -> list[tuple[ShownWorker, WorkerRates]]:
        """Every worker with what it did in the last interval."""
        if self.now is None:
            return []
        before = {worker.pid: worker for worker in self._before.workers} if self._before else {}
        seconds = self.now.at - self._before.at if self._before else 0.0
        return [
            (worker, _of_worker(before.get(worker.pid), worker, seconds, self.now.threads))
            for worker in self.now.workers
        ]


def _sums(reading: Reading) -> Sums:
    return Sums(
        reading.at,
        reading.answers,
        reading.application,
        reading.waiting,
        reading.request_bytes,
        reading.answer_bytes,
    )


def _between(before: Sums, now: Sums, bounds: Sequence[float]) -> Rates:
    seconds = now.at - before.at
    return Rates(
        seconds,
        {name: max(0, count - before.answers.get(name, 0)) / seconds for name, count in now.answers.items()},
        _percentiles(before.application, now.application, bounds),
        _percentiles(before.waiting, now.waiting, bounds),
        max(0, now.request_bytes - before.request_bytes) / seconds,
        max(0, now.answer_bytes - before.answer_bytes) / seconds,
    )


def _percentiles(before: Histogram, now: Histogram, bounds: Sequence[float]) -> tuple[float | None, ...]:
    if len(before.buckets) != len(now.buckets):  # an upgrade has come to a version with other bounds
        return (None,) * len(SHARES)
    buckets = [max(0, count - was) for was, count in zip(before.buckets, now.buckets, strict=True)]
    return tuple(percentile(share, buckets, bounds) for share in SHARES)


def percentile(share: float, buckets: Sequence[int], bounds: Sequence[float]) -> float | None:
    """The time that ``share`` of the counted ones do not exceed; infinite where that is above all ``bounds``."""
    rank, seen = share * sum(buckets), 0
    for count, (low, high) in zip(buckets, pairwise((0.0, *bounds, math.inf)), strict=True):
        if count and seen + count >= rank:
            return math.inf if high == math.inf else low + (high - low) * (rank - seen) / count
        seen += count
    return None


def _of_worker(before: ShownWorker | None, now: ShownWorker, seconds: float, threads: int) -> WorkerRates:
    if before is None or seconds <= 0:
        return WorkerRates(None, None)
    requests = max(0, now.requests - before.requests) / seconds
    return WorkerRates(requests, min(1.0, max(0.0, _busy_seconds(before, now, seconds) / (seconds * threads))))


def _busy_seconds(before: ShownWorker, now: ShownWorker, seconds: float) -> float:
    """Seconds that calls took in the interval: those that have ended in it, and the part of those in hand."""
    if before.application_seconds is None or now.application_seconds is None:  # an older master: as it is now
        return len(now.calls) * seconds
    ended = now.application_seconds - before.application_seconds
    websockets = sum(call.websocket for call in now.calls)  # not among those that have ended when they end
    return ended + _in_hand(now) - _in_hand(before) + websockets * seconds


def _in_hand(worker: ShownWorker) -> float:
    return sum(call.seconds for call in worker.calls if not call.websocket)
