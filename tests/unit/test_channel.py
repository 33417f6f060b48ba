"""A message arrives as it was sent, or not at all, with what came beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from forkserver.supervision import messages
from forkserver.supervision.channel import Channel
from forkserver.supervision.messages import MessageError


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """The master's end and the other process's."""
    ours, bare = Channel.pair()
    theirs = Channel(bare)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_of_a_traceback_too_long_the_end_arrives(ends: tuple[Channel, Channel]) -> None:
    """The last lines tell what happened, and a message larger than the socket's buffer would not be sent at all."""
    ours, theirs = ends
    long = "line\n" * 100_000 + "ValueError: the point"
    assert theirs.send(messages.LoadFailed(3, long, long))
    arrival = ours.receive()
    assert arrival is not None
    assert isinstance(arrival.message, messages.LoadFailed)
    assert arrival.message.traceback.endswith("ValueError: the point")


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
