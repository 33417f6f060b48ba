"""What a client has not taken yet of an answer: in memory first, then in the spool, in its order.

One answer takes at most its share of the spool, and all answers of a worker together have bounded memory
(``spool.py``). Sockets are the caller's. Each file has one owner that closes it: what sends from a file of the
application's, or from a request body, has a descriptor of its own for as long as it sends (dup(2)).
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable
from typing import IO, Final

from forkserver.config.values.numbers import KIB, MIB
from forkserver.server.buffers.body_buffer import close_file
from forkserver.server.buffers.spool import Spool

SEND_MEMORY: Final = MIB  # of one response
_LEAST_MEMORY: Final = 64 * KIB  # of one response that all others leave to it: a file for less is not worth it
_SEND_PARTS: Final = 4096  # small parts cost more than their bytes
_SPOOL_FILE_BYTES: Final = 64 * MIB  # then another is begun, so that what was sent frees its disk


def duplicate(file: IO[bytes]) -> io.FileIO:
    """The same open file by a descriptor of its own, which stays when ``file`` is closed.

    Raises OSError where no descriptor is free, and ValueError where ``file`` is closed.
    """
    copy = io.FileIO(os.dup(file.fileno()))
    try:
        file.fileno()  # a thread may have closed it before the dup: then the number can have been another file's
    except ValueError:
        copy.close()
        raise
    return copy


def _on_its_own(data: bytes | memoryview) -> memoryview:
    """``data`` without what it is a small part of: that would stay in memory as long."""
    view = memoryview(data)
    return view if 2 * view.nbytes >= memoryview(view.obj).nbytes else memoryview(bytes(view))


class FilePart:
    """``count`` bytes of ``file`` from ``offset``, for sendfile(2). ``file`` is the part's own, which ``end`` closes.

    ``ended`` is called when they are sent, or cannot be.
    """

    __slots__ = ("count", "ended", "fd", "file", "offset")

    def __init__(self, file: io.FileIO, offset: int, count: int, ended: Callable[[], object]) -> None:
        self.file = file
        self.fd = file.fileno()
        self.offset = offset
        self.count = count
        self.ended = ended

    def end(self) -> None:
        """Close the file, and tell so."""
        close_file(self.file)
        self.ended()


class SpoolPart(FilePart):
    """A file of the spool that is written at its end while it is sent from its start; it pays back what it booked."""

    __slots__ = ("booked", "spool")

    def __init__(self, spool: Spool) -> None:
        super().__init__(spool.open(), 0, 0, _nothing)
        self.spool = spool
        self.booked = 0

    def append(self, data: bytes | memoryview) -> None:
        """Keep ``data``. Raises OSError, with nothing kept and nothing booked."""
        self.spool.take(len(data))
        self.spool.answers += len(data)
        try:
            _write_at(self.fd, data, self.offset + self.count)
        except OSError:
            self._give(len(data))
            raise
        self.booked += len(data)
        self.count += len(data)

    def end(self) -> None:
        """Give disk and booking back."""
        super().end()
        self._give(self.booked)
        self.booked = 0

    def _give(self, size: int) -> None:
        self.spool.answers -= size
        self.spool.give(size)


def _nothing() -> None:
    """A file of our own: there is no one to tell."""


def _write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    with memoryview(data) as view:
        at = 0
        while at < view.nbytes:
            at += os.pwrite(fd, view[at:], offset + at)


class SendBuffer:
    """What a client has not taken yet, in order: bytes, files, and bytes that went to the spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.parts: deque[memoryview | FilePart] = deque()
        self._memory = 0
        self._overflow: SpoolPart | None = None  # the last part, while it is a spool file that can grow
        self.spooled = 0  # bytes that it has booked in the spool

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def size(self) -> int:
        """Bytes that are kept, those of files included."""
        return sum(part.count if isinstance(part, FilePart) else len(part) for part in self.parts)

    def add(self, data: bytes | memoryview) -> bool:
        """Keep ``data`` behind what is kept already; False where neither memory nor disk takes it."""
        if not data:
            return True
        if self._overflow is None and len(self.parts) < _SEND_PARTS and self._has_memory(len(data)):
            self.parts.append(_on_its_own(data))
            self._book_memory(len(data))
            return True
        if self.exceeds_share(len(data)):
            return False
        try:
            self._add_to_spool(data)
        except OSError:
            return False  # a full disk is no fault of this response: it waits for its client instead
        return True

    def _has_memory(self, size: int) -> bool:
        """Whether ``size`` bytes more may stand in memory."""
        needed = self._memory + size
        return needed <= _LEAST_MEMORY or (needed <= SEND_MEMORY and size <= self._spool.answer_memory)

    def _book_memory(self, size: int) -> None:
        self._memory += size
        self._spool.answer_memory -= size

    def exceeds_share(self, size: int) -> bool:
        """Whether ``size`` bytes more would be more than one answer may have in the spool."""
        return self.spooled + size > self._spool.answer_bytes

    def _add_to_spool(self, data: bytes | memoryview) -> None:
        """Raises OSError, with nothing kept and nothing booked."""
        part = self._overflow
        if part is None or part.booked >= _SPOOL_FILE_BYTES:
            part = SpoolPart(self._spool)
        try:
            part.append(data)
        except OSError:
            if part is not self._overflow:  # an empty part would look like a file that was cut short
                part.end()
            raise
        self.spooled += len(data)
        if part is not self._overflow:
            self._overflow = part
            self.parts.append(part)

    def add_file(self, part: FilePart) -> None:
        """Keep a file's bytes behind what is kept already."""
        self._overflow = None
        self.parts.append(part)

    def put_first(self, data: bytes) -> None:
        """Keep ``data`` before everything else."""
        self.parts.appendleft(memoryview(data))
        self._book_memory(len(data))

    def advance(self, sent: int) -> None:
        """Note that ``sent`` bytes of the first part are through."""
        part = self.parts[0]
        if isinstance(part, FilePart):
            part.offset += sent
            part.count -= sent
            if part.count == 0:
                self.parts.popleft()
                self._end(part)
        else:
            if sent == len(part):
                self.parts.popleft()
            else:
                self.parts[0] = _on_its_own(part[sent:])
            self._book_memory(-sent)

    def _end(self, part: FilePart) -> None:
        if isinstance(part, SpoolPart):
            if part is self._overflow:
                self._overflow = None
            self.spooled -= part.booked
        part.end()

    def close(self) -> None:
        """Drop what is kept, and close its files."""
        self._book_memory(-self._memory)
        while self.parts:
            part = self.parts.popleft()
            if isinstance(part, FilePart):
                self._end(part)

    def forget(self) -> None:
        """In a forked child: close its copies of the files. What they are to the application, the parent tells it."""
        while self.parts:
            part = self.parts.popleft()
            if isinstance(part, FilePart):
                close_file(part.file)
