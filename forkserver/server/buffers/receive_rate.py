"""How fast a request body comes, and when it is too slow.

``ReceiveRate`` counts the bytes of one body on the wire, framing and TLS records included. A body is refused where it
makes no progress for ``body_timeout``, or where it is slower than ``body_min_rate`` on average; the average leaves the
first ``body_timeout`` seconds out, so that a connection may stall for a moment (as in Apache's mod_reqtimeout).

Times are CLOCK_MONOTONIC in seconds; the caller has the clock.
"""

from __future__ import annotations

from typing import Final

from forkserver.linux.common.counted import count_of

PROGRESS_BYTES: Final = 1024  # a drip below this is no progress
STALLED_SECONDS: Final = 2.0  # without progress, after which a body that came fast has stalled
_STALLED_BYTES: Final = 16 * 1024  # that would have come meanwhile; what comes slowly comes in steps of PROGRESS_BYTES
_SHORTEST_SPAN: Final = 0.001  # seconds


class ReceiveRate:
    """What has come of one body, which began at ``now``."""

    __slots__ = ("_before", "_counted", "_last", "began", "late", "moved_at", "read", "waiting")

    def __init__(self, now: float, late: float = 0.0) -> None:
        self.began = self.moved_at = now
        self.late = late  # seconds that the worker has been late in all its life, as of the beginning
        self.read = 0  # bytes
        self.waiting = 0  # bytes that were seen in the kernel's queue, and not read yet
        self._counted = 0  # bytes that have come until ``moved_at``, the last time there was progress
        self._last = self._before = (now, 0)  # when it was looked at, and what had come until then

    @property
    def received(self) -> int:
        """Bytes that have come."""
        return self.read + self.waiting

    def add(self, count: int, now: float) -> None:
        """Note that ``count`` bytes were read."""
        self.read += count
        if self.waiting:
            self.waiting = max(0, self.waiting - count)
        self._move(now)

    def see(self, waiting: int, last_at: float) -> None:
        """Note that ``waiting`` bytes stand in the kernel's queue, the last of which has come at ``last_at``."""
        self.waiting = waiting
        self._move(last_at)

    def excuse(self, now: float) -> None:
        """It is the worker that has not gone on: the time without progress counts from ``now``."""
        self.moved_at = now

    def _move(self, now: float) -> None:
        if self.read + self.waiting - self._counted >= PROGRESS_BYTES:
            self._counted, self.moved_at = self.read + self.waiting, now

    def rate(self, now: float) -> float:
        """Bytes a second of late: since the look before the last one; 0 where it came fast, and has stalled."""
        since, count = self._before
        rate, quiet = (self.received - count) / max(now - since, _SHORTEST_SPAN), now - self.moved_at
        return 0.0 if quiet >= STALLED_SECONDS and quiet * rate >= _STALLED_BYTES else rate

    def look(self, now: float) -> float:
        """As ``rate``; the next rate counts from the last look on."""
        rate = self.rate(now)
        self._before, self._last = self._last, (now, self.received)
        return rate

    def verdict(self, now: float, late: float, timeout: float, min_rate: int) -> str | None:
        """Why the body is refused; None where it may go on.

        ``late`` is for how many seconds the worker has been late in all: what has come meanwhile was not read, and
        where the kernel's queue is full, the client was held back.
        """
        if now - self.moved_at >= timeout:
            return f"the body has made no progress for {now - self.moved_at:.0f} s; body_timeout is {timeout:g} s"
        seconds = now - self.began - (late - self.late)
        if self.received >= min_rate * (seconds - timeout):
            return None
        return (
            f"the body is slower than body_min_rate, {count_of(min_rate, 'byte')} a second: "
            f"{count_of(self.received, 'byte')} came in {seconds:.0f} s"
        )
