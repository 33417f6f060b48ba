"""The queue of connections between workers: a descriptor has one owner, and what comes is checked."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from forkserver.server.handoff.queue import DATA_BYTES, DescriptorLostError, HandedConnection, Handoff
from forkserver.server.proxy.client_address import ProxiedAddress

PEER = ("192.0.2.7", 4711)


@pytest.fixture
def queue() -> Iterator[Handoff]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Handoff(*(end.detach() for end in ends))
    yield made
    made.close()


def test_a_connection_arrives_as_it_was_sent(queue: Handoff) -> None:
    with socket.socket() as sock:
        handed = HandedConnection(3, ("2001:db8::1", 4711, 7, 2), 12.5, 11.0, b"GET")
        assert queue.give(sock, handed)
        taken = queue.take()
        assert taken is not None
        with taken[0]:
            assert taken[1] == handed
            assert os.fstat(taken[0].fileno()).st_ino == os.fstat(sock.fileno()).st_ino
    assert queue.take() is None


@pytest.mark.parametrize(
    "peer", [PEER, ("", 0), ProxiedAddress.of(PEER, 5), ProxiedAddress.of(("2001:db8::1", 1, 0, 0), 6)]
)
def test_a_client_keeps_its_address(queue: Handoff, peer: tuple[Any, ...]) -> None:
    """Of a Unix socket's client nothing is known; of another, what a proxy has told."""
    with socket.socket() as sock:
        queue.give(sock, HandedConnection(1, peer, 0.0, 0.0, b""))
        taken = queue.take()
        assert taken is not None
        taken[0].close()
        assert taken[1].peer == peer
        assert vars(taken[1].peer) == vars(peer) if isinstance(peer, ProxiedAddress) else type(taken[1].peer) is tuple


def test_an_empty_queue_is_not_waited_for(short_default_timeout: None) -> None:
    """The worker would stand still meanwhile, at each stop for as long as the application's default timeout."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Handoff(*(end.detach() for end in ends))
    assert made.take() is None
    made.close()


def test_since_when_the_oldest_request_waits_is_seen_without_taking_it(queue: Handoff) -> None:
    assert queue.waits_since() == 0.0, "nothing is there"
    with socket.socket() as sock:
        for since in (11.0, 12.0):
            queue.give(sock, HandedConnection(3, PEER, 12.5, since, b"GET"))
    assert queue.waits_since() == queue.waits_since() == 11.0
    for _ in range(2):
        taken = queue.take()
        assert taken is not None
        taken[0].close()


def test_a_full_queue_refuses(queue: Handoff) -> None:
    """What cannot be handed on is kept; the descriptor must not be in two hands, or in none."""
    with socket.socket() as sock:
        given = 0
        while queue.give(sock, HandedConnection(1, PEER, 0.0, 0.0, b"x" * 1000)):
            given += 1
        taken = 0
        while (found := queue.take()) is not None:
            found[0].close()
            taken += 1
        assert taken == given > 10


def test_too_much_data_is_refused(queue: Handoff) -> None:
    with socket.socket() as sock:
        assert not queue.give(sock, HandedConnection(1, PEER, 0.0, 0.0, b"x" * (DATA_BYTES + 1)))
        assert queue.take() is None


@pytest.mark.parametrize("peer", [("a", "no port"), ("a", -1), ("a", 1 << 20), ("a" * 256, 1), None])
def test_an_address_of_another_kind_keeps_its_connection_here(queue: Handoff, peer: Any) -> None:
    """A server class may make its own in get_request."""
    with socket.socket() as sock:
        assert not queue.give(sock, HandedConnection(1, peer, 0.0, 0.0, b""))


def test_a_full_queue_says_so_until_something_is_taken(queue: Handoff) -> None:
    with socket.socket() as sock:
        assert not queue.full()
        while queue.give(sock, HandedConnection(1, PEER, 0.0, 0.0, b"x" * 1000)):
            pass
        assert queue.full()
        while (found := queue.take()) is not None:
            found[0].close()
        assert not queue.full()


def test_the_end_of_the_queue_is_told_as_such(queue: Handoff) -> None:
    """A process that runs the application too has shut it: its end could be read again and again."""
    with socket.socket(fileno=os.dup(queue.fileno())) as shut:
        shut.shutdown(socket.SHUT_RDWR)
    with pytest.raises(EOFError, match="has shut it"):
        queue.take()


def test_without_a_free_descriptor_nothing_is_taken(queue: Handoff) -> None:
    """The kernel drops a descriptor that finds no number, and the connection with it: better leave it in the queue."""
    with socket.socket() as sock:
        assert queue.give(sock, HandedConnection(1, PEER, 0.0, 0.0, b""))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(sock.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                queue.take()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        taken = queue.take()
        assert taken is not None
        taken[0].close()


@contextmanager
def refused(data: bytes, numbers: list[int]) -> Iterator[int]:
    """A queue in which another process has put ``data`` with the descriptors ``numbers``; taking that is refused.

    Gives how many descriptors this process had before it was taken.
    """
    give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if numbers:
        socket.send_fds(give, [data], numbers)
    else:
        give.send(data)
    made = Handoff(give.detach(), take.detach())
    before = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(DescriptorLostError):
            made.take()
        yield before
    finally:
        made.close()


def test_a_connection_without_its_descriptor_is_told() -> None:
    """It should not happen; if it does, the log must say so."""
    with refused(b"x" * 40, []):
        pass


def test_a_connection_that_no_worker_has_written_is_told() -> None:
    with socket.socket() as handed, refused(b"x", [handed.fileno()]):
        pass


@pytest.mark.parametrize("count", [1, 2])
def test_a_connection_with_other_descriptors_than_a_connection_leaves_none_behind(count: int) -> None:
    """A worker would end of it, or be left without descriptors."""
    reading, writing = os.pipe()
    try:
        with refused(b"x" * 60, [reading, writing][:count]) as before:
            assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(reading)
        os.close(writing)
