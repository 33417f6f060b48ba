"""Standard input, output and error (descriptors 0, 1 and 2): open in any case, before anything else is.

A program that is started with one of them closed gets that number for the next thing that it opens, and whatever a
library then writes to standard error goes there. So the numbers are taken by /dev/null first of all.

Source: stdin(3), open(2) (the lowest unused number is taken).
"""

from __future__ import annotations

import os
import sys
from typing import Final

from forkserver.errors import ForkserverError

_STREAMS: Final = {0: "stdin", 1: "stdout", 2: "stderr"}  # in sys; None where the number was closed at the start


def open_missing() -> None:
    """Open /dev/null at those of 0, 1 and 2 that are closed, before anything else is opened.

    Raises OSError, and ForkserverError where there is no /dev/null.
    """
    for number in _STREAMS:
        if not _is_open(number):
            open_null(number)
            _set_stream(number)


def open_null(number: int) -> None:
    """Open /dev/null as ``number``, also in programs that are started from here.

    Raises OSError, and ForkserverError where there is no /dev/null.
    """
    try:
        opened = os.open(os.devnull, os.O_RDWR)
    except (FileNotFoundError, PermissionError) as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ForkserverError(
            f"cannot open {os.devnull}: {reason}; mount a /dev with the usual devices, as container engines do"
        ) from None
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _set_stream(number: int) -> None:
    """Have Python's stream for ``number``: it has none for one that was closed when it started."""
    name = _STREAMS[number]
    if getattr(sys, name) is None:
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))
