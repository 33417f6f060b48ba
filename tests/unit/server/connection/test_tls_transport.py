"""TLS between a connection and a fake socket: OpenSSL's client is in memory, and sends what the test says."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from forkserver.http1.in_the_clear import HINT
from forkserver.server.connection.states import CLOSED, LINGERING, READING
from harness.fakes import FakeLoop
from harness.memory_client import GET, Client


def test_a_request_and_its_answer_are_sealed(client: Client) -> None:
    assert client.ask().endswith(b"GET /path 0")
    assert b"GET /path" not in client.sock.sent
    assert client.connection.state is READING
    assert client.ask(GET.replace(b"/path", b"/next")).endswith(b"GET /next 0")


def test_a_handshake_may_come_byte_by_byte(tls: ssl.SSLContext) -> None:
    client = Client(tls)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    hello = client._outgoing.read()
    for at in range(len(hello)):
        client.loop.send(client.connection, hello[at : at + 1])
    client.shake()
    assert client.ask().endswith(b"GET /path 0")
    client.connection.close()


def test_the_application_learns_of_the_clients_tls(tls: ssl.SSLContext) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    client = Client(tls, FakeLoop(app))
    client.shake()
    client.ask()
    ((https, scheme, version),) = [(each["HTTPS"], each["wsgi.url_scheme"], each["SSL_PROTOCOL"]) for each in seen]
    assert (https, scheme, version) == ("on", "https", client.tls.version())
    client.connection.close()


def test_an_answer_of_several_records_goes_out_in_one_call(tls: ssl.SSLContext) -> None:
    size = 200_000

    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    client = Client(tls, FakeLoop(app))
    client.shake()
    before = client.sock.sends
    assert client.ask().endswith(b"x" * size)
    assert client.sock.sends == before + 1
    client.connection.close()


def test_what_the_client_does_not_take_is_kept_sealed(tls: ssl.SSLContext) -> None:
    size = 600_000

    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    client = Client(tls, FakeLoop(app))
    client.shake()
    client.sock.room = 1000
    got = client.ask()
    while client.connection in client.loop.poller.writing:
        client.sock.room = 100_000
        client.connection.writable(4)
        got += client.read()
    assert got.endswith(b"x" * size)
    assert client.connection.state is READING
    client.connection.close()


def test_a_body_is_opened_as_it_comes(client: Client) -> None:
    client.tls.write(b"POST /path HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    client.pump()
    for _ in range(10):
        client.tls.write(b"x" * 10_000)
        client.pump()
    client.loop.serve()
    assert client.read().endswith(b"POST /path 100000")


def test_a_connection_of_tls_stays_with_the_worker_that_has_read_of_it(tls: ssl.SSLContext) -> None:
    """Its keys are made of that. Until then it is as good in another worker."""
    client = Client(tls)
    assert not client.connection.stays
    client.loop.send(client.connection, b"\x16")
    assert client.connection.stays
    assert not client.connection.can_move


def test_an_orderly_end_has_close_notify_and_one_that_is_cut_off_has_none(tls: ssl.SSLContext) -> None:
    """So the client can tell an end from an interruption (RFC 8446 section 6.1)."""
    orderly, cut, lingering = (Client(tls) for _ in range(3))
    for each in (orderly, cut, lingering):
        each.shake()
        each.ask()
    orderly.connection.close()
    cut.connection.reset()
    lingering.ask(GET[:-2] + b"Connection: close\r\n\r\n")
    assert [each.has_end() for each in (orderly, cut)] == [True, False]
    assert lingering.connection.state in (CLOSED, LINGERING)
    lingering.connection.close()


def test_a_client_that_speaks_http_is_told_so_in_the_clear(tls: ssl.SSLContext) -> None:
    client = Client(tls)
    client.loop.send(client.connection, GET)
    assert bytes(client.sock.sent).startswith(b"HTTP/1.1 400 ")
    assert HINT.encode() in client.sock.sent
    assert client.connection.state is LINGERING


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\0\x05hello", b"\x16" + bytes(100)])
def test_a_handshake_that_fails_ends_with_an_alert(tls: ssl.SSLContext, garbage: bytes) -> None:
    client = Client(tls)
    client.loop.send(client.connection, garbage)
    assert client.connection.state is CLOSED
    assert bytes(client.sock.sent[:1]) in (b"\x15", b"")
    assert not client.loop.access


def test_a_client_that_goes_in_its_handshake_is_closed(tls: ssl.SSLContext) -> None:
    client = Client(tls)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.pump()
    client.sock.ended = True
    client.loop.send(client.connection, b"")
    assert client.connection.state is CLOSED


def test_a_handshake_that_hangs_counts_as_a_head_that_does_not_come(tls: ssl.SSLContext) -> None:
    client = Client(tls, FakeLoop(header_timeout=15.0))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.pump()
    assert client.connection.head_bytes > 0
    client.loop.pass_time(16)
    assert client.connection.state is CLOSED


def test_a_record_that_was_tampered_with_ends_the_connection(client: Client) -> None:
    client.tls.write(GET)
    said = bytearray(client._outgoing.read())
    said[-1] ^= 1
    client.loop.send(client.connection, bytes(said))
    assert client.connection.state is CLOSED
    assert not client.loop.submitted
