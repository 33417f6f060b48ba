"""Channels between the master and its children: orders on a socket, reports in shared memory.

An order is one datagram, with descriptors beside it. The master's end is shut for reading from the start, so the kernel
refuses whatever a child sends on it, and the master never closes a descriptor that a child has sent. Reports come in a
ring of memory (report_ring.py), which carries bytes only. A send never waits. End-of-file on the socket says that no
process has the other end open.

A child of an older program still reports on its socket: ``OlderChannel`` reads that until a reload replaces the child.

Source: unix(7), SOCK_SEQPACKET and SCM_RIGHTS; shutdown(2).
"""

from __future__ import annotations

import array
import errno
import select
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from forkserver.ipc.messages import MESSAGE_BYTES, Message, MessageError, decode, encode
from forkserver.ipc.report_ring import Ends, Inbox, Outbox, ReportRingSnapshot
from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair

MAX_DESCRIPTORS: Final = syscalls.SCM_MAX_FD  # of one order
CHILD_DESCRIPTORS: Final = 3  # of a child's end, in an order that passes it on
_FULL: Final = (errno.ENOBUFS, errno.ETOOMANYREFS)
_ROOM: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)


class Arrival(NamedTuple):
    """An order as it came, with its descriptors."""

    message: Message
    descriptors: tuple[int, ...]


class ChildEnd(NamedTuple):
    """What the master's channel leaves for the child: a socket for orders, and where to report."""

    orders: socket.socket
    reports: Ends

    def descriptors(self) -> list[int]:
        """As they travel to a child, which makes a Channel of them."""
        return [self.orders.fileno(), *self.reports]

    def take(self) -> Channel:
        """In a child just forked: its channel. Raises OSError."""
        return Channel(self.orders, Outbox(self.reports))


class MasterChannel:
    """The master's end. ``waiting`` says whether a report has come that ``receive`` has not given yet."""

    def __init__(self, orders: socket.socket, inbox: Inbox) -> None:
        self._orders = orders
        self._inbox = inbox
        orders.setblocking(False)
        orders.shutdown(socket.SHUT_RD)

    @classmethod
    def pair(cls) -> tuple[MasterChannel, ChildEnd]:
        """A new channel and what its child is given; the memory stays the channel's. Raises OSError."""
        inbox = Inbox()
        try:
            ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        except BaseException:
            inbox.close()
            raise
        return cls(ours, inbox), ChildEnd(theirs, inbox.ends)

    @classmethod
    def restore(cls, orders: int, reports: ReportRingSnapshot) -> MasterChannel:
        """The channel that the program before has made."""
        return cls(PlainSocket(fileno=orders), Inbox(reports))

    def another(self) -> tuple[MasterChannel | OlderChannel, ChildEnd | OlderEnd]:
        """A pair for a child that the process at the other end forks. Raises OSError."""
        return MasterChannel.pair()

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._orders.fileno()

    @property
    def watched(self) -> Sequence[tuple[int, int]]:
        """What to wait for, as descriptors with events of epoll(7); the socket only tells its end."""
        return (self._orders.fileno(), 0), (self._inbox.ends.bell, select.EPOLLIN)

    @property
    def waiting(self) -> bool:
        return self._inbox.waiting

    def snapshot(self) -> ReportRingSnapshot | None:
        """What the next program is told of the reports."""
        return self._inbox.snapshot()

    def send(self, message: Message, descriptors: Iterable[int] = ()) -> bool:
        """Send an order without waiting, and say whether it went: a child may be gone, or not reading."""
        return _send(self._orders, message, descriptors)

    def receive(self) -> Message | None:
        """The next report; None where nothing is there.

        Raises EOFError once the other end is closed and all reports are read, and MessageError.
        """
        report = self._inbox.receive()
        if report is None and syscalls.has_event(self._orders.fileno(), 0):  # an end is told in any case
            report = self._inbox.receive()  # it may have come between the two looks
            if report is None:
                raise EOFError
        return report

    def leave(self) -> None:
        """Close this end in a child just forked, which uses its own."""
        self._orders.close()
        self._inbox.leave()

    def close(self) -> None:
        self._orders.close()
        self._inbox.close()


class Channel:
    """The child's end."""

    def __init__(self, orders: socket.socket, outbox: Outbox) -> None:
        self._socket = orders
        self._outbox = outbox

    @classmethod
    def of(cls, descriptors: Sequence[int]) -> Channel:
        """The end whose descriptors came with an order. Raises OSError, with all of them closed."""
        orders, *reports = descriptors
        try:
            outbox = Outbox(Ends(*reports))
        except BaseException:
            socket.close(orders)
            raise
        return cls(PlainSocket(fileno=orders), outbox)

    def fileno(self) -> int:
        return self._socket.fileno()

    def descriptors(self) -> tuple[int, int]:
        """Those that orders come by and reports go by."""
        return self._socket.fileno(), self._outbox.fileno()

    def close(self) -> None:
        """Close everything. A second call does nothing."""
        self._socket.close()
        self._outbox.close()

    def setblocking(self, blocking: bool) -> None:
        self._socket.setblocking(blocking)

    def send(self, message: Message) -> bool:
        """Report ``message`` without waiting, and say whether there was room."""
        return self._outbox.send(message)

    def receive(self) -> Arrival | None:
        """The next order; waits for it where the end is blocking. None where nothing is there.

        Raises EOFError once the other end is closed and all it sent is read, and MessageError.
        """
        return _receive(self._socket)


class OlderEnd(NamedTuple):
    """What a child of an older program has: the socket alone."""

    orders: socket.socket

    def descriptors(self) -> list[int]:
        return [self.orders.fileno()]


class OlderChannel:
    """The master's end of a socket on which a child of an older program reports as well."""

    waiting: bool = False

    def __init__(self, both: socket.socket) -> None:
        self._socket = both
        both.setblocking(False)
        syscalls.refuse_descriptors(both)

    def another(self) -> tuple[MasterChannel | OlderChannel, ChildEnd | OlderEnd]:
        """A pair for a child that the process at the other end forks: it knows no other kind. Raises OSError."""
        ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        return OlderChannel(ours), OlderEnd(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def watched(self) -> Sequence[tuple[int, int]]:
        return ((self._socket.fileno(), select.EPOLLIN),)

    def snapshot(self) -> ReportRingSnapshot | None:
        return None

    def send(self, message: Message, descriptors: Iterable[int] = ()) -> bool:
        return _send(self._socket, message, descriptors)

    def receive(self) -> Message | None:
        arrival = _receive(self._socket)
        if arrival is None:
            return None
        close_all(arrival.descriptors)
        return arrival.message

    def close(self) -> None:
        self._socket.close()


def _send(orders: socket.socket, message: Message, descriptors: Iterable[int]) -> bool:
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    try:
        orders.sendmsg([encode(message)], syscalls.control_messages(descriptors), flags)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return False
    except OSError as error:
        # Too many descriptors on their way between processes, unix(7): as good as not reading.
        if error.errno in _FULL:
            return False
        raise
    return True


def _receive(orders: socket.socket) -> Arrival | None:
    while True:
        try:
            data, beside, _, _ = orders.recvmsg(MESSAGE_BYTES, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            continue  # it left something unread; what it said before comes yet, and then end-of-file
        if not data:
            raise EOFError
        descriptors = _read_beside(beside)
        try:
            return Arrival(decode(data), descriptors)
        except MessageError:
            close_all(descriptors)
            raise


def _read_beside(beside: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    descriptors = array.array("i")
    for level, kind, data in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return tuple(descriptors)


def close_all(descriptors: Iterable[int]) -> None:
    """Close the descriptors of a message that is not used."""
    for number in descriptors:
        socket.close(number)
