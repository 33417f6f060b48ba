"""Orders and reports arrive as they were sent, or not at all."""

from __future__ import annotations

import struct

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
    messages.Spent(why="it has served 1000 requests"),
    messages.Forked(row=7, pid=4711),
    messages.Maintain(on=True),
    messages.ShowStacks(serial=7),
    messages.Stacks(serial=7, text="thread MainThread:"),
    messages.ForkFailed(row=7, why="Resource temporarily unavailable"),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_way(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_kinds_differ() -> None:
    """Two messages of one number would be taken for each other."""
    assert len({message.KIND for message in EVERY}) == len(EVERY)


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
        struct.pack("=BI", messages.Unshareable.KIND, 1 << 31) + b"short",
        struct.pack("=BI", messages.Unshareable.KIND, 3) + b"short",
        struct.pack("=BI", messages.Unshareable.KIND, messages.TEXT_BYTES + 1) + b"x" * (messages.TEXT_BYTES + 1),
        messages.encode(messages.Ready()) + b"x",
        messages.encode(messages.Forked(1, 2))[:-1],
    ],
)
def test_a_message_has_exactly_its_fields(lie: bytes) -> None:
    """The length is the sender's word, and the sender may lie: what is left over is looked at by nobody."""
    with pytest.raises(MessageError):
        messages.decode(lie)


def test_text_that_is_not_unicode_arrives_escaped() -> None:
    """File names in tracebacks may hold surrogates; a report must not fail over one."""
    sent = messages.Unshareable("caf\udce9")
    assert messages.decode(messages.encode(sent)) == messages.Unshareable("caf\\udce9")
