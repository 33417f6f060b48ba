"""Orders and reports arrive as they were sent, or not at all."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from forkserver.supervision import messages
from forkserver.supervision.messages import Channel, MessageError

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


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """The master's end and the other process's."""
    ours, bare = Channel.pair()
    theirs = Channel(bare)
    yield ours, theirs
    ours.close()
    theirs.close()


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


def test_a_length_beyond_the_message_takes_what_is_there() -> None:
    """The length is the sender's word, and the sender may lie."""
    lie = bytes((messages.Unshareable.KIND,)) + struct.pack("=I", 1 << 31) + b"short"
    assert messages.decode(lie) == messages.Unshareable("short")


def test_of_a_traceback_too_long_the_end_arrives(ends: tuple[Channel, Channel]) -> None:
    """The last lines tell what happened, and a message larger than the socket's buffer would not be sent at all."""
    ours, theirs = ends
    long = "line\n" * 100_000 + "ValueError: the point"
    assert theirs.send(messages.LoadFailed(3, long, long))
    arrival = ours.receive()
    assert arrival is not None
    assert isinstance(arrival.message, messages.LoadFailed)
    assert arrival.message.traceback.endswith("ValueError: the point")


def test_text_that_is_not_unicode_arrives_escaped() -> None:
    """File names in tracebacks may hold surrogates; a report must not fail over one."""
    sent = messages.Unshareable("caf\udce9")
    assert messages.decode(messages.encode(sent)) == messages.Unshareable("caf\\udce9")


def test_descriptors_travel_and_are_closed_on_exec(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    reading, writing = os.pipe()
    assert ours.send(messages.Serve(siblings=False, maintenance=True, numbers="1"), [writing])
    arrival = theirs.receive()
    assert arrival is not None
    (received,) = arrival.descriptors
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    assert os.read(reading, 7) == b"through"
    for number in (reading, writing, received):
        os.close(number)


def test_the_kernel_says_who_sent(ends: tuple[Channel, Channel]) -> None:
    """The master may be root: a pid that a worker could choose would be a process it could have killed."""
    ours, theirs = ends
    pid = os.fork()
    if pid == 0:
        theirs.send(messages.Hello())
        os._exit(0)
    os.waitpid(pid, 0)
    arrival = ours.receive()
    assert arrival is not None
    assert arrival.pid == pid


def test_an_empty_channel_does_not_hold_the_master(ends: tuple[Channel, Channel]) -> None:
    assert ends[0].receive() is None


def test_what_was_said_last_is_heard_before_the_end(ends: tuple[Channel, Channel]) -> None:
    """Also where the other side left something unread, which makes the kernel say "reset" first."""
    ours, theirs = ends
    assert ours.send(messages.Retire(1.0, handoff=False))
    assert theirs.send(messages.LoadFailed(3, "why", ""))
    theirs.close()
    arrival = ours.receive()
    assert arrival is not None
    assert arrival.message == messages.LoadFailed(3, "why", "")
    with pytest.raises(EOFError):
        ours.receive()


def test_sending_to_nobody_says_so(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    assert not ours.send(messages.Retire(1.0, handoff=False))


def test_a_peer_that_does_not_read_does_not_hold_the_master(ends: tuple[Channel, Channel]) -> None:
    ours, _ = ends
    sent = 0
    while ours.send(messages.Retire(1.0, handoff=False)):
        sent += 1
    assert sent


def test_broken_bytes_leak_no_descriptor() -> None:
    """The autouse fixture looks for it."""
    ours, bare = Channel.pair()
    with bare:
        socket.send_fds(bare, [b"\xff"], [0])
        with pytest.raises(MessageError):
            ours.receive()
    ours.close()
