"""Numbers with their noun, as log and status show them."""

from __future__ import annotations


def count_of(number: int, noun: str, nouns: str = "") -> str:
    """Such as ``1 worker``, ``2 workers``; ``nouns`` is a plural that is not made by an s."""
    return f"1 {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"
