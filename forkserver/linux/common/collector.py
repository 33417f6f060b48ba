"""Holding the garbage collector off while the frames of another thread are walked.

``frame.f_back`` makes an object for the caller's frame. CPython 3.11 may collect garbage at that moment, and a
finalizer may give the interpreter's lock away: the other thread goes on, its frame is another call's by then, and
memory is overwritten. ``sys._current_frames`` may wait for itself for the same reason. From 3.12 on the collector runs
between two steps of Python code only.

Source: https://github.com/python/cpython/issues/106883.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

_NEEDED: Final = sys.version_info < (3, 12)


class CollectorHeld:
    """A context in which no garbage is collected, where that would be a danger."""

    def __enter__(self) -> None:
        self._was_enabled = _NEEDED and gc.isenabled()
        if self._was_enabled:
            gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_enabled:
            gc.enable()
