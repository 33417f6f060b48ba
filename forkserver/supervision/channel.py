"""How master, template and workers hear each other: one end of a pair of sockets, a message a datagram.

It promises that a message arrives whole or not at all, that a send never waits, that the sender's pid is the kernel's
word, not the sender's, and that descriptors which nobody wanted are closed. It refuses to know what a message means.

Source: unix(7), SOCK_SEQPACKET, SCM_RIGHTS and SCM_CREDENTIALS.
"""

from __future__ import annotations

import array
import errno
import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from forkserver.supervision.messages import MESSAGE_BYTES, Message, MessageError, decode, encode

MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_FULL: Final = (errno.ENOBUFS, errno.ETOOMANYREFS)
_ROOM: Final = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)


class Arrival(NamedTuple):
    """A message as it came: with its descriptors, and the pid that sent it (0 where the kernel was not asked)."""

    message: Message
    descriptors: tuple[int, ...]
    pid: int


class Channel:
    """One end of a pair. End-of-file says that nobody holds the other end any more: that process is gone."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The master's end, non-blocking and told by the kernel who sends; and the bare end for the other process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        return cls(ours), theirs

    @classmethod
    def held(cls, descriptor: int) -> Channel:
        """The master's end of a pair that the program before has made."""
        ours = socket.socket(fileno=descriptor)
        ours.setblocking(False)  # it is already; the object has to know
        return cls(ours)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def setblocking(self, blocking: bool) -> None:
        self._socket.setblocking(blocking)

    def send(self, message: Message, descriptors: Iterable[int] = ()) -> bool:
        """Send ``message`` without waiting, and say whether it went: a peer may be gone, or not reading."""
        rights = array.array("i", descriptors)
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self._socket.sendmsg([encode(message)], beside, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        except OSError as error:
            # Too many descriptors on their way between processes, unix(7): as good as not reading.
            if error.errno in _FULL:
                return False
            raise
        return True

    def receive(self) -> Arrival | None:
        """The next message; waits for it where the end is blocking. None where nothing is there.

        Raises EOFError once the other end is closed and all it sent is read, and MessageError.
        """
        while True:
            try:
                data, beside, _, _ = self._socket.recvmsg(MESSAGE_BYTES, _ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # it left something unread; what it said before comes yet, and then end-of-file
            if not data:
                raise EOFError
            descriptors, pid = _read_beside(beside)
            try:
                return Arrival(decode(data), descriptors, pid)
            except MessageError:
                close_all(descriptors)
                raise


def _read_beside(beside: list[tuple[int, int, bytes]]) -> tuple[tuple[int, ...], int]:
    descriptors = array.array("i")
    pid = 0
    for level, kind, data in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack(data)[0]
    return tuple(descriptors), pid


def close_all(descriptors: Iterable[int]) -> None:
    """Close what came with a message that nobody wanted."""
    for number in descriptors:
        socket.close(number)
