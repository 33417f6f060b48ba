"""Messages arrive as they were sent, or not at all."""

from __future__ import annotations

import struct
import sys

import pytest

from forkserver.ipc import messages
from forkserver.ipc.messages import MessageError

EVERY = [
    messages.Spawn(row=7, slot=3, generation=2),
    messages.Serve(siblings=True, maintenance=False, numbers="1,2,5"),
    messages.Retire(grace=30.5, handoff=True),
    messages.LogFiles(error=True, access=False),
    messages.Hello(),
    messages.Loaded(),
    messages.LoadFailed(exit_status=3, message="no such thing: \u2603", traceback="one\ntwo"),
    messages.Unshareable(reason="thread sampler"),
    messages.Ready(),
    messages.Guard(),
    messages.LogsAdopted(),
    messages.Expire(thread=3, since=1 << 40),
    messages.Drain(),
    messages.Drop(number=4),
    messages.Expiring(thread=3, since=1 << 40),
    messages.RecyclingDue(why="it has served 1000 requests"),
    messages.Forked(row=7, pid=4711),
    messages.Maintain(on=True),
    messages.ShowStacks(serial=7),
    messages.BeginProfile(seconds=2.5, rate=100, paths=True),
    messages.Stacks(serial=7, text="thread MainThread:"),
    messages.ForkFailed(row=7, why="Resource temporarily unavailable"),
    messages.AskedToLeave(signum=15),
]
_UNSHAREABLE = 19  # its code on the wire


def exact(message: messages.Message | None) -> tuple[object, ...]:
    """``message`` with its class: named tuples of two classes are equal where their fields are."""
    return (type(message), *(message or ()))


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_way(message: messages.Message) -> None:
    assert exact(messages.decode(messages.encode(message))) == exact(message)


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (messages.Spawn(7, 3, 2), "01 07000000 03000000 02000000"),
        (messages.Serve(siblings=True, maintenance=False, numbers="1,2"), "02 01 00 03000000 312c32"),
        (messages.Retire(grace=30.5, handoff=True), "03 0000000000803e40 01 00000000"),
        (messages.Guard(), "05"),
        (messages.Expire(thread=3, since=1 << 40), "06 03000000 0000000000010000"),
        (messages.LoadFailed(3, "no", "tb"), "12 03 02000000 6e6f 02000000 7462"),
        (messages.Forked(row=7, pid=-1), "18 07000000 ffffffff"),
        (messages.AskedToLeave(15), "1b 0f"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.skipif(sys.byteorder == "big", reason="the bytes are written down for little-endian machines")
def test_the_bytes_of_a_message_stay_the_same(message: messages.Message, data: str) -> None:
    """After an upgrade, workers of the earlier program still talk to the new master."""
    assert messages.encode(message) == bytes.fromhex(data)
    assert exact(messages.decode(bytes.fromhex(data))) == exact(message)


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_message_cut_short_is_refused_or_empty(message: messages.Message) -> None:
    """A worker may be broken or hostile: whatever it sends, the master gets a message or a MessageError."""
    whole = messages.encode(message)
    for length in range(len(whole)):
        try:
            messages.decode(whole[:length])
        except MessageError:
            continue


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 40])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        messages.decode(data)


@pytest.mark.parametrize(
    "lie",
    [
        struct.pack("=BI", _UNSHAREABLE, 1 << 31) + b"short",
        struct.pack("=BI", _UNSHAREABLE, 3) + b"short",
        struct.pack("=BI", _UNSHAREABLE, messages.TEXT_BYTES + 1) + b"x" * (messages.TEXT_BYTES + 1),
        messages.encode(messages.Ready()) + b"x",
        messages.encode(messages.Forked(1, 2))[:-1],
    ],
)
def test_a_message_has_exactly_its_fields(lie: bytes) -> None:
    """The length is the sender's word, and the sender may lie: nothing else would look at what is left over."""
    with pytest.raises(MessageError):
        messages.decode(lie)


def test_text_that_is_not_unicode_arrives_escaped() -> None:
    """File names in tracebacks may hold surrogates; a report must not fail over one."""
    sent = messages.Unshareable("caf\udce9")
    assert messages.decode(messages.encode(sent)) == messages.Unshareable("caf\\udce9")
