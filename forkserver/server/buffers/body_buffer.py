"""A request body while it arrives: in memory first, then in a file of the spool.

It has the memory that it was lent, else ``BODY_MEMORY``. A full disk is an OSError of the write that found it full, for
the caller to answer. Files are unbuffered, so that no later write or close can find it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Final

from forkserver.config.values.numbers import KIB
from forkserver.server.buffers.multi_chunk_reader import MultiChunkReader
from forkserver.server.buffers.spool import Spool

BODY_MEMORY: Final = 64 * KIB  # of one request body
_PART_BYTES: Final = 64 * KIB  # what comes in less is joined up to this


class BodyBuffer:
    """A request body while it arrives: ``add`` its bytes, then ``open`` it for reading; ``close`` in any case.

    With ``length``, the bytes it is going to have, it may be lent memory for all of them.
    """

    __slots__ = ("_booked", "_file", "_parts", "_source", "_spool", "_stream", "lent", "size")

    def __init__(self, spool: Spool, length: int = 0) -> None:
        self._spool = spool
        self._parts: list[bytes] = []
        self._file: io.FileIO | None = None
        self._source: io.RawIOBase | io.BytesIO | None = None  # what ``_stream`` reads: it may be detached from that
        self._stream: IO[bytes] | None = None
        self._booked = 0
        self.lent = length if length > BODY_MEMORY and spool.lend(length) else 0
        self.size = 0

    def shortage(self, size: int) -> str | None:
        """Why ``size`` bytes cannot be kept, None where they can."""
        spool = self._spool
        if size <= BODY_MEMORY or (why := spool.shortage(size)) is None:
            return None
        return why if spool.relief is None or not spool.relief(size) else spool.shortage(size)

    def add(self, data: bytes) -> None:
        """Keep ``data``. Raises OSError where the disk or the spool's bound does not allow it."""
        size = self.size + len(data)
        if self._file is None and size > (self.lent or BODY_MEMORY):
            self._spool.take(self.size)
            self._booked = self.size
            self._file = self._spool.open()
            for part in self._parts:
                _write(self._file, part)
            self._parts = []
        if self._file is None:
            self._add_to_memory(data)
        else:
            self._spool.take(len(data))
            self._booked += len(data)
            _write(self._file, data)
        self.size = size

    def _add_to_memory(self, data: bytes) -> None:
        parts = self._parts
        if parts and len(parts[-1]) + len(data) <= _PART_BYTES:  # else a drip costs an object for each of its bytes
            parts[-1] += data
        elif data:
            parts.append(data)

    def in_one_part(self) -> bytes | None:
        """The body so far, where that is at hand without reading or joining it."""
        if self._file is not None or len(self._parts) > 1:
            return None
        return self._parts[0] if self._parts else b""

    def open(self) -> IO[bytes]:
        """The whole body from its start, as ``wsgi.input``; the same stream each time."""
        if self._stream is None:
            self._stream = self._read_from_start()
        return self._stream

    def _read_from_start(self) -> IO[bytes]:
        part = self.in_one_part()
        if part is not None:
            self._source = stream = io.BytesIO(part)
            return stream
        self._source = source = self._file or MultiChunkReader(self._parts)
        source.seek(0)
        return io.BufferedReader(source)

    def is_file(self, file: IO[bytes]) -> bool:
        """Whether ``file`` is the stream of this body, or what that reads, and the body is in the spool."""
        return self._file is not None and (file is self._stream or file is self._file)

    def pass_on(self) -> Callable[[], None]:
        """Leave it to the caller to give the disk space back, by what is returned: the body is sent from its file."""
        booked, self._booked = self._booked, 0
        return partial(self._spool.give, booked)

    def close(self) -> None:
        """Give memory and disk back."""
        self._spool.give(self._booked)
        self._booked = 0
        source, self._source = self._source, None
        if self.lent:
            self._spool.restore(self.lent)
            self.lent = 0
            if source is not None:
                close_file(source)  # an application that keeps it is not to keep what others may have now
        if self._file is not None:
            file, self._file = self._file, None
            close_file(file)
        self._parts = []
        self._stream = None  # last: a buffer that is dropped closes what it reads, and warns of it


def _write(file: io.FileIO, data: bytes) -> None:
    """All of ``data``: of one write the kernel may take a part, where the disk becomes full or a limit is near."""
    with memoryview(data) as view:
        at = 0
        while at < view.nbytes:
            at += file.write(view[at:])


def close_file(file: io.RawIOBase | io.BytesIO) -> None:
    with suppress(OSError):  # a network file system reports here what it could not keep; the descriptor is closed
        file.close()
