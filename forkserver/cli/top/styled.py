"""Lines of a frame: pieces of text, each with what it means, which a terminal shows by colour."""

from __future__ import annotations

from enum import Enum

from forkserver.cli.top import words
from forkserver.linux.common.records import NamedTuple


class Style(Enum):
    """What a piece of text means."""

    PLAIN = "plain"
    TITLE = "title"
    FAINT = "faint"
    HEADING = "heading"
    SORTED = "sorted"
    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"
    CHOSEN = "chosen"
    QUESTION = "question"


class Piece(NamedTuple):
    """Text of one style."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Piece, ...]


def line(*pieces: str | Piece) -> Line:
    """A line of ``pieces``; text without a style is plain."""
    return tuple(Piece(each) if isinstance(each, str) else each for each in pieces)


def plain(pieces: Line) -> str:
    """The text of a line."""
    return "".join(piece.text for piece in pieces).rstrip()


def fitted(pieces: Line, columns: int) -> Line:
    """A line in ``columns`` at most."""
    kept, room = [], columns
    for piece in pieces:
        if words.width(piece.text) > room:
            kept.append(Piece(words.cut(piece.text, room), piece.style))
            break
        kept.append(piece)
        room -= words.width(piece.text)
    return tuple(kept)
