"""A live connection from one process to another: the descriptor, and what has been read from it already.

At every instant one process owns the connection, or the queue does; a receiver that has no descriptor left takes none.

A handed connection is one datagram of a SOCK_SEQPACKET pair that all workers share and the master keeps open. What
arrives is read as if the client had just sent it: no process trusts what another has understood.

Source: unix(7) on SCM_RIGHTS.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
from errno import EMFILE, ENFILE
from typing import Any, Final

from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.descriptor_limit import LOW_NUMBERS, move_up
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.server.proxy.client_address import ProxiedAddress

DATA_BYTES: Final = 64 * 1024  # read ahead; a connection with more stays where it is

# Listener, deadline, since; length of the peer's host, its port; for IPv6, flow and scope; what a proxy has told.
_HEAD: Final = struct.Struct("=IddBHIIB")
_MESSAGE_BYTES: Final = _HEAD.size + 255 + DATA_BYTES
_DESCRIPTOR: Final = struct.Struct("i")
_ROOM: Final = socket.CMSG_SPACE(_DESCRIPTOR.size)
# socket.send_fds and recv_fds take flags and do not pass them on.
_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_EXHAUSTED: Final = frozenset((EMFILE, ENFILE))


class HandedConnection(NamedTuple):
    """A connection on its way: its listener's number, its client's address, and what has been read of it.

    Times are CLOCK_MONOTONIC in seconds: ``deadline`` for the next request to come, or to come whole; ``since`` when it
    was whole, if it is.
    """

    listener: int
    peer: tuple[Any, ...]
    deadline: float
    since: float
    data: bytes


class DescriptorLostError(Exception):
    """A message came without its connection, which could not be taken and is lost."""


class Handoff:
    """Both ends of the queue, as one worker holds them."""

    def __init__(self, give: int, take: int) -> None:
        self._give = PlainSocket(fileno=give)
        self._take = PlainSocket(fileno=take)
        for end in (self._give, self._take):
            end.setblocking(False)  # else a default timeout that the application has set would be waited for
        self._spare = _spare()

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._take.fileno()

    def outlet(self) -> int:
        """Writable when the queue has room."""
        return self._give.fileno()

    def give(self, sock: socket.socket, handed: HandedConnection) -> bool:
        """Put ``sock`` into the queue; False where it must be kept: the queue is full, or the message too big.

        The caller has taken it out of its epoll before, and closes its own copy afterwards.
        """
        if len(handed.data) > DATA_BYTES:
            return False
        try:
            rights = socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(sock.fileno())
            self._give.sendmsg([_encode(handed)], [rights], _NOW)
        except (OSError, ValueError, TypeError, struct.error):
            return False  # full, ETOOMANYREFS, no memory; or get_request has made an address of its own kind
        return True

    def full(self) -> bool:
        """Whether the queue has no room now."""
        return not syscalls.has_event(self._give.fileno(), select.POLLOUT)

    def waits_since(self) -> float:
        """Since when the request of the oldest connection in the queue is whole; 0.0 where no request waits there."""
        try:
            head = self._take.recv(_HEAD.size, _NOW | socket.MSG_PEEK)
        except OSError:  # the queue is empty
            return 0.0
        return float(_HEAD.unpack(head)[2]) if len(head) == _HEAD.size else 0.0

    def take(self) -> tuple[socket.socket, HandedConnection] | None:
        """The next connection in the queue, or None.

        Raises OSError (EMFILE) with nothing taken, DescriptorLostError, and EOFError where the queue was shut for good.
        """
        self._make_room()
        try:
            data, beside, flags, _ = self._take.recvmsg(_MESSAGE_BYTES, _ROOM, _NOW | socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        finally:
            self._spare = _spare()
        if not data and not beside:
            raise EOFError("a process that has it, which runs the application too, has shut it")
        numbers = _numbers(beside)
        if not numbers:
            # Threads of the application may have opened what was free a moment before (MSG_CTRUNC).
            raise DescriptorLostError(f"no descriptor came with {len(data)} bytes (flags {flags:#x})")
        sock = _connection(numbers)
        try:
            sock.setblocking(False)
            return sock, _decode(data)
        except (OSError, struct.error, ValueError) as error:
            sock.close()
            raise DescriptorLostError(f"what came with it is not a worker's: {error}") from None

    def _make_room(self) -> None:
        """The kernel loses a descriptor that the receiver has no number for, and says nothing to the giver.

        So two numbers are known to be free before one is needed. Raises OSError.
        """
        if self._spare is None:
            self._spare = os.dup(self._take.fileno())
        os.close(os.dup(self._take.fileno()))
        os.close(self._spare)
        self._spare = None

    def close(self) -> None:
        """Give the descriptors back; what is queued stays queued while another process holds the other copies."""
        self._give.close()
        self._take.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _numbers(beside: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came; the room for one has room for two, and other processes choose what they send."""
    numbers = array.array("i")
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return list(numbers)


def _connection(numbers: list[int]) -> socket.socket:
    """The one socket in ``numbers``. Raises DescriptorLostError for anything else, with all of them closed."""
    *others, number = numbers
    for other in others:
        os.close(other)
    if number >= LOW_NUMBERS:
        number = move_up(number)
    try:
        sock = PlainSocket(fileno=number)
    except OSError as error:
        os.close(number)
        raise DescriptorLostError(f"what came is no socket: {error.strerror}") from None
    if others:
        sock.close()
        raise DescriptorLostError(f"{len(numbers)} descriptors came together")
    return sock


def _spare() -> int | None:
    """A descriptor to give up when one is needed; None where there is none to be had now."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            return None
        raise


def _encode(handed: HandedConnection) -> bytes:
    host = str(handed.peer[0]).encode()
    port, flow, scope = (*(int(part) for part in handed.peer[1:4]), 0, 0, 0)[:3]
    told = handed.peer.flags if isinstance(handed.peer, ProxiedAddress) else 0
    head = _HEAD.pack(handed.listener, handed.deadline, handed.since, len(host), port, flow, scope, told)
    return head + host + handed.data


def _decode(data: bytes) -> HandedConnection:
    listener, deadline, since, length, port, flow, scope, told = _HEAD.unpack_from(data)
    start = _HEAD.size + length
    host = data[_HEAD.size : start].decode()
    peer: tuple[Any, ...] = (host, port, flow, scope) if ":" in host else (host, port)
    return HandedConnection(listener, ProxiedAddress.of(peer, told) if told else peer, deadline, since, data[start:])
