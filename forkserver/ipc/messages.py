"""What master, template and workers say to each other: orders are verbs, reports are what happened.

It promises that reading one executes nothing and trusts nothing: fixed structs and bytes, never pickle. It refuses to
know how a message travels (channel.py), and what it leads to.

One message is a kind (one byte), the fixed fields, then each text with its length before it.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

from forkserver.ipc.records import Record

KIB: Final = 1024
MESSAGE_BYTES: Final = 96 * KIB  # below what net.core.wmem_default lets through as one datagram
TEXT_BYTES: Final = 40 * KIB  # two texts fit; of a longer traceback, the end tells what happened
_LENGTH: Final = struct.Struct("=I")


PROTOCOL: Final = 3  # changes with any message, and with a parcel of the hand-off: workers of two programs talk


class MessageError(Exception):
    """Bytes on a channel that are no message of ours."""


class Message(Record):
    """Base of orders and reports. Fields of type str travel as texts, all others by ``LAYOUT``, in their order."""

    KIND: ClassVar[int] = 0
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=")


class Spawn(Message):
    """To a template: fork a worker. Its end of the channel comes with the order."""

    KIND: ClassVar[int] = 1
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=III")
    row: int
    slot: int
    generation: int


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


class Retire(Message):
    """Finish what is held within ``grace`` seconds and leave; to a template: leave.

    ``handoff`` says that siblings live who take connections. A second one only says that there are none any more.
    """

    KIND: ClassVar[int] = 3
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=d?")
    grace: float
    handoff: bool


class LogFiles(Message):
    """The log files were opened again: their new descriptors come along, the error log's first."""

    KIND: ClassVar[int] = 4
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=??")
    error: bool
    access: bool


class Guard(Message):
    """To a template that has loaded: these are our own listeners, to be ended for everyone if the master dies.

    A worker in a call would hold them until it returns, and no successor could bind. Without any: let them go.
    """

    KIND: ClassVar[int] = 5


class Expire(Message):
    """The call that ``thread`` began at ``since`` (ns) has lasted too long: end it, answer, and retire."""

    KIND: ClassVar[int] = 6
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=IQ")
    thread: int
    since: int


class Drain(Message):
    """A stop is near: answer with ``Connection: close`` from now on, and go on accepting."""

    KIND: ClassVar[int] = 7


class Drop(Message):
    """The listener of this number is served no more: take what is queued, then close it."""

    KIND: ClassVar[int] = 8
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=I")
    number: int


class Maintain(Message):
    """Answer 503 in place of the application from now on, or let it answer again."""

    KIND: ClassVar[int] = 9
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=?")
    on: bool


class ShowStacks(Message):
    """Say where the threads are; the answer carries the same ``serial``."""

    KIND: ClassVar[int] = 10
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=I")
    serial: int


class Hello(Message):
    """From a worker: it lives. Which process it is, the kernel says."""

    KIND: ClassVar[int] = 16


class Loaded(Message):
    """The application is there: in the template for its workers, or in a worker that now wants its listeners."""

    KIND: ClassVar[int] = 17


class LoadFailed(Message):
    """The application is not there, and why. ``exit_status`` is what a first start ends with."""

    KIND: ClassVar[int] = 18
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=B")
    exit_status: int
    message: str
    traceback: str


class Unshareable(Message):
    """From a template: the import left ``reason``, which a fork would break; workers must import for themselves."""

    KIND: ClassVar[int] = 19
    reason: str


class Ready(Message):
    """From a worker: it accepts connections."""

    KIND: ClassVar[int] = 20


class LogsAdopted(Message):
    """The new log files are written to, and nothing goes to the old ones any more."""

    KIND: ClassVar[int] = 21


class Expiring(Message):
    """From a worker: it has heard Expire and retires. Who does not say so is stopped, or stuck in C code."""

    KIND: ClassVar[int] = 22
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=IQ")
    thread: int
    since: int


class Spent(Message):
    """From a worker: it has served as much as it is to, and wants to be replaced."""

    KIND: ClassVar[int] = 23
    why: str


class AskedToLeave(Message):
    """From a worker that serves: ``signum`` has come, which tells a process to leave; the master decides about that."""

    KIND: ClassVar[int] = 27
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=B")
    signum: int


class Forked(Message):
    """From a template: the worker that was ordered with this row exists."""

    KIND: ClassVar[int] = 24
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=Ii")
    row: int
    pid: int


class ForkFailed(Message):
    """From a template: the kernel had no process to give. No fault of the code."""

    KIND: ClassVar[int] = 25
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=I")
    row: int
    why: str


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
        AskedToLeave,
    )
}


def encode(message: Message) -> bytes:
    """``message`` as one datagram; a text too long loses its beginning."""
    values = message.values()
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
        # Annotations are text here (PEP 563), and those that say str are the texts.
        kinds = kind.__annotations__
        texts = iter(_texts(data, 1 + kind.LAYOUT.size, [*kinds.values()].count("str")))
        values = [next(texts if kinds[name] == "str" else fixed) for name in kind.fields]
    except struct.error:
        raise MessageError(f"{kind.__name__} of {len(data)} bytes: too short") from None
    return kind(*values)


def _texts(data: bytes, at: int, count: int) -> list[str]:
    """Exactly ``count`` texts that fill ``data`` from ``at`` on. Raises struct.error and MessageError."""
    found = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > min(TEXT_BYTES, len(data) - at):
            raise MessageError(f"a text of {length} bytes where {len(data) - at} are left")
        found.append(data[at : at + length].decode("utf-8", "replace"))
        at += length
    if at != len(data):
        raise MessageError(f"{len(data) - at} bytes after the end of a message")
    return found
