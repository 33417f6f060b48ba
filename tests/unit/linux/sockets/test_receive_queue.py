"""What waits in the kernel's receive queue, and whether the kernel can be asked to wake us for many bytes only."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from forkserver.linux.sockets import receive_queue
from forkserver.linux.sockets.receive_queue import ReceiveQueue, waiting_seconds
from harness.worker import wait_until


@pytest.mark.parametrize(
    ("release", "sound"),
    [
        ("6.1.0-30-amd64", True),
        ("5.12.0", True),
        ("5.11.22-generic", False),
        ("4.18.0-553.el8", False),
        ("5.4+", False),
        ("odd", False),
    ],
)
def test_a_kernel_that_may_forget_to_wake_us_is_not_asked(release: str, sound: bool) -> None:
    """A body would wait there until its deadline."""
    assert receive_queue.is_sound(release) == sound


def test_this_kernel_is_looked_at() -> None:
    assert receive_queue.is_sound(os.uname().release) == receive_queue.SOUND


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted


def test_a_mark_that_the_kernel_does_not_grant_is_taken_in_steps(pair: tuple[socket.socket, socket.socket]) -> None:
    """Else a worker that waits for all of a body waits for more than its queue can hold."""
    _, accepted = pair
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)  # the kernel widens it no further then
    queue = ReceiveQueue(accepted)
    queue.wait_for(10_000_000)
    assert queue.mark <= 16 * 1024


def test_a_client_that_sent_something_just_now_is_not_idle(pair: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = pair
    client.sendall(b"x" * 10)
    select.select([accepted], [], [], 10)
    queue = ReceiveQueue(accepted)
    assert queue.count() == 10
    assert queue.idle_seconds() < 10


def test_what_a_client_has_sent_has_waited_since_it_came(pair: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = pair
    client.sendall(b"x" * 10)
    wait_until(lambda: waiting_seconds(accepted.fileno()) >= 0.03)
    accepted.recv(10)
    assert waiting_seconds(accepted.fileno()) == 0, "a client that says nothing does not wait"


def test_what_is_no_tcp_connection_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x")
        with pytest.raises(OSError, match="not supported"):
            waiting_seconds(ours.fileno())
