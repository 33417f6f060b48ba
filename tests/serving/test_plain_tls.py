"""The plain exchange over TLS: Python opens and seals, and what stands between is the extension's."""

from __future__ import annotations

import gc
import socket
import ssl
import weakref
from pathlib import Path
from typing import Any

import pytest

from forkserver.ipc.scoreboard import ACCELERATED, DECLINED, REQUESTS
from forkserver.server.connection.states import READING
from harness import credentials
from harness.plain_answers import CLOSE, GET, Start, both
from harness.plain_reading import comparable
from harness.sealed_client import SealedClient
from harness.worker import Slow, StartWorker, Worker, wait_until

pytestmark = pytest.mark.extension
SEALED_AT_ONCE = 256 * 1024
VARYING = "REMOTE_PORT", "SERVER_PORT", "wsgi.errors", "forkserver.extend_deadline"  # from one worker to the other


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return credentials.server(tmp_path)


def ask(server: Worker, client: SealedClient, *requests: bytes, turns: int = 3) -> bytes:
    """What is answered to each of them, in turn."""
    found = b""
    for request in requests:
        client.sendall(request)
        for _ in range(turns):
            server.turn()
            try:
                while piece := client.recv(1 << 20):
                    found += piece
            except BlockingIOError:
                continue
            return found + b"<closed>"
    return found


def connect(server: Worker, context: ssl.SSLContext | None = None, **options: Any) -> SealedClient:
    return SealedClient(server.client(**options), server.turn, context)


def counts(server: Worker) -> tuple[int, ...]:
    return tuple(server.row.words[at] for at in (REQUESTS, ACCELERATED, DECLINED))


def test_plain_requests_are_served_and_none_declines(worker: StartWorker, tls: ssl.SSLContext) -> None:
    """One that declines costs twice. The first comes with the end of the handshake."""
    server = worker(tls=tls)
    assert ask(server, connect(server), GET, GET).count(b"GET /a 0") == 2
    assert ask(server, connect(server), CLOSE).endswith(b"GET /a 0<closed>")
    assert counts(server) == (3, 3, 0)


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"


def test_what_is_not_plain_is_counted_and_left_to_the_python_code(worker: StartWorker, tls: ssl.SSLContext) -> None:
    server = worker(tls=tls)
    client = connect(server)
    assert ask(server, client, POST, GET).count(b"200 OK") == 2
    assert counts(server) == (2, 1, 1)
    assert ask(server, client, GET * 2, turns=5).count(b"GET /a 0") == 2
    assert counts(server) == (4, 1, 2)


@pytest.mark.parametrize("shows", [False, True], ids=["no certificate", "a certificate"])
@pytest.mark.parametrize(
    "field", ["X-Own: 1", "X-Forwarded-Proto: http", "X-Forwarded-Proto: https", "X-Forwarded-For: 10.0.0.1"]
)
def test_the_environ_is_the_same(tmp_path: Path, tls: ssl.SSLContext, shows: bool, field: str) -> None:
    tls.load_verify_locations(credentials.authorities(tmp_path))
    tls.verify_mode = ssl.CERT_OPTIONAL
    own = credentials.write(tmp_path, "someone.example", common="someone") if shows else None
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        seen.append([each for each in comparable(environ) if each[0] not in VARYING])
        start_response("200 OK", [])
        return []

    with both(credentials.client(own=own), tls=tls) as pair:
        for told in pair:
            told.ask(app, GET.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % field.encode()))
        assert [told.served for told in pair] == [1, 0]
    assert seen[0] == seen[1]
    found = dict(seen[0])
    assert found["SSL_CLIENT_VERIFY"] == ("SUCCESS" if shows else "NONE")
    assert found["SSL_PROTOCOL"] == "TLSv1.3"
    assert found["wsgi.url_scheme"] == ("http" if field.endswith("http") else "https")
    assert found.get("HTTPS") == (None if field.endswith("http") else "on")


# Of version 2: from 192.0.2.1, whose connection to the proxy is TLS (PP2_TYPE_SSL, PP2_CLIENT_SSL).
INTRODUCED = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 0, 7, 0, 80])
INTRODUCED += b"\x20\0\x05\x01\0\0\0\0"


def test_what_a_proxy_says_by_its_header_is_served_too(worker: StartWorker) -> None:
    seen: list[tuple[str, ...]] = []

    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        seen.append(tuple(environ[name] for name in ("HTTPS", "wsgi.url_scheme", "REMOTE_ADDR")))
        start_response("200 OK", [])
        return []

    server = worker(app, proxy_protocol="on", proxy_allow_ips=["127.0.0.1"])
    client = server.client(INTRODUCED)
    for _ in range(2):
        client.sendall(GET)
        server.until_answered(client)
    assert seen == [("on", "https", "192.0.2.1")] * 2
    assert counts(server) == (2, 2, 0)


@pytest.mark.parametrize("size", [SEALED_AT_ONCE, SEALED_AT_ONCE + 1])
@pytest.mark.parametrize("iterated", [False, True])
def test_a_large_body_is_sealed_piece_by_piece_in_python(
    worker: StartWorker, tls: ssl.SSLContext, size: int, iterated: bool
) -> None:
    """What the client has not taken is not to stand twice in memory."""

    def app(_environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", str(size))])
        return iter([b"x" * size]) if iterated else [b"x" * size]

    server = worker(app, tls=tls)
    assert ask(server, connect(server), GET, turns=9).endswith(b"x" * size)
    assert server.loop.plain is not None
    assert server.loop.plain.served == (size <= SEALED_AT_ONCE)


@pytest.mark.parametrize("iterated", [False, True])
def test_what_the_kernel_does_not_take_follows(worker: StartWorker, tls: ssl.SSLContext, iterated: bool) -> None:
    body = b"".join(b"%09d\n" % number for number in range(20_000))

    def app(_environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return iter([body]) if iterated else [body]

    server = worker(app, tls=tls)
    client = connect(server, receive_buffer=4096)
    server.turn()
    (connection,) = server.loop.connections
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.sendall(GET)
    server.turn()
    assert connection.unsent
    found = b""
    while not found.endswith(body):
        server.turn()
        try:
            found += client.recv(1 << 20)
        except BlockingIOError:
            continue
    assert ask(server, client, GET, turns=30).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_goes_costs_its_answer_alone(worker: StartWorker, app: Slow, tls: ssl.SSLContext) -> None:
    server = worker(app, tls=tls)
    client = connect(server)
    server.turn()
    (connection,) = server.loop.connections

    def go(_environ: dict[str, Any]) -> bytes:
        connection.sock.shutdown(socket.SHUT_WR)  # as EPIPE, which a reset is after a moment
        return b"for a client that has gone"

    app.during = go
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    server.turn(2)
    assert connection.state is not READING, "nor is it asked for another request"
    client.close()
    server.turn(2)
    assert not server.loop.connections
    assert counts(server)[0] == 1
    assert ask(server, connect(server), GET).endswith(b"quick")


def test_a_plain_end_is_told_and_one_that_is_cut_off_is_not(worker: StartWorker, tls: ssl.SSLContext) -> None:
    """RFC 8446 section 6.1: close_notify."""
    server = worker(tls=tls)
    kept, cut = connect(server), connect(server)
    for client in (kept, cut):
        assert ask(server, client, GET).endswith(b"GET /a 0")
    assert ask(server, kept, CLOSE).endswith(b"<closed>")
    (connection,) = server.loop.connections
    connection.reset()
    with pytest.raises((ssl.SSLEOFError, ConnectionError)):
        ask(server, cut, GET)


def test_answers_of_several_threads_do_not_mix(worker: StartWorker, tls: ssl.SSLContext) -> None:
    turn: list[str] = []

    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        turn.append(environ["PATH_INFO"])
        wait_until(lambda: len(turn) % 2 == 0)
        return [environ["PATH_INFO"].encode()]

    server = worker(app, threads=2, tls=tls)
    clients = [connect(server) for _ in range(2)]
    for number, client in enumerate(clients):
        client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    server.turn_until(lambda: server.row.words[REQUESTS] == 2)
    assert [client.recv(1 << 20)[-2:] for client in clients] == [b"/0", b"/1"]
    assert counts(server) == (2, 2, 0)


def test_a_connection_that_is_closed_leaves_no_circle_of_references(worker: StartWorker, tls: ssl.SSLContext) -> None:
    """Each would wait for a collection, with OpenSSL's memory."""
    server = worker(tls=tls)
    client = connect(server)
    ask(server, client, GET)
    (connection,) = server.loop.connections
    gone = weakref.ref(connection.sock)
    del connection
    gc.disable()
    try:
        client.close()
        server.turn(2)
        assert not server.loop.connections
        assert gone() is None
    finally:
        gc.enable()
