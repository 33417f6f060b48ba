"""An application takes the client's socket: a WebSocket on one of the worker's threads."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.connection.states import READING
from harness import credentials
from harness.websocket import (
    HANDSHAKE,
    SWITCHED,
    Environ,
    Site,
    Start,
    echo,
    is_bad_descriptor,
    open_websocket,
    receive,
)
from harness.worker import StartWorker

GET = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"


def is_longer(things: list[Any], than: int) -> bool:
    return len(things) > than


# Which requests are offered a socket


def test_an_application_speaks_on_the_socket_and_ends_by_stop_iteration(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    server = worker(Site(echo), threads=2)
    client = open_websocket(server)
    for message in (b"one", b"another"):
        client.sendall(message)
        assert receive(server, client, len(message)) == message
    client.shutdown(socket.SHUT_WR)
    assert receive(server, client, 1) == b""
    server.turn_until(lambda: not server.loop.connections)
    assert capfd.readouterr().err == "", "the end of such a call is no fault"


def test_the_access_log_has_status_101_and_what_was_sent(worker: StartWorker) -> None:
    server = worker(Site(echo), threads=2)
    lines = server.access_lines()
    client = open_websocket(server)
    client.sendall(b"four")
    receive(server, client, 4)
    client.close()
    server.turn_until(lambda: lines)
    assert lines[0][2:5] == ("GET /ws?secret=1 HTTP/1.1", 101, len(SWITCHED) + 4)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
    ],
)
def test_other_requests_are_offered_no_socket(worker: StartWorker, head: bytes) -> None:
    """RFC 6455 section 4.2.1 says what a handshake is; Upgrade: h2c is common, and means nothing to us."""
    site = Site(echo)
    server = worker(site, threads=2)
    assert b" 200 OK" in receive(server, server.client(head), 15)
    assert "gunicorn.socket" not in site.environs[0]


def test_a_handshake_on_a_connection_that_has_been_used_is_offered_a_socket(worker: StartWorker) -> None:
    """And the request after an identical header block is not, where the block says nothing of an upgrade."""
    site = Site(None)
    server = worker(site, threads=2)
    client = server.client()
    for head in (GET, GET, HANDSHAKE, GET, HANDSHAKE, HANDSHAKE):
        client.sendall(head)
        seen = len(site.environs)
        server.turn_until(partial(is_longer, site.environs, seen))
        server.turn_until(lambda: [each.state for each in server.loop.connections] == [READING])
    offered = ["gunicorn.socket" in environ for environ in site.environs]
    assert offered == [False, False, True, False, True, True]


def test_an_ordinary_answer_to_a_handshake_leaves_the_connection_as_it_is(worker: StartWorker) -> None:
    """The socket is taken by its first use; looking at it is none, and afterwards it leads nowhere."""
    site = Site(None)
    looked: list[Any] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        if "gunicorn.socket" in environ:
            offered = environ["gunicorn.socket"]
            looked.append((offered.family, offered.timeout, offered.getpeername(), offered.getsockname()))
            looked.append(offered.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
        return site(environ, start_response)

    server = worker(app, threads=2)
    client = server.client(HANDSHAKE)
    assert receive(server, client, 12) == b"HTTP/1.1 200"
    (connection,) = server.loop.connections
    server.turn_until(lambda: connection.state == READING)
    server.until_answered(client)
    client.sendall(GET)
    assert receive(server, client, 12) == b"HTTP/1.1 200"
    assert looked == [
        (socket.AF_INET, None, client.getsockname(), client.getpeername()),
        socket.SOCK_STREAM,
    ]
    offered = site.offered
    assert is_bad_descriptor(lambda: offered.sendall(b"to the next request's client"))
    assert is_bad_descriptor(lambda: offered.recv(1))
    assert is_bad_descriptor(offered.getpeername)
    assert offered.fileno() == -1
    offered.close()
    assert server.loop.connections == {connection}


def test_a_client_that_speaks_before_it_is_answered_is_refused(worker: StartWorker) -> None:
    """RFC 6455 section 4.1: it waits. A library that polls the socket would never see what was read already."""
    site = Site(echo)
    server = worker(site, threads=2)
    assert receive(server, server.client(HANDSHAKE + b"\x81\x80early"), 12) == b"HTTP/1.1 400"
    assert not site.environs


def no_socket(environ: Environ, start_response: Start) -> list[bytes]:
    """As simple-websocket."""
    if "gunicorn.socket" not in environ:
        raise RuntimeError("Cannot obtain socket from WSGI environment.")
    return hello(environ, start_response)


def hello(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def test_with_one_thread_there_is_no_socket_and_the_log_says_once_what_to_do(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    server = worker(no_socket)
    for _ in range(2):
        assert b" 500 " in server.until_answered(server.client(HANDSHAKE))
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "no socket for WebSocket" in line]
    assert ' "GET /ws": no socket for WebSocket: with one thread' in said, "without the query, which may hold secrets"
    assert "--threads N" in said


def test_strangers_do_not_make_the_log_speak_of_websocket(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """A handshake that the application answers as it answers everything says nothing of how many threads it needs."""
    server = worker(hello)
    assert b"hello" in server.until_answered(server.client(HANDSHAKE))
    assert capfd.readouterr().err == ""


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return credentials.server(tmp_path)


def test_in_tls_there_is_no_socket_and_the_log_says_what_to_do(
    worker: StartWorker, tls: ssl.SSLContext, capfd: pytest.CaptureFixture[str]
) -> None:
    """What passes over the socket only OpenSSL can read."""
    server = worker(no_socket, threads=2, tls=tls)
    plain = server.client()
    with credentials.client().wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False) as client:
        attempt(server, client.do_handshake)
        client.sendall(HANDSHAKE)
        assert b" 500 " in attempt(server, lambda: client.recv(4096))
    wait_for_log(server, capfd, "end TLS at a proxy")


def wait_for_log(server: Any, capfd: pytest.CaptureFixture[str], words: str) -> None:
    """The thread of a call may write its line when the answer has gone."""
    said = ""

    def came() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return words in said

    server.turn_until(came)


def attempt(server: Any, do: Callable[[], Any]) -> Any:
    """What ``do`` gives, on a socket that does not block."""
    found: list[Any] = []

    def done() -> bool:
        try:
            found.append(do())
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        return True

    server.turn_until(done)
    return found[0]


# Faults of the application


def test_without_the_socket_stop_iteration_is_a_fault_as_before(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        raise StopIteration

    server = worker(app, threads=2)
    assert receive(server, server.client(HANDSHAKE), 12) == b"HTTP/1.1 500"
    wait_for_log(server, capfd, "the application raised")


def test_what_is_raised_or_returned_after_the_takeover_is_not_sent_to_the_client(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client speaks WebSocket by then: an HTTP answer would be garbage in it."""

    def app(environ: Environ, start_response: Start) -> Any:
        environ["gunicorn.socket"].sendall(SWITCHED)
        if environ["PATH_INFO"] == "/raise":
            raise ValueError("the application's own fault")
        start_response("200 OK", [])
        return {"/list": [b"never"], "/empty": [], "/iterator": iter([b"never"])}[environ["PATH_INFO"]]

    server = worker(app, threads=2)
    for path in (b"/raise", b"/list", b"/empty", b"/iterator"):
        client = server.client(HANDSHAKE.replace(b"/ws?secret=1", path))
        assert receive(server, client, 1000) == SWITCHED
    assert capfd.readouterr().err.count("ValueError: the application's own fault") == 1


def test_a_socket_is_not_to_be_had_when_the_answer_has_begun(worker: StartWorker) -> None:
    """Two protocols at once on one connection would be neither."""
    refused: list[OSError] = []

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        yield b"begun "
        try:
            environ["gunicorn.socket"].sendall(SWITCHED)
        except OSError as error:
            refused.append(error)
        yield b"over"

    server = worker(app, threads=2)
    client = server.client(HANDSHAKE)
    server.turn_until(lambda: refused)
    assert refused[0].errno == errno.EBUSY
    assert server.until_answered(client).endswith(b"begun over")
