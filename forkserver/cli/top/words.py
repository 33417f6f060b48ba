"""Figures and texts in a few columns of a terminal.

Source of widths: Unicode Standard Annex 11, East Asian Width; combining characters take no column.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Final

_MARKS: Final = ("Mn", "Me", "Cf")
_BYTES: Final = ("B", "K", "M", "G", "T")


def width(text: str) -> int:
    """Columns that ``text`` takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in _MARKS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def cut(text: str, columns: int) -> str:
    """``text`` in ``columns`` at most; an ellipsis of ASCII says where something is left out."""
    if width(text) <= columns:
        return text
    if columns < 4:
        return text[:columns] if text.isascii() else "." * max(0, columns)
    shown, room = [], columns - 3
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        shown.append(character)
    return "".join(shown) + "..."


def to_left(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def to_right(text: str, columns: int) -> str:
    return " " * (columns - width(text)) + text


def rate(value: float | None) -> str:
    """A figure a second in five characters: ``0``, ``0.25``, ``12.3``, ``1234``, ``12.3k``."""
    if value is None:
        return "-"
    if value >= 9999.5:
        return f"{value / 1000:.3g}k" if value < 999_500 else f"{value / 1e6:.3g}M"
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.95:
        return f"{value:.1f}"
    return f"{value:.2g}" if value >= 0.01 or not value else "<0.01"


def elapsed(seconds: float | None) -> str:
    """How long something took, in five characters: ``0.4ms``, ``12ms``, ``1.2s``, ``>100s``."""
    if seconds is None:
        return "-"
    if seconds == math.inf:
        return ">100s"
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f}ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 99.95 else f"{seconds:.0f}s"


def size(count: float) -> str:
    """Bytes in five characters: ``512B``, ``45M``, ``1.2G``; units are powers of 1024."""
    rank = 0
    while count >= 999.5 and rank < len(_BYTES) - 1:
        count, rank = count / 1024, rank + 1
    return f"{count:.1f}{_BYTES[rank]}" if rank and count < 9.95 else f"{count:.0f}{_BYTES[rank]}"


def share(part: float | None) -> str:
    """A part of one in per cent."""
    return "-" if part is None else f"{part * 100:.0f}%"
