"""Misspelt names: the known name that was probably meant.

``nearest`` suits a message that offers a guess. ``misspelt`` is stricter, for input that is refused only if it is a
misspelling: it counts letters (optimal string alignment).
"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: list[str]) -> str | None:
    """The one of ``known`` that ``word`` was probably meant to be."""
    import difflib  # late: a start without a mistake does not wait for it

    return next(iter(difflib.get_close_matches(word, known, 1, 0.7)), None)


def alike(word: str, known: list[str]) -> list[str]:
    """Those of ``known`` that ``word`` may mean: the nearest one, else those of which it is a part (slow: slow_log)."""
    near = nearest(word, known)
    return [near] if near else [name for name in known if word in name.split("_")]


def misspelt(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``word`` is a misspelling of: with one wrong letter in four at most, and two in all.

    A name that is merely similar is none: --log-config is not --config.
    """
    near = min(known, key=lambda name: _distance(word, name), default="")
    return near if _distance(word, near) <= min(2, len(word.strip("-")) // 4) else None


def _distance(one: str, other: str) -> int:
    """How many letters were left out, added, changed or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, above, row = row, before, [i]
        for j, its in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != its))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
