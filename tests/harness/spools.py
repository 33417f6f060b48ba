"""Spools whose disk becomes full."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

from forkserver.server.buffers.send_buffer import SEND_MEMORY
from forkserver.server.buffers.spool import Spool


class FullDisk(Spool):
    """A spool whose files take nothing: every write fails as on a full disk (full(4))."""

    def __init__(self) -> None:
        super().__init__("", 20 * SEND_MEMORY)

    def open(self) -> io.FileIO:
        return io.FileIO("/dev/full", "r+")


class FillingDisk(Spool):
    """A spool whose files take ``room`` bytes, at most ``step`` in one write, and then no more."""

    def __init__(self, folder: Path, room: int, step: int = SEND_MEMORY) -> None:
        super().__init__(str(folder), 20 * SEND_MEMORY)
        self.room = room
        self.step = step

    def open(self) -> io.FileIO:
        room, step = self.room, self.step

        class Raw(io.FileIO):
            def write(self, data: Any, /) -> int:
                left = room - self.tell()
                if not left:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return super().write(data[: min(left, step)])

        return Raw(Path(self.folder) / "file", "w+b")
