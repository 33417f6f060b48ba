"""Sums of what workers count, over those that live and those that have ended, so that no sum falls.

What a worker has written is passed on as it is, bounded; a word that was made smaller changes no sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from forkserver.ipc import figures, scoreboard
from forkserver.ipc.scoreboard import MOST, Row

_CLASSES: Final = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")  # as figures.ANSWERS has them
_NAMED: Final = {
    "accepted": scoreboard.ACCEPTED,
    "handed_on": figures.HANDED_ON,
    "request_bytes": figures.REQUEST_BYTES,
    "answer_bytes": figures.ANSWER_BYTES,
}
_HISTOGRAMS: Final = {"waiting_seconds": figures.WAITED, "application_seconds": figures.LASTED}
_BOUNDS: Final = [bound / 1e9 for bound in figures.BOUNDS]
_COUNTED: Final = (
    scoreboard.REQUESTS, scoreboard.LOST_LINES, scoreboard.ACCEPTED, *range(figures.FIRST, figures.END),
)  # fmt: skip


class FigureTotals:
    """Adds up the ``rows`` of living workers and what ended ones have left; ``past`` is that, by word of a row."""

    def __init__(self, rows: Callable[[], Iterable[Row]], past: Mapping[int, int]) -> None:
        self._rows = rows
        self._of_ended = {word: past.get(word, 0) for word in _COUNTED}
        self._shown: dict[int, int] = {}

    def ended(self, row: Row) -> None:
        """The process that has written into ``row`` has ended."""
        for word in _COUNTED:
            self.add(word, row.figure(word))

    def add(self, word: int, count: int) -> None:
        """Count more in ``word`` than a worker has."""
        self._of_ended[word] += count

    def of_ended(self) -> dict[int, int]:
        """What the next program goes on from, by word of a row."""
        return dict(self._of_ended)

    def __getitem__(self, word: int) -> int:
        """The sum in ``word``, never less than at the last look."""
        total: int = min(MOST, self._of_ended[word] + sum(row.figure(word) for row in self._rows()))
        self._shown[word] = total = max(total, self._shown.get(word, 0))
        return total

    def shown(self) -> dict[str, Any]:
        """All that is not shown elsewhere, as plain values. Of histograms the buckets are counts between bounds."""
        answers = {name: self[figures.ANSWERS + number] for number, name in enumerate(_CLASSES)}
        named = {name: self[word] for name, word in _NAMED.items()}
        histograms = {name: self._histogram(word) for name, word in _HISTOGRAMS.items()}
        return {"answers": answers, **named, "bounds": _BOUNDS, **histograms}

    def _histogram(self, word: int) -> dict[str, Any]:
        buckets = [self[word + 1 + bucket] for bucket in range(figures.BUCKETS)]
        return {"sum": self[word] / 1e9, "count": sum(buckets), "buckets": buckets}
