"""Collapsed stacks: a line for each, its functions with semicolons between them, and how long it was seen.

Source: https://github.com/brendangregg/FlameGraph, stackcollapse; the figures are microseconds (``--countname us``).
"""

from __future__ import annotations

from forkserver.cli.profile.profile import Function, StackTimes


def collapsed(times: StackTimes) -> str:
    """The text, its lines in alphabetical order."""
    lines = sorted(
        f"{';'.join(map(_name, stack))} {max(1, round(weight / 1000))}" for stack, weight in times.weights.items()
    )
    return "".join(f"{line}\n" for line in lines)


def _name(function: Function) -> str:
    return function.label.replace(";", ":")
