"""A binary file that reads a body from several pieces of memory.

The pieces are not joined: a read copies from the piece that holds the position, found by bisection of their starts.

Source: the stdlib's page on io, "Raw File I/O".
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from itertools import accumulate
from typing import Any


class MultiChunkReader(io.RawIOBase):
    """The bytes of ``parts`` in their order, to be read through ``io.BufferedReader``."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(map(len, parts))]
        self._at = 0
        self._part, self._part_at = memoryview(b""), 0  # that was read last, and where it starts

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        """Fill ``target``, a buffer of bytes, as far as there is something: a short read would be copied twice."""
        begin, size = self._at - self._part_at, len(target)
        if 0 <= begin <= len(self._part) - size:  # as nearly always; the steps below cost a fourth more
            target[:] = self._part[begin : begin + size]
            self._at += size
            return size
        return self._fill(memoryview(target))

    def _fill(self, room: memoryview) -> int:
        filled = 0
        while filled < len(room) and self._at < self._starts[-1]:
            number = bisect_right(self._starts, self._at) - 1
            self._part, self._part_at = memoryview(self._parts[number]), self._starts[number]
            piece = self._part[self._at - self._part_at :][: len(room) - filled]
            room[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._at += len(piece)
        return filled

    def seek(self, offset: int, origin: int = os.SEEK_SET, /) -> int:
        """Go to ``offset``. Raises ValueError for one before the start."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[origin]
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        self._at = at
        return at

    def close(self) -> None:
        """Free the memory, even where the application keeps the file."""
        self._parts = []
        self._starts = [0]
        self._part = memoryview(b"")
        super().close()
