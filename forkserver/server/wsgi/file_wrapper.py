"""``wsgi.file_wrapper``: a file as an iterable, whose bytes the kernel may send by itself.

``span`` says where a regular file's bytes lie, for sendfile(2). A file whose ``read`` gives other bytes than its
descriptor holds (gzip, a wrapper of the application's) has none: it is read block by block.

Source: PEP 3333 "Optional Platform-Specific File Handling".
"""

from __future__ import annotations

from io import BufferedRandom, BufferedReader, FileIO
from mmap import PAGESIZE
from os import fstat, stat_result
from stat import S_ISREG
from typing import IO
from wsgiref import util


class FileWrapper(util.FileWrapper):
    """The stdlib's, with ``span``."""

    def span(self) -> tuple[IO[bytes], int, int] | None:
        """``(file, offset, bytes to its end)`` of a regular file, None for anything else.

        The file is the io object that ``read`` reads, whatever ``fileno`` of a wrapper around it says.
        """
        file = _plain(self.filelike)
        if file is None:
            return None
        try:
            file.flush()  # what was written to it and is in its buffer still is to be sent, too
            stat = fstat(file.fileno())
            offset = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        if not S_ISREG(stat.st_mode) or _may_have_any_size(stat):
            return None
        return file, offset, max(0, stat.st_size - offset)


def _may_have_any_size(stat: stat_result) -> bool:
    """Whether the size may be a lie, as 0 is in /proc and a page without a block in /sys: it is read to its end."""
    return not stat.st_size or (stat.st_size == PAGESIZE and not stat.st_blocks)


def _plain(file: object) -> IO[bytes] | None:
    """The file that ``file`` reads, where that gives what its descriptor holds: a gzip file gives other bytes."""
    read = getattr(file, "read", None)
    read = getattr(read, "__wrapped__", read)  # tempfile's named files lend the method of the file they hold
    owner = getattr(read, "__self__", None)
    plain = type(owner) in (FileIO, BufferedReader, BufferedRandom) and type(getattr(owner, "raw", owner)) is FileIO
    return owner if plain else None
