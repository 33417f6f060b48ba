"""The options of ``forkserverctl profile``, and the file that it writes."""

from __future__ import annotations

import argparse
import os
from typing import Final

SVG, SPEEDSCOPE, COLLAPSED = FORMATS = ("svg", "speedscope", "collapsed")
TEXT: Final = "where the time of the threads that serve goes, in one worker or in all"
FIELDS: Final = ("seconds", "rate", "paths")  # of the command; the worker, where one is named, is another
LONGEST_SECONDS: Final = 3600.0
MOST_RATE: Final = 1000
_BY_ENDING: Final = {".svg": SVG, ".json": SPEEDSCOPE}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add them to ``parser``; the worker is the caller's to add."""
    parser.add_argument("--seconds", metavar="S", type=_seconds, default=10.0, help="how long (10)")
    parser.add_argument("--rate", metavar="HZ", type=_rate, default=100, help="samples in a second (100)")
    parser.add_argument("--by-path", dest="paths", action="store_true", help="by method and path of the requests")
    forms = "collapsed stacks for flamegraph.pl, speedscope's JSON, or a flame graph"
    parser.add_argument("--format", choices=FORMATS, help=f"{forms}; else by the output's ending, or a summary")
    parser.add_argument("--output", metavar="FILE", help="write it there; .svg and .json say what it is to be")


def form_of(named: str | None, output: str | None) -> str | None:
    """The form to write; None for the summary in the terminal."""
    if named is not None or output is None:
        return named
    return _BY_ENDING.get(os.path.splitext(output)[1].lower(), COLLAPSED)


class OutputError(Exception):
    """The file cannot be written; the text says why, and the way out."""


def open_output(path: str) -> bool:
    """Find out, before anything is sampled, that ``path`` can be written; whether it is new. Raises OutputError."""
    new = not os.path.lexists(path)
    _write(path, "a", "")
    return new


def write_output(path: str, text: str) -> None:
    """Have the file at ``path`` hold ``text``. Raises OutputError."""
    _write(path, "w", text)


def _write(path: str, mode: str, text: str) -> None:
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}; name another file with --output FILE") from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of seconds, up to {LONGEST_SECONDS:g}")
    return value


def _rate(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_RATE):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of samples in a second, 1 to {MOST_RATE}")
    return int(text)
