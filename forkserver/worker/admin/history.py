"""What the service did in the last minutes, for a page that is opened now: samples of its figures, and ends of workers.

Samples are taken when a client asks, a page or Prometheus, at most one a second: without clients nothing is done, and
the curves of the page begin with its first look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from forkserver.linux.syscalls import wall_time

SAMPLE_SECONDS: Final = 1.0
KEPT_SECONDS: Final = 300.0
MOST_ENDS: Final = 50


class History:
    """``clock`` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = wall_time) -> None:
        self._clock = clock
        self._samples: deque[dict[str, Any]] = deque()
        self._ends: deque[dict[str, Any]] = deque(maxlen=MOST_ENDS)
        self._counted: dict[str, int] | None = None

    def note(self, status: dict[str, Any]) -> None:
        """Remember what ``status`` says; times are the ``seconds`` of the service."""
        at = status["seconds"]
        if self._samples and at < self._samples[-1]["at"]:  # it was started anew
            self._samples.clear()
        if self._samples and at < self._samples[-1]["at"] + SAMPLE_SECONDS:
            return
        figures = status["figures"]
        buckets = figures["application_seconds"]["buckets"]
        memory = sum(worker["memory"] or 0 for worker in status["workers"])
        self._samples.append({"at": at, "answers": figures["answers"], "buckets": buckets, "memory": memory})
        while self._samples[0]["at"] < at - KEPT_SECONDS:
            self._samples.popleft()
        self._note_ends(status["ends"])

    def _note_ends(self, ends: dict[str, int]) -> None:
        before, self._counted = self._counted, dict(ends)
        if before is None:
            return
        for reason, count in ends.items():
            if count > before.get(reason, 0):
                self._ends.append({"time": self._clock(), "reason": reason, "total": count})

    def shown(self) -> dict[str, Any]:
        """All of it as plain values: ``samples``, the oldest first, and the last ``ends`` of workers that were seen."""
        return {"samples": list(self._samples), "ends": list(self._ends)}
