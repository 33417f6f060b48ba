"""Reports of one child to the master, in memory that both share and that can carry nothing but bytes.

A descriptor that a child attaches to a message on a socket is closed in the context of the receiver, which waits there
where the descriptor is a socket that lingers (SO_LINGER). A pipe carries none, but its writer holds the pipe's lock
while the kernel copies from the writer's memory, and can make that last (userfaultfd(2), a file system in user space).
So a report is a frame in a ring of sealed memory: the child writes the frame, then adds its size to an eventfd; the
kernel's counter is what the master believes, within the size of the ring. Nothing else in the memory is read as a fact:
positions are kept by each side for itself, and the one word that the master writes tells the child what room there is.

Source: memfd_create(2), fcntl(2) on F_ADD_SEALS, eventfd(2).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final

from forkserver.ipc.messages import KIB, MESSAGE_BYTES, Message, MessageError, decode, encode
from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple

RING_BYTES: Final = 128 * KIB  # above one message of the largest size
HEADER_BYTES: Final = 64  # the first word: how many bytes the master has taken
_WORD: Final = struct.Struct("=Q")
_LENGTH: Final = struct.Struct("=I")

assert MESSAGE_BYTES + _LENGTH.size <= RING_BYTES


class ReportRingSnapshot(NamedTuple):
    """An inbox as the next program is told of it: descriptors, bytes taken so far, bytes announced and not taken."""

    memory: int
    bell: int
    taken: int
    announced: int


class Ends(NamedTuple):
    """What a child needs to report: descriptors of the memory and of the eventfd. Their owner closes them."""

    memory: int
    bell: int

    def close(self) -> None:
        os.close(self.memory)
        os.close(self.bell)


class _Ring:
    """The memory behind a descriptor, mapped."""

    def __init__(self, memory: int) -> None:
        self._map = mmap.mmap(memory, HEADER_BYTES + RING_BYTES)

    def write(self, position: int, data: bytes) -> None:
        """Put ``data`` at ``position`` (bytes since the beginning of time)."""
        at = position % RING_BYTES
        first = data[: RING_BYTES - at]
        self._map[HEADER_BYTES + at : HEADER_BYTES + at + len(first)] = first
        rest = data[len(first) :]
        self._map[HEADER_BYTES : HEADER_BYTES + len(rest)] = rest

    def read(self, position: int, size: int) -> bytes:
        """A copy of ``size`` bytes at ``position``."""
        at = position % RING_BYTES
        first = self._map[HEADER_BYTES + at : HEADER_BYTES + min(at + size, RING_BYTES)]
        return first + self._map[HEADER_BYTES : HEADER_BYTES + size - len(first)]

    @property
    def taken(self) -> int:
        return int(_WORD.unpack_from(self._map)[0])

    @taken.setter
    def taken(self, position: int) -> None:
        _WORD.pack_into(self._map, 0, position)

    def close(self) -> None:
        self._map.close()


class Inbox:
    """The master's end, made anew or restored from a ``snapshot`` of the program before. Raises OSError."""

    def __init__(self, snapshot: ReportRingSnapshot | None = None) -> None:
        made = make_ends() if snapshot is None else Ends(snapshot.memory, snapshot.bell)
        try:
            self._ring = _Ring(made.memory)
        except BaseException:
            made.close()
            raise
        self.ends = made
        self._taken = 0 if snapshot is None else snapshot.taken
        self._announced = 0 if snapshot is None else snapshot.announced

    def snapshot(self) -> ReportRingSnapshot:
        """What the next program is told."""
        return ReportRingSnapshot(*self.ends, self._taken, self._announced)

    @property
    def waiting(self) -> bool:
        """Whether an announced report is left to receive, although the bell may be silent."""
        return self._announced > 0

    def receive(self) -> Message | None:
        """The next report, or None. Raises MessageError for anything that is none."""
        frame = self.take_frame()
        return None if frame is None else decode(frame)

    def take_frame(self) -> bytes | None:
        """What was written next, at most MESSAGE_BYTES of it, or None. Raises MessageError for what cannot be."""
        if not self._announced:
            self._announced = syscalls.take_count(self.ends.bell)
            if not self._announced:
                return None
        if not _LENGTH.size < self._announced <= RING_BYTES:
            raise MessageError(f"{self._announced} bytes of reports where {RING_BYTES} fit")
        (size,) = _LENGTH.unpack(self._ring.read(self._taken, _LENGTH.size))
        if not 0 < size <= min(MESSAGE_BYTES, self._announced - _LENGTH.size):
            raise MessageError(f"a report of {size} bytes where {self._announced} were announced")
        data = self._ring.read(self._taken + _LENGTH.size, size)
        self._taken += _LENGTH.size + size
        self._announced -= _LENGTH.size + size
        self._ring.taken = self._taken
        return data

    def leave(self) -> None:
        """Unmap the memory in a child just forked, which takes over the descriptors."""
        self._ring.close()

    def close(self) -> None:
        """Unmap the memory and close both descriptors. A second call does nothing."""
        if self.ends.bell >= 0:
            self._ring.close()
            self.ends.close()
            self.ends = Ends(-1, -1)


class Outbox:
    """The child's end, made of ``ends``, which it takes over. One thread at a time uses it. Raises OSError."""

    def __init__(self, ends: Ends) -> None:
        try:
            self._ring = _Ring(ends.memory)
        except BaseException:
            ends.close()
            raise
        os.close(ends.memory)
        self._bell = ends.bell
        self._written = 0

    def fileno(self) -> int:
        return self._bell

    def send(self, message: Message) -> bool:
        """Report ``message`` without waiting, and say whether there was room for it."""
        return self.put_frame(encode(message))

    def put_frame(self, data: bytes) -> bool:
        """Write ``data``, one to MESSAGE_BYTES of it, without waiting, and say whether there was room for it."""
        frame = _LENGTH.pack(len(data)) + data
        if len(frame) > RING_BYTES - (self._written - self._ring.taken):
            return False
        self._ring.write(self._written, frame)
        try:
            os.eventfd_write(self._bell, len(frame))
        except BlockingIOError:
            return False  # the counter is full: other code in this process has written to the eventfd
        self._written += len(frame)
        return True

    def close(self) -> None:
        """Unmap the memory and close the eventfd. A second call does nothing."""
        if self._bell >= 0:
            self._ring.close()
            os.close(self._bell)
            self._bell = -1


def make_ends() -> Ends:
    """Sealed memory of zeros and an eventfd, both closed on exec. Raises OSError, with nothing left open."""
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        return Ends(syscalls.sealed_memory("forkserver-reports", HEADER_BYTES + RING_BYTES), bell)
    except BaseException:
        os.close(bell)
        raise
