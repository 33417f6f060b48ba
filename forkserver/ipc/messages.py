"""Messages between master, template and workers: orders are verbs, reports are what happened.

One message is a code (one byte), the fixed fields as one struct(3) in native order, then each text in UTF-8 with its
length before it. ``_WIRE`` is the whole format, and ``encode`` and ``decode`` are its only codec. A reader trusts
nothing and executes nothing: what does not fit exactly is a MessageError. Channels (channel.py) carry the bytes.
"""

from __future__ import annotations

import struct
from typing import Final

from forkserver.linux.common.records import NamedTuple

KIB: Final = 1024
MESSAGE_BYTES: Final = 96 * KIB  # below what net.core.wmem_default lets through as one datagram
TEXT_BYTES: Final = 40 * KIB  # two texts fit; of a longer traceback, the end tells what happened
_LENGTH: Final = struct.Struct("=I")


PROTOCOL: Final = 4  # changes with any message, and with the format of a handed connection: two programs' workers talk


class MessageError(Exception):
    """Bytes on a channel that are not a message."""


class Spawn(NamedTuple):
    """To a template: fork a worker. Its end of the channel comes with the order."""

    row: int
    slot: int
    generation: int


class Serve(NamedTuple):
    """To a worker that has loaded: these descriptors are the listeners, then the hand-off queue's ends, give and take.

    ``numbers`` are the master's for the listeners, with commas between; it never uses one twice. With
    ``maintenance`` the application is not called. They come only now, so that no process holds a listener before it
    can hear that the master has died.
    """

    siblings: bool
    maintenance: bool
    numbers: str


class Retire(NamedTuple):
    """Finish all connections within ``grace`` seconds and leave; to a template: leave.

    ``handoff`` says that siblings live that take connections. A second one only says that there are none any more.
    ``why`` is a word or two for the hook worker_exit.
    """

    grace: float
    handoff: bool
    why: str = ""


class LogFiles(NamedTuple):
    """The log files were opened again: their new descriptors come along, the error log's first."""

    error: bool
    access: bool


class Guard(NamedTuple):
    """To a template that has loaded: these are our own listeners, to be shut down for every process if the master dies.

    A worker in a call would keep them until it returns, and no other program could bind. Without any: close them.
    """


class Expire(NamedTuple):
    """The call that ``thread`` began at ``since`` (ns) has lasted too long: end it, answer, and retire."""

    thread: int
    since: int


class Drain(NamedTuple):
    """A stop is near: answer with ``Connection: close`` from now on, and go on accepting."""


class Drop(NamedTuple):
    """The listener of this number is to go: accept what is queued, then close it."""

    number: int


class Maintain(NamedTuple):
    """Answer 503 in place of the application from now on, or let it answer again."""

    on: bool


class ShowStacks(NamedTuple):
    """Say where the threads are; the answer carries the same ``serial``."""

    serial: int


class ShowFailure(NamedTuple):
    """Show browsers of this machine why the newest code does not load; without a ``reason``, show nothing any more.

    ``loaded`` says whether other code of the application serves.
    """

    loaded: bool
    reason: str
    traceback: str


class ShowCall(NamedTuple):
    """The call that ``thread`` began at ``since`` (ns) has passed ``slow_log``: log where it stands, and say so."""

    thread: int
    since: int


class BeginProfile(NamedTuple):
    """Sample the threads that serve, ``rate`` times a second, for ``seconds``; with ``paths`` say for which requests.

    With it come a ring to write to (its memory and its bell), and a socket whose other end is closed when the profile
    is not wanted any more.
    """

    seconds: float
    rate: int
    paths: bool


class Hello(NamedTuple):
    """From a worker: it runs. The kernel tells its pid."""


class Loaded(NamedTuple):
    """The application is loaded: in the template for its workers, or in a worker that now needs its listeners."""


class LoadFailed(NamedTuple):
    """The application did not load, and why. ``exit_status`` is what a first start ends with."""

    exit_status: int
    message: str
    traceback: str


class Unshareable(NamedTuple):
    """From a template: the import left ``reason``, which a fork would break; workers must import for themselves."""

    reason: str


class Ready(NamedTuple):
    """From a worker: it accepts connections."""


class LogsAdopted(NamedTuple):
    """The new log files are written to, and nothing goes to the old ones any more."""


class Expiring(NamedTuple):
    """From a worker: it has received Expire and retires. One that does not say so is stopped, or stuck in C code."""

    thread: int
    since: int


class RecyclingDue(NamedTuple):
    """From a worker: it has reached its limit of requests, and asks to be replaced."""

    why: str


class AskedToLeave(NamedTuple):
    """From a worker that serves: ``signum`` has come, which tells a process to leave; the master decides about that."""

    signum: int


class Forked(NamedTuple):
    """From a template: the worker that was ordered with this row exists."""

    row: int
    pid: int


class ForkFailed(NamedTuple):
    """From a template: the kernel refused a process, which is no fault of the code."""

    row: int
    why: str


class InDebugger(NamedTuple):
    """From a worker: a person uses a debugger in one of its calls, or does not any more."""

    on: bool


class Stacks(NamedTuple):
    """From a worker: where its threads are; of a text too long, the beginning is lost."""

    serial: int
    text: str


class CallShown(NamedTuple):
    """From a worker: where the call of a ShowCall stands is in the log; ``place`` is its innermost call there."""

    thread: int
    since: int
    client: str
    place: str


Order = (
    Spawn
    | Serve
    | Retire
    | LogFiles
    | Guard
    | Expire
    | Drain
    | Drop
    | Maintain
    | ShowStacks
    | ShowCall
    | BeginProfile
    | ShowFailure
)
TemplateReport = Loaded | LoadFailed | Unshareable | Forked | ForkFailed | LogsAdopted
WorkerReport = (
    Hello
    | Loaded
    | LoadFailed
    | Ready
    | RecyclingDue
    | AskedToLeave
    | Expiring
    | LogsAdopted
    | Stacks
    | InDebugger
    | CallShown
)
Message = Order | TemplateReport | WorkerReport

# Code of each message, and the struct of its fixed fields; the fields after those are texts.
_WIRE: Final[dict[int, tuple[type[Message], struct.Struct]]] = {
    1: (Spawn, struct.Struct("=III")),
    2: (Serve, struct.Struct("=??")),
    3: (Retire, struct.Struct("=d?")),
    4: (LogFiles, struct.Struct("=??")),
    5: (Guard, struct.Struct("=")),
    6: (Expire, struct.Struct("=IQ")),
    7: (Drain, struct.Struct("=")),
    8: (Drop, struct.Struct("=I")),
    9: (Maintain, struct.Struct("=?")),
    10: (ShowStacks, struct.Struct("=I")),
    11: (ShowCall, struct.Struct("=IQ")),
    12: (BeginProfile, struct.Struct("=dI?")),
    13: (ShowFailure, struct.Struct("=?")),
    16: (Hello, struct.Struct("=")),
    17: (Loaded, struct.Struct("=")),
    18: (LoadFailed, struct.Struct("=B")),
    19: (Unshareable, struct.Struct("=")),
    20: (Ready, struct.Struct("=")),
    21: (LogsAdopted, struct.Struct("=")),
    22: (Expiring, struct.Struct("=IQ")),
    23: (RecyclingDue, struct.Struct("=")),
    24: (Forked, struct.Struct("=Ii")),
    25: (ForkFailed, struct.Struct("=I")),
    26: (Stacks, struct.Struct("=I")),
    27: (AskedToLeave, struct.Struct("=B")),
    28: (CallShown, struct.Struct("=IQ")),
    30: (InDebugger, struct.Struct("=?")),
}
_CODES: Final = {kind: code for code, (kind, _) in _WIRE.items()}


def encode(message: Message) -> bytes:
    """``message`` as one datagram; a text too long loses its beginning."""
    code = _CODES[type(message)]
    values = [value for value in message if not isinstance(value, str)]
    parts = [bytes((code,)), _WIRE[code][1].pack(*values)]
    for text in message[len(values) :]:
        data = str(text).encode("utf-8", "backslashreplace")[-TEXT_BYTES:]
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def decode(data: bytes) -> Message:
    """The message in one datagram. Raises MessageError."""
    if not data or data[0] not in _WIRE:
        raise MessageError(f"unknown kind of message: {data[:1]!r}")
    kind, fixed = _WIRE[data[0]]
    try:
        values = fixed.unpack_from(data, 1)
        return kind(*values, *_texts(data, 1 + fixed.size, len(kind._fields) - len(values)))
    except struct.error:
        raise MessageError(f"{kind.__name__} of {len(data)} bytes: too short") from None


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
