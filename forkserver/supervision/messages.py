"""What master, template and workers say to each other: orders are verbs, reports are what happened.

It promises that a message arrives whole or not at all, that reading one executes nothing and trusts nothing (fixed
structs and bytes, never pickle), and that the sender's pid is the kernel's word, not the sender's. It refuses to know
what any message leads to.

One message is one datagram of a SOCK_SEQPACKET pair: a kind (one byte), the fixed fields, then each text with its
length before it. Descriptors travel beside it. Source: unix(7), SCM_RIGHTS and SCM_CREDENTIALS.
"""

from __future__ import annotations

import array
import dataclasses
import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

KIB: Final = 1024
MESSAGE_BYTES: Final = 96 * KIB  # below what net.core.wmem_default lets through as one datagram
TEXT_BYTES: Final = 40 * KIB  # two texts fit; of a longer traceback, the end tells what happened
MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_LENGTH: Final = struct.Struct("=I")


PROTOCOL: Final = 2  # changes with any message, and with a parcel of the hand-off: workers of two programs talk


class MessageError(Exception):
    """Bytes on a channel that are no message of ours."""


@dataclass(frozen=True)
class Message:
    """Base of orders and reports. Fields of type str travel as texts, all others by ``LAYOUT``, in their order."""

    KIND: ClassVar[int] = 0
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=")


@dataclass(frozen=True)
class Spawn(Message):
    """To a template: fork a worker. Its end of the channel comes with the order."""

    KIND: ClassVar[int] = 1
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=III")
    row: int
    slot: int
    generation: int


@dataclass(frozen=True)
class Serve(Message):
    """To a worker that has loaded: these descriptors are the listeners, then the hand-off queue's ends, give and take.

    ``numbers`` are the master's for the listeners, with commas between; it never uses one twice. With
    ``maintenance`` the application is not called. They come only now, so that no process holds a listener before it
    can hear that the master has died.
    """

    KIND: ClassVar[int] = 2
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=??")
    siblings: bool
    maintenance: bool
    numbers: str


@dataclass(frozen=True)
class Retire(Message):
    """Finish what is held within ``grace`` seconds and leave; to a template: leave.

    ``handoff`` says that siblings live who take connections. A second one only says that there are none any more.
    """

    KIND: ClassVar[int] = 3
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=d?")
    grace: float
    handoff: bool


@dataclass(frozen=True)
class LogFiles(Message):
    """The log files were opened again: their new descriptors come along, the error log's first."""

    KIND: ClassVar[int] = 4
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=??")
    error: bool
    access: bool


@dataclass(frozen=True)
class Guard(Message):
    """To a template that has loaded: these are our own listeners, to be ended for everyone if the master dies.

    A worker in a call would hold them until it returns, and no successor could bind. Without any: let them go.
    """

    KIND: ClassVar[int] = 5


@dataclass(frozen=True)
class Expire(Message):
    """The call that ``thread`` began at ``since`` (ns) has lasted too long: end it, answer, and retire."""

    KIND: ClassVar[int] = 6
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=IQ")
    thread: int
    since: int


@dataclass(frozen=True)
class Drain(Message):
    """A stop is near: answer with ``Connection: close`` from now on, and go on accepting."""

    KIND: ClassVar[int] = 7


@dataclass(frozen=True)
class Drop(Message):
    """The listener of this number is served no more: take what is queued, then close it."""

    KIND: ClassVar[int] = 8
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=I")
    number: int


@dataclass(frozen=True)
class Maintain(Message):
    """Answer 503 in place of the application from now on, or let it answer again."""

    KIND: ClassVar[int] = 9
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=?")
    on: bool


@dataclass(frozen=True)
class ShowStacks(Message):
    """Say where the threads are; the answer carries the same ``serial``."""

    KIND: ClassVar[int] = 10
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=I")
    serial: int


@dataclass(frozen=True)
class Hello(Message):
    """From a worker: it lives. Which process it is, the kernel says."""

    KIND: ClassVar[int] = 16


@dataclass(frozen=True)
class Loaded(Message):
    """The application is there: in the template for its workers, or in a worker that now wants its listeners."""

    KIND: ClassVar[int] = 17


@dataclass(frozen=True)
class LoadFailed(Message):
    """The application is not there, and why. ``exit_status`` is what a first start ends with."""

    KIND: ClassVar[int] = 18
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=B")
    exit_status: int
    message: str
    traceback: str


@dataclass(frozen=True)
class Unshareable(Message):
    """From a template: the import left ``reason``, which a fork would break; workers must import for themselves."""

    KIND: ClassVar[int] = 19
    reason: str


@dataclass(frozen=True)
class Ready(Message):
    """From a worker: it accepts connections."""

    KIND: ClassVar[int] = 20


@dataclass(frozen=True)
class LogsAdopted(Message):
    """The new log files are written to, and nothing goes to the old ones any more."""

    KIND: ClassVar[int] = 21


@dataclass(frozen=True)
class Expiring(Message):
    """From a worker: it has heard Expire and retires. Who does not say so is stopped, or stuck in C code."""

    KIND: ClassVar[int] = 22
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=IQ")
    thread: int
    since: int


@dataclass(frozen=True)
class Spent(Message):
    """From a worker: it has served as much as it is to, and wants to be replaced."""

    KIND: ClassVar[int] = 23
    why: str


@dataclass(frozen=True)
class Forked(Message):
    """From a template: the worker that was ordered with this row exists."""

    KIND: ClassVar[int] = 24
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=Ii")
    row: int
    pid: int


@dataclass(frozen=True)
class ForkFailed(Message):
    """From a template: the kernel had no process to give. No fault of the code."""

    KIND: ClassVar[int] = 25
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=I")
    row: int
    why: str


@dataclass(frozen=True)
class Stacks(Message):
    """From a worker: where its threads are; of a text too long, the beginning is lost."""

    KIND: ClassVar[int] = 26
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=I")
    serial: int
    text: str


_KINDS: Final[dict[int, type[Message]]] = {
    kind.KIND: kind
    for kind in (
        Spawn,
        Serve,
        Retire,
        LogFiles,
        Guard,
        Expire,
        Drain,
        Drop,
        Maintain,
        ShowStacks,
        Hello,
        Loaded,
        LoadFailed,
        Unshareable,
        Ready,
        LogsAdopted,
        Expiring,
        Spent,
        Forked,
        ForkFailed,
        Stacks,
    )
}


def encode(message: Message) -> bytes:
    """``message`` as one datagram; a text too long loses its beginning."""
    values = [getattr(message, field.name) for field in dataclasses.fields(message)]
    parts = [bytes((message.KIND,)), message.LAYOUT.pack(*(value for value in values if not isinstance(value, str)))]
    for text in values:
        if isinstance(text, str):
            data = text.encode("utf-8", "backslashreplace")[-TEXT_BYTES:]
            parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def decode(data: bytes) -> Message:
    """The message in one datagram. Raises MessageError."""
    kind = _KINDS.get(data[0]) if data else None
    if kind is None:
        raise MessageError(f"unknown kind of message: {data[:1]!r}")
    try:
        fixed = iter(kind.LAYOUT.unpack_from(data, 1))
        texts = iter(_texts(data[1 + kind.LAYOUT.size :]))
        # Annotations are text here (PEP 563), and those that say str are the texts.
        values = [next(texts if field.type == "str" else fixed) for field in dataclasses.fields(kind)]
    except (struct.error, StopIteration):
        raise MessageError(f"{kind.__name__} of {len(data)} bytes: too short") from None
    return kind(*values)


def _texts(data: bytes) -> list[str]:
    found = []
    while data:
        (length,) = _LENGTH.unpack_from(data)
        end = _LENGTH.size + length
        found.append(data[_LENGTH.size : end].decode("utf-8", "replace"))
        data = data[end:]
    return found


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


_FULL: Final = (errno.ENOBUFS, errno.ETOOMANYREFS)
_ROOM: Final = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)


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
