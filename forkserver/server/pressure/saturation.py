"""Detection of a worker whose threads are all taken for long while requests wait, and the message about it.

Streams, long polls and WebSockets hold a thread each. When they take all of them, everything else waits, and nothing
fails that would tell the operator. Ordinary load is something else: there threads change from call to call while
requests wait. So it is said where requests have waited, and all threads have been in the same calls, for
``BUSY_SECONDS``: once for these calls, and not again within ``QUIET_SECONDS``. Times are CLOCK_MONOTONIC in
seconds; the clock is the caller's.
"""

from __future__ import annotations

from typing import Final

from forkserver.ipc.busy_call import Busy
from forkserver.ipc.scoreboard import Row

BUSY_SECONDS: Final = 5.0
QUIET_SECONDS: Final = 600.0
_NANO: Final = 1e-9


class Saturation:
    """Looks at the calls of the worker whose scoreboard row is ``row``.

    ``queue_seconds`` is how long a request can wait: it is turned down then, and cannot wait for BUSY_SECONDS.
    """

    def __init__(self, row: Row, queue_seconds: float) -> None:
        self._row = row
        self._queue_limit = min(BUSY_SECONDS, queue_seconds)
        self._looked_at = float("-inf")
        self._told_of = float("-inf")  # when the youngest of the calls began that were told of
        self._quiet_until = float("-inf")

    def due(self, since: float) -> float:
        """When to look next, where requests have waited since ``since``."""
        return max(since + self._queue_limit, self._looked_at + BUSY_SECONDS)

    def look(self, now: float, waiting: str, streams: int, way_out: str = "") -> str | None:
        """What to tell the operator, or None; to be called when it is ``due``.

        ``waiting`` says in words what waits, if anything; ``streams`` is how many calls have begun their answers;
        ``way_out`` names one beside more threads or workers.
        """
        self._looked_at = now
        calls = taken_for_long(self._row, now) if waiting else None
        if calls is None:
            return None
        youngest = max(call.since for call in calls) * _NANO
        if youngest == self._told_of or now < self._quiet_until:
            return None
        self._told_of, self._quiet_until = youngest, now + QUIET_SECONDS
        oldest = min(calls, key=lambda call: call.since)
        count = len(calls)
        whose = "the only thread of this worker has" if count == 1 else f"all {count} threads of this worker have"
        kinds = "1 stream" if streams == 1 else f"{streams} streams"
        longest = f"the longest {oldest.line} for {now - oldest.since * _NANO:.0f} s"
        return (
            f"{whose} been busy for {now - youngest:.0f} s ({kinds}, {longest}); "
            f"{waiting}; raise --threads or --workers{way_out}; see docs/streams.md"
        )


def taken_for_long(row: Row, now: float) -> list[Busy] | None:
    """The calls that have taken all threads of ``row`` for BUSY_SECONDS; None where a thread was free meanwhile."""
    calls = []
    for thread in range(row.threads):
        call = row.busy(thread)
        if call is None or now - call.since * _NANO < BUSY_SECONDS:
            return None
        calls.append(call)
    return calls
