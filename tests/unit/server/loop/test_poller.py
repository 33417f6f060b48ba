"""What epoll watches for each connection, and the way to end a wait."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from forkserver.server.loop.poller import Poller
from harness import BOUND


class Watched:
    """A connection on ``sock``."""

    read_mask = select.EPOLLIN

    def __init__(self, sock: socket.socket) -> None:
        self.fd = sock.fileno()
        self.interest = 0
        self.events: list[str] = []

    def readable(self, event: int = 0) -> None:
        self.events.append("readable")

    def writable(self, event: int = 0) -> None:
        self.events.append("writable")


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, client = socket.socketpair()
    yield ours, client
    ours.close()
    client.close()


def turn(poller: Poller, seconds: float = 0) -> int:
    """Call the targets of what is ready; how many there were."""
    events = poller.poll(seconds, 64)
    for fd, event in events:
        poller.targets[fd](event)
    return len(events)


def test_a_connection_is_told_of_what_it_waits_for(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    watched = Watched(pair[0])
    poller.watch_reading(watched)
    assert turn(poller) == 0
    pair[1].send(b"x")
    turn(poller, BOUND)
    poller.watch_writing(watched)
    turn(poller, BOUND)
    poller.watch_reading(watched, lambda _event: watched.events.append("another"))
    turn(poller, BOUND)
    assert watched.events == ["readable", "writable", "another"]


def test_a_suspension_that_an_exception_broke_off_can_be_made_again(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It came right behind the system call."""
    watched = Watched(pair[0])
    poller.watch_reading(watched)
    poller.epoll.unregister(watched.fd)
    poller.suspend(watched)
    assert watched.interest == 0
    assert watched.fd not in poller.targets


def test_what_cannot_be_registered_leaves_no_target(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    number = pair[0].fileno()
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        poller.register(number, select.EPOLLIN, print)
    assert number not in poller.targets


def test_what_is_suspended_is_not_told_until_it_is_watched_again(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    watched = Watched(pair[0])
    poller.watch_reading(watched)
    pair[1].send(b"x")
    for _ in range(2):
        poller.suspend(watched)
        assert turn(poller) == 0
    assert watched.interest == 0
    poller.watch_reading(watched)
    assert turn(poller, BOUND) == 1


def test_a_wait_is_ended_once_by_any_number_of_wakes(poller: Poller) -> None:
    for _ in range(3):
        poller.wake()
    assert turn(poller, BOUND) == 1
    assert turn(poller) == 0


def test_a_callback_watches_a_descriptor_until_it_is_unwatched(poller: Poller) -> None:
    reading, writing = os.pipe()
    called = []
    poller.watch(reading, lambda: called.append(os.read(reading, 1)))
    os.write(writing, b"ab")
    for _ in range(2):
        assert turn(poller, BOUND) == 1
    poller.register_anew(reading, select.EPOLLIN)
    os.write(writing, b"c")
    turn(poller, BOUND)
    poller.unwatch(reading)
    poller.unwatch(reading)
    os.write(writing, b"d")
    assert turn(poller) == 0
    assert called == [b"a", b"b", b"c"]
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("reused", [False, True])
def test_a_descriptor_that_the_application_has_closed_is_forgotten(poller: Poller, reused: bool) -> None:
    reading, writing = os.pipe()
    poller.watch(reading, lambda: None)
    os.close(reading)
    if reused:
        os.dup2(writing, reading)
    poller.unwatch(reading)
    assert reading not in poller.targets
    if reused:
        os.close(reading)
    os.close(writing)


def test_a_wake_after_the_end_does_nothing(poller: Poller) -> None:
    poller.close()
    poller.wake()
    poller.close()
