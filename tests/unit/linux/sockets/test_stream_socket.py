"""Options of every listening socket, and the words for a bind that failed."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from forkserver.errors import BindError
from forkserver.linux.sockets.stream_socket import bind_error, new_socket
from harness.listening import Connect, Open


def test_a_tcp_listener_is_ready_to_be_shared(opened: Open, connect: Connect) -> None:
    """Not inherited by programs, not blocking an accept that a sibling won, and no delay for small answers."""
    (listener,) = opened("127.0.0.1:0")
    assert not listener.socket.get_inheritable()
    with pytest.raises(BlockingIOError):
        listener.socket.accept()
    connect(listener)
    accepted, _ = listener.socket.accept()
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connections_inherit_what_makes_answers_quick(opened: Open) -> None:
    """No waiting for an ACK between two writes, and no megabytes copied at once for a client that reads slowly."""
    [listener] = opened("127.0.0.1:0")
    with socket.create_connection(listener.socket.getsockname()) as client:
        assert client
        accepted, _ = listener.socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 512 * 1024


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (
            errno.EADDRINUSE,
            "address already in use; stop the process that holds it (ss -ltnp), or choose another with --bind",
        ),
        (errno.EADDRNOTAVAIL, "no such address on this machine; choose one that `ip address` lists"),
        (errno.ENOBUFS, "no buffer space available; choose another with --bind"),
    ],
)
def test_a_failed_bind_is_told_with_the_way_out(number: int, told: str) -> None:
    error = bind_error("[::1]:80", OSError(number, os.strerror(number)))
    assert (str(error), error.errno) == (f"cannot bind [::1]:80: {told}", number)


def test_a_socket_that_cannot_be_had_is_a_failed_bind() -> None:
    """A reload is refused by it, and the service goes on."""
    unknown = 255
    with pytest.raises(BindError, match=r"cannot bind name: address family not supported by protocol; ") as caught:
        new_socket(unknown, "name")
    assert caught.value.errno == errno.EAFNOSUPPORT
