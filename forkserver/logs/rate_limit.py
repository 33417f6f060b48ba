"""Which of many like events are logged: a few at once, then one in a while, and of each client one in a while.

A token bucket bounds the events of all clients together. When a client's last event was admitted is remembered for a
bounded number of clients. An event that is left out costs a look into a dict, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable

from forkserver.linux.common.safe_lock import SafeLock
from forkserver.linux.syscalls import monotonic


class RateLimit:
    """Admits ``burst`` events at once, one more every ``seconds``, and of each key one every ``pause`` seconds.

    ``keys`` bounds how many keys are remembered; the one admitted longest ago is forgotten first. ``clock`` gives
    seconds. Safe to use from several threads.
    """

    def __init__(
        self, burst: int, seconds: float, pause: float, keys: int = 256, clock: Callable[[], float] = monotonic
    ) -> None:
        self._burst = self._tokens = float(burst)
        self._seconds = seconds
        self._pause = pause
        self._most_keys = keys
        self._clock = clock
        self._lock = SafeLock()
        self._counted_at = clock()
        self._admitted_at: dict[str, float] = {}  # by key, the longest ago first
        self._left_out = 0  # since the last event that was admitted

    def admit(self, key: str) -> int | None:
        """None where the event of ``key`` is left out; else how many were left out since the last one that was not."""
        self._lock.taken  # noqa: B018
        try:
            now = self._clock()
            if now - self._admitted_at.get(key, -self._pause) < self._pause or not self._take_token(now):
                self._left_out += 1
                return None
            self._remember(key, now)
            left_out, self._left_out = self._left_out, 0
            return left_out
        finally:
            self._lock.release()

    def _take_token(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._counted_at) / self._seconds)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _remember(self, key: str, now: float) -> None:
        self._admitted_at.pop(key, None)
        if len(self._admitted_at) >= self._most_keys:
            del self._admitted_at[next(iter(self._admitted_at))]
        self._admitted_at[key] = now
