"""Numbers with their noun, as log and status show them."""

from __future__ import annotations


def count_of(number: int, noun: str, nouns: str = "") -> str:
    """Such as ``1 worker``, ``2 workers``; ``nouns`` is a plural that is not made by an s."""
    return f"1 {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"


def grouped_count_of(number: int, noun: str) -> str:
    """The same with a comma between thousands, for a person at a terminal."""
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"


def of_count(part: int, whole: int, noun: str, verb: str) -> str:
    """Such as ``1 of 1 worker serves`` and ``0 of 2 workers serve``; the verb's form is that of several."""
    return f"{part} of {count_of(whole, noun)} {verb}{'s' if whole == 1 else ''}"


def are_missing(number: int, noun: str) -> str:
    """Such as ``1 line is missing``, ``2 lines are missing``."""
    return f"{grouped_count_of(number, noun)} {'is' if number == 1 else 'are'} missing"
