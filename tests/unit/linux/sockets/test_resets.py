"""A connection whose answer is not whole ends by a reset."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from forkserver.linux.sockets.resets import close_in_order, reset_at_close, resets_at_close


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        server, _ = listening.accept()
        with server:
            yield server, client


def test_a_client_sees_a_reset_and_no_end(connection: tuple[socket.socket, socket.socket]) -> None:
    """The end would pass a part for the whole answer, where the length is not known."""
    server, client = connection
    reset_at_close(server)
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_an_answer_that_turns_out_whole_ends_in_order(connection: tuple[socket.socket, socket.socket]) -> None:
    server, client = connection
    reset_at_close(server)
    server.sendall(b"whole")
    close_in_order(server)
    server.close()
    with client.makefile("rb") as stream:
        assert stream.read() == b"whole"


def test_it_can_be_seen_before_the_close(connection: tuple[socket.socket, socket.socket]) -> None:
    server, _ = connection
    assert not resets_at_close(server)
    reset_at_close(server)
    assert resets_at_close(server)


def test_a_socket_that_is_closed_stays_as_it_is() -> None:
    closed = socket.socket()
    closed.close()
    reset_at_close(closed)
    assert not resets_at_close(closed)


def test_what_only_resembles_a_socket_is_left_alone() -> None:
    """An application's get_request() may return anything."""
    reset_at_close(object())
    assert not resets_at_close(object())
