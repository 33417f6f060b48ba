"""Text from elsewhere, made safe for a line of a log and for a terminal.

``str.isprintable`` draws the line: it is false for control characters (C0, C1), for format characters, which reorder
text or have no width (U+202E, U+200B), for line and paragraph separators, for surrogates, which stand for bytes that
are not UTF-8, and for what this Python's Unicode does not know yet.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with each character that is not printable as the escape sequence that Python has for it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
