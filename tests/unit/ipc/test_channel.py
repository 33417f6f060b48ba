"""A message arrives as it was sent, or not at all, with what came beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from forkserver.ipc import messages
from forkserver.ipc.channel import Channel, MasterChannel, OlderChannel
from forkserver.ipc.messages import MessageError


@pytest.fixture
def ends() -> Iterator[tuple[MasterChannel, Channel]]:
    """The master's end and the other process's."""
    ours, theirs = pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def pair() -> tuple[MasterChannel, Channel]:
    """As an order passes it on: the child has descriptors of its own."""
    ours, end = MasterChannel.pair()
    theirs = Channel.of([os.dup(number) for number in end.descriptors()])
    end.orders.close()
    return ours, theirs


def test_of_a_traceback_too_long_the_end_arrives(ends: tuple[MasterChannel, Channel]) -> None:
    """The last lines tell what happened, and a message larger than the socket's buffer would not be sent at all."""
    ours, theirs = ends
    long = "line\n" * 100_000 + "ValueError: the point"
    assert theirs.send(messages.LoadFailed(3, long, long))
    report = ours.receive()
    assert isinstance(report, messages.LoadFailed)
    assert report.traceback.endswith("ValueError: the point")


def test_descriptors_travel_and_are_closed_on_exec(ends: tuple[MasterChannel, Channel]) -> None:
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


def test_an_empty_channel_does_not_hold_the_master(ends: tuple[MasterChannel, Channel]) -> None:
    assert ends[0].receive() is None


def test_what_was_said_last_is_heard_before_the_end(ends: tuple[MasterChannel, Channel]) -> None:
    """Also where the other side left something unread, which makes the kernel say "reset" first."""
    ours, theirs = ends
    assert ours.send(messages.Retire(1.0, handoff=False))
    assert theirs.send(messages.LoadFailed(3, "why", ""))
    theirs.close()
    assert ours.receive() == messages.LoadFailed(3, "why", "")
    with pytest.raises(EOFError):
        ours.receive()


def test_sending_to_a_closed_end_says_so(ends: tuple[MasterChannel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    assert not ours.send(messages.Retire(1.0, handoff=False))


def test_a_peer_that_does_not_read_does_not_hold_the_master(ends: tuple[MasterChannel, Channel]) -> None:
    ours, _ = ends
    sent = 0
    while ours.send(messages.Retire(1.0, handoff=False)):
        sent += 1
    assert sent


def test_a_child_can_put_nothing_into_the_masters_end(ends: tuple[MasterChannel, Channel]) -> None:
    """A descriptor of a connection that lingers would hold the master when it closes its end."""
    _, theirs = ends
    with socket.socket(fileno=os.dup(theirs.fileno())) as liar, pytest.raises(BrokenPipeError):
        socket.send_fds(liar, [b"x"], [0])


def test_a_child_that_shuts_its_end_has_hung_up(ends: tuple[MasterChannel, Channel]) -> None:
    ours, theirs = ends
    theirs.send(messages.Ready())
    with socket.socket(fileno=os.dup(theirs.fileno())) as liar:
        liar.shutdown(socket.SHUT_RDWR)
    assert ours.receive() == messages.Ready()
    with pytest.raises(EOFError):
        ours.receive()


# A child of an older program


@pytest.fixture
def older() -> Iterator[tuple[OlderChannel, socket.socket]]:
    ours, bare = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = OlderChannel(ours)
    yield made, bare
    made.close()
    bare.close()


def test_a_child_of_an_older_program_is_heard_on_its_socket(older: tuple[OlderChannel, socket.socket]) -> None:
    ours, bare = older
    bare.send(messages.encode(messages.RecyclingDue("its age")))
    assert ours.receive() == messages.RecyclingDue("its age")
    assert ours.receive() is None
    assert ours.send(messages.Drain())
    assert messages.decode(bare.recv(100)) == messages.Drain()


def test_what_a_template_of_an_older_program_forks_is_given_a_socket(
    older: tuple[OlderChannel, socket.socket],
) -> None:
    ours, end = older[0].another()
    assert len(end.descriptors()) == 1
    end.orders.send(messages.encode(messages.Hello()))
    assert ours.receive() == messages.Hello()
    ours.close()
    end.orders.close()


def test_broken_bytes_leak_no_descriptor(older: tuple[OlderChannel, socket.socket]) -> None:
    """The autouse fixture looks for it. Newer kernels refuse the descriptor itself."""
    ours, bare = older
    try:
        socket.send_fds(bare, [b"\xff"], [0])
    except PermissionError:
        bare.send(b"\xff")
    with pytest.raises(MessageError):
        ours.receive()
