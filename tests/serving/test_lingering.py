"""What follows a refusal is read and dropped, so that the answer is not overtaken by a reset; it is bounded."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from forkserver.server.connection import lifecycle
from forkserver.server.connection.states import LINGERING
from harness.worker import StartWorker

MIB = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEADS = {
    "length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n",
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n",
    "closing": b"POST / HTTP/1.0\r\nConnection: close\r\nContent-Length: 8388608\r\n\r\n",
}
Serve = Callable[..., Any]


def refused(server: Any, head: bytes = HEADS["length"]) -> socket.socket:
    """A client whose upload was refused, and that has not heard of it yet."""
    client: socket.socket = server.client(head)
    server.turn(3)
    (connection,) = server.loop.connections
    assert connection.state == LINGERING
    return client


def send(server: Any, client: socket.socket, size: int) -> None:
    """Have ``client`` send ``size`` bytes, as fast as the worker takes them."""
    data = memoryview(bytes(size))
    while data:
        try:
            data = data[client.send(data) :]
        except BlockingIOError:
            server.turn()


@pytest.mark.parametrize("head", HEADS)
def test_an_upload_that_was_refused_is_read_to_its_end(worker: Serve, head: str) -> None:
    """A proxy writes the whole body before it reads the answer, and makes a 502 of a reset."""
    server = worker(max_body=MIB)
    client = refused(server, HEADS[head])
    send(server, client, 8 * MIB)
    client.shutdown(socket.SHUT_WR)
    answer = server.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"<closed>")
    for _ in range(1000):  # what is left of the upload is in the kernel's queue
        if not server.loop.connections:
            return
        server.turn()
    raise AssertionError("the upload was not read to its end")


def test_an_upload_is_read_to_its_end_where_the_refusal_was_not_taken_at_once(worker: Serve) -> None:
    """The close that follows a drained answer is the same one."""
    server = worker(max_body=MIB)
    client = server.client()
    server.turn(2)
    (connection,) = server.loop.connections
    send_really, full = connection.transport._send, [True]

    def send_later(data: bytes) -> int:
        if full and full.pop():
            raise BlockingIOError
        return int(send_really(data))

    connection.transport._send = send_later
    client.sendall(HEADS["closing"])
    server.turn(3)
    assert connection.state == LINGERING
    send(server, client, 8 * MIB)
    client.shutdown(socket.SHUT_WR)
    answer = server.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"<closed>")


def test_a_refused_client_that_falls_silent_is_closed_after_five_seconds(worker: Serve) -> None:
    server = worker(max_body=MIB)
    refused(server)
    server.pass_time(4.9)
    assert server.loop.connections
    server.pass_time(0.2)
    assert not server.loop.connections


def test_a_refused_client_that_drips_is_closed_after_thirty_seconds(worker: Serve) -> None:
    """Each byte buys five seconds, but not for ever."""
    server = worker(max_body=MIB)
    client = refused(server)
    began = server.clock.now
    while server.loop.connections:
        assert server.clock.now < began + 30
        client.send(b"x")
        server.turn()
        server.pass_time(2.0)
    assert server.clock.now > began + 20


@pytest.mark.parametrize("refused_before", [True, False])
def test_a_stop_waits_two_seconds_for_a_refused_client_that_drips(worker: Serve, refused_before: bool) -> None:
    """Its answer is out; one byte a second from any client would hold each stop for half a minute."""
    server = worker(max_body=MIB)
    client = refused(server) if refused_before else server.client(HEADS["length"][:-2])
    server.turn(3)
    server.httpd.retire(30, handoff=False)
    if not refused_before:
        client.send(b"\r\n")
        server.turn(3)
    assert [connection.state for connection in server.loop.connections] == [LINGERING]
    client.send(b"x")
    server.turn()
    server.pass_time(1.9)
    assert server.loop.connections
    client.send(b"x")
    server.turn()
    server.pass_time(0.2)
    assert not server.loop.connections


def test_a_client_that_was_too_slow_gets_no_more_time(worker: Serve) -> None:
    server = worker(header_timeout=15.0)
    client = server.client(b"GET / HT")
    server.turn(2)
    server.pass_time(16)
    client.send(b"T")
    server.turn()
    server.pass_time(2.1)
    assert not server.loop.connections


def test_what_is_dropped_is_bounded(worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "LINGER_BYTES", 100_000)
    server = worker(max_body=MIB)
    client = refused(server)
    client.send(bytes(100_000))
    server.turn(3)
    assert server.loop.connections
    client.send(b"x")
    server.turn(2)
    assert not server.loop.connections


def test_refused_uploads_give_way_where_there_is_no_room(worker: Serve) -> None:
    """A crowd of them must not keep newcomers out, nor drive out connections that are kept."""
    server = worker(max_body=MIB, worker_connections=2)
    kept = server.client(GET)
    assert b" 200 " in server.until_answered(kept, 3)
    sending = server.client(HEADS["length"])
    server.turn(3)
    sending.send(bytes(100_000))
    assert b" 200 " in server.until_answered(server.client(GET), 5)
    kept.sendall(GET)
    assert b" 200 " in server.until_answered(kept, 3)


def test_stray_bytes_do_not_turn_a_close_into_a_reset(worker: StartWorker) -> None:
    """Old clients send CRLF after a body; the answer must reach them whole."""
    client: Any = None
    body = b"y" * 200_000

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        client.sendall(b"\r\n")
        start_response("200 OK", [])
        return [body]

    server = worker(app)
    client = server.client(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
    answer = server.until_answered(client, 200)
    assert answer.endswith(b"y<closed>")
    assert answer.partition(b"\r\n\r\n")[2] == body + b"<closed>"
