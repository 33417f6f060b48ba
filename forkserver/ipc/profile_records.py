"""Records of a profile, as a worker writes them for the client that asked: what it has met, and each sample.

A function, a call and a path are told once, before the first record that names them by their number: functions count
from 0, paths and calls from 1. A call is a function beneath another call, so a stack is the number of its innermost
call. Records are fixed structs with texts behind them, as messages are (messages.py), several of them in a frame of a
ring (report_ring.py). A reader trusts nothing: what does not fit exactly is a MessageError.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from forkserver.ipc.messages import MESSAGE_BYTES, MessageError
from forkserver.linux.common.records import NamedTuple

TEXT_BYTES: Final = 400  # of one text
RECORD_BYTES: Final = 2048  # more than the longest record has
MOST_FUNCTIONS: Final = 20_000
MOST_CALLS: Final = 50_000
MOST_PATHS: Final = 200
DEEPEST: Final = 256  # calls of a stack
LONGEST_SECONDS: Final = 3600.0
MOST_RATE: Final = 1000  # samples in a second

_LENGTH: Final = struct.Struct("=H")

assert 3 * (TEXT_BYTES + _LENGTH.size) + 64 < RECORD_BYTES < MESSAGE_BYTES


class ProfiledFunction(NamedTuple):
    """A function: the line that it begins at, its module, its qualified name, and its file."""

    line: int
    module: str
    name: str
    file: str


class ProfiledCall(NamedTuple):
    """A call of ``function`` beneath the call ``parent``, 0 for none."""

    parent: int
    function: int


class ProfiledPath(NamedTuple):
    """Method and path of a request."""

    line: str


class ProfileSample(NamedTuple):
    """A thread was in ``call``, for a request with ``path`` (0 where that is not known); ``weight`` is in ns."""

    call: int
    path: int
    weight: int


class ProfileLoss(NamedTuple):
    """So many samples could not be written: the reader was late."""

    samples: int


class ProfileEnd(NamedTuple):
    """The profile is over; ``why`` it ended early or did not begin, else empty."""

    why: str


ProfileRecord = ProfiledFunction | ProfiledCall | ProfiledPath | ProfileSample | ProfileLoss | ProfileEnd

# Code of each record, and the struct of its fixed fields; the fields after those are texts.
_WIRE: Final[dict[int, tuple[type[ProfileRecord], struct.Struct]]] = {
    1: (ProfiledFunction, struct.Struct("=I")),
    2: (ProfiledCall, struct.Struct("=II")),
    3: (ProfiledPath, struct.Struct("=")),
    4: (ProfileSample, struct.Struct("=IIQ")),
    5: (ProfileLoss, struct.Struct("=Q")),
    6: (ProfileEnd, struct.Struct("=")),
}
_CODES: Final = {kind: code for code, (kind, _) in _WIRE.items()}


def encode_record(record: ProfileRecord) -> bytes:
    """``record`` as bytes; a text too long loses its end."""
    code = _CODES[type(record)]
    values = [value for value in record if not isinstance(value, str)]
    parts = [bytes((code,)), _WIRE[code][1].pack(*values)]
    for text in record[len(values) :]:
        data = str(text).encode("utf-8", "backslashreplace")[:TEXT_BYTES]
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def decode_records(frame: bytes) -> list[ProfileRecord]:
    """The records that fill ``frame``. Raises MessageError."""
    found: list[ProfileRecord] = []
    at = 0
    try:
        while at < len(frame):
            if frame[at] not in _WIRE:
                raise MessageError(f"unknown kind of record: {frame[at]}")
            kind, fixed = _WIRE[frame[at]]
            values: list[Any] = list(fixed.unpack_from(frame, at + 1))
            at += 1 + fixed.size
            for _ in range(len(kind._fields) - len(values)):
                text, at = _text(frame, at)
                values.append(text)
            found.append(kind(*values))
    except struct.error:
        raise MessageError(f"a record that ends behind its frame of {len(frame)} bytes") from None
    return found


def _text(frame: bytes, at: int) -> tuple[str, int]:
    """The text at ``at``, and where it ends. Raises struct.error and MessageError."""
    (length,) = _LENGTH.unpack_from(frame, at)
    at += _LENGTH.size
    if length > min(TEXT_BYTES, len(frame) - at):
        raise MessageError(f"a text of {length} bytes where {len(frame) - at} are left")
    return frame[at : at + length].decode("utf-8", "replace"), at + length
