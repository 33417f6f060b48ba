"""What follows a refusal is read and dropped, so that the answer is not overtaken by a reset; it is bounded."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from forkserver.server.connection import connection as connection_room
from forkserver.server.connection.connection import LINGERING

MIB = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEADS = {
    "length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n",
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n",
    "closing": b"POST / HTTP/1.0\r\nConnection: close\r\nContent-Length: 8388608\r\n\r\n",
}
Serve = Callable[..., Any]


def refused(worker: Any, head: bytes = HEADS["length"]) -> socket.socket:
    """A client whose upload was refused, and that has not heard of it yet."""
    client: socket.socket = worker.client(head)
    worker.turn(3)
    (connection,) = worker.loop.connections
    assert connection.state == LINGERING
    return client


def send(worker: Any, client: socket.socket, size: int) -> None:
    """Have ``client`` send ``size`` bytes, as fast as the worker takes them."""
    data = memoryview(bytes(size))
    while data:
        try:
            data = data[client.send(data) :]
        except BlockingIOError:
            worker.turn()


@pytest.mark.parametrize("head", HEADS)
def test_an_upload_that_was_refused_is_read_to_its_end(serve: Serve, head: str) -> None:
    """A proxy writes the whole body before it reads the answer, and makes a 502 of a reset."""
    worker = serve(max_body=MIB)
    client = refused(worker, HEADS[head])
    send(worker, client, 8 * MIB)
    client.shutdown(socket.SHUT_WR)
    answer = worker.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"<closed>")
    for _ in range(1000):  # what is left of the upload is in the kernel's queue
        if not worker.loop.connections:
            return
        worker.turn()
    raise AssertionError("the upload was not read to its end")


def test_an_upload_is_read_to_its_end_where_the_refusal_was_not_taken_at_once(serve: Serve) -> None:
    """The close that follows a drained answer is the same one."""
    worker = serve(max_body=MIB)
    client = worker.client()
    worker.turn(2)
    (connection,) = worker.loop.connections
    send_really, full = connection._send, [True]

    def send_later(data: bytes) -> int:
        if full and full.pop():
            raise BlockingIOError
        return int(send_really(data))

    connection._send = send_later
    client.sendall(HEADS["closing"])
    worker.turn(3)
    assert connection.state == LINGERING
    send(worker, client, 8 * MIB)
    client.shutdown(socket.SHUT_WR)
    answer = worker.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"<closed>")


def test_a_refused_client_that_falls_silent_is_closed_after_five_seconds(serve: Serve) -> None:
    worker = serve(max_body=MIB)
    refused(worker)
    worker.pass_time(4.9)
    assert worker.loop.connections
    worker.pass_time(0.2)
    assert not worker.loop.connections


def test_a_refused_client_that_drips_is_closed_after_thirty_seconds(serve: Serve) -> None:
    """Each byte buys five seconds, but not for ever."""
    worker = serve(max_body=MIB)
    client = refused(worker)
    began = worker.clock.now
    while worker.loop.connections:
        assert worker.clock.now < began + 30
        client.send(b"x")
        worker.turn()
        worker.pass_time(2.0)
    assert worker.clock.now > began + 20


@pytest.mark.parametrize("refused_before", [True, False])
def test_a_stop_waits_two_seconds_for_a_refused_client_that_drips(serve: Serve, refused_before: bool) -> None:
    """Its answer is out; one byte a second from anybody would hold each stop for half a minute."""
    worker = serve(max_body=MIB)
    client = refused(worker) if refused_before else worker.client(HEADS["length"][:-2])
    worker.turn(3)
    worker.httpd.retire(30, handoff=False)
    if not refused_before:
        client.send(b"\r\n")
        worker.turn(3)
    assert [connection.state for connection in worker.loop.connections] == [LINGERING]
    client.send(b"x")
    worker.turn()
    worker.pass_time(1.9)
    assert worker.loop.connections
    client.send(b"x")
    worker.turn()
    worker.pass_time(0.2)
    assert not worker.loop.connections


def test_a_client_that_was_too_slow_gets_no_more_time(serve: Serve) -> None:
    worker = serve(header_timeout=15.0)
    client = worker.client(b"GET / HT")
    worker.turn(2)
    worker.pass_time(16)
    client.send(b"T")
    worker.turn()
    worker.pass_time(2.1)
    assert not worker.loop.connections


def test_what_is_dropped_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_room, "LINGER_BYTES", 100_000)
    worker = serve(max_body=MIB)
    client = refused(worker)
    client.send(bytes(100_000))
    worker.turn(3)
    assert worker.loop.connections
    client.send(b"x")
    worker.turn(2)
    assert not worker.loop.connections


def test_refused_uploads_give_way_where_there_is_no_room(serve: Serve) -> None:
    """A crowd of them must not keep newcomers out, nor drive out connections that are kept."""
    worker = serve(max_body=MIB, worker_connections=2)
    kept = worker.client(GET)
    assert b" 200 " in worker.until_answered(kept, 3)
    sending = worker.client(HEADS["length"])
    worker.turn(3)
    sending.send(bytes(100_000))
    assert b" 200 " in worker.until_answered(worker.client(GET), 5)
    kept.sendall(GET)
    assert b" 200 " in worker.until_answered(kept, 3)
