"""Log lines of workers that crash: each in full while they are few, counted while they are many.

A crash is an error line of its own, with the request that was being served. Where workers crash faster than a person
reads, ``LINES_AT_ONCE`` lines are written and one more every ``SECONDS_PER_LINE``; what is not written is counted by
its cause and by the request that was being served, and told as one line every ``SUMMARY_SECONDS``. At level debug each
is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from forkserver.linux.common.counted import count_of
from forkserver.master.model.backoff import RestartPace
from forkserver.master.model.lifecycle import NEVER

LINES_AT_ONCE: Final = 10
SECONDS_PER_LINE: Final = 10.0
SUMMARY_SECONDS: Final = 10.0
_NAMED: Final = 3  # causes, and requests, in a summary
_COUNTED: Final = 64  # distinct ones that are counted; a client chooses what a request is called


class CrashReports:
    """Decides which crashes are told in full; ``next_look`` is when ``summary`` has something to say."""

    def __init__(self) -> None:
        self.next_look = NEVER
        self._pace = RestartPace(1 / SECONDS_PER_LINE, LINES_AT_ONCE)
        self._count = 0
        self._since = 0.0
        self._causes: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()

    def many(self, now: float) -> bool:
        """Whether workers crash faster than their lines are written."""
        return not self._pace.room(now)

    def in_full(self, cause: str, requests: Iterable[str], now: float) -> bool:
        """Whether to tell a crash in full; else it is counted by its ``cause`` and the ``requests`` it has broken."""
        if not self.many(now):
            self._pace.take(now)
            return True
        if not self._count:
            self._since, self.next_look = now, now + SUMMARY_SECONDS
        self._count += 1
        _add(self._causes, cause)
        for request in requests:
            _add(self._requests, request)
        return False

    def summary(self, now: float) -> str:
        """What was counted since the last summary, in words; empty for nothing. For ``next_look`` and ends."""
        if not self._count:
            return ""
        workers, seconds = count_of(self._count, "more worker"), max(now - self._since, 0.1)
        parts = [f"{workers} crashed within {seconds:.1f} s: {_most(self._causes)}"]
        if self._requests:
            parts.append(f"they were serving {_most(self._requests)}")
        self._count, self.next_look = 0, NEVER
        self._causes.clear()
        self._requests.clear()
        return "; ".join(parts)


def _add(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < _COUNTED else "others"] += 1


def _most(counts: Counter[str]) -> str:
    """The commonest of ``counts`` with their numbers, and how many there are beside them."""
    shown = [f"{name} ({number})" for name, number in counts.most_common(_NAMED)]
    rest = counts.total() - sum(number for _, number in counts.most_common(_NAMED))
    return ", ".join([*shown, *([f"others ({rest})"] if rest else [])])
