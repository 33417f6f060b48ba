"""The PROXY protocol, as a real HAProxy speaks it, and as others might."""

from __future__ import annotations

import json
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import BOUND, credentials
from harness.clients import Wire
from harness.credentials import Files
from harness.fronts import (
    CLIENT,
    FIELDS,
    PROXY,
    Front,
    ask,
    files_of_both,
    haproxy_fronts,
    seen,
)
from harness.program import StartProgram


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_of_both(tmp_path)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Front]:
    """Start HAProxy in front of a program, on a listener that it inherits; returns where."""
    yield from haproxy_fronts(tmp_path)


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_haproxy_introduces_its_client(program: StartProgram, haproxy: Front, files: Files, version: str) -> None:
    """What the client says in fields is its own word: it is not the proxy that sends them."""
    server = program("raw:app", "-w", "2", *PROXY)
    environ = ask(haproxy(server, "tcp", version))
    assert seen(environ) == (CLIENT, "http")
    assert not set(environ) & FIELDS


def test_version_2_says_that_the_client_came_by_tls(
    program: StartProgram, haproxy: Front, files: Files, tmp_path: Path
) -> None:
    server = program("raw:app", *PROXY)
    front = haproxy(server, "tcp", "send-proxy-v2-ssl", accepts=f" ssl crt {tmp_path}/both.pem")
    assert seen(ask(front, tls=credentials.client())) == (CLIENT, "https")


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_a_proxy_that_passes_tls_through_introduces_its_client(
    program: StartProgram, haproxy: Front, files: Files, version: str
) -> None:
    server = program("raw:app", *PROXY, "--certfile", files.certificate, "--keyfile", files.key)
    environ = ask(haproxy(server, "tcp", version), tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["SSL_PROTOCOL"] == "TLSv1.3"


def test_the_client_of_a_connection_that_is_handed_on_stays_known(program: StartProgram, haproxy: Front) -> None:
    server = program("raw:app", "-w", "2", *PROXY)
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as plain:
        plain.sendall(header)
        with Wire(plain) as wire:
            first = json.loads(wire.get("/environ").text)
            server.reload()
            second = json.loads(wire.get("/environ").text)
    assert first["REMOTE_ADDR"] == second["REMOTE_ADDR"] == "192.0.2.1"
    assert first["pid"] != second["pid"]


@pytest.mark.parametrize("kind", [0x31, 0x00])
def test_a_client_that_the_proxy_cannot_name_has_no_address(program: StartProgram, kind: int) -> None:
    """Not the proxy's own, which may have rights, and what it says of others is its own word."""
    server = program("raw:app", "--forwarded-allow-ips", "*", "--proxy-protocol", "v2")
    payload = bytes(216 if kind == 0x31 else 0)
    header = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, kind, len(payload)) + payload
    environ = ask(server.address, before=header, source="127.0.0.1")
    assert seen(environ) == ("", "http")
    assert not set(environ) & FIELDS


def test_who_may_not_introduce_a_client_is_turned_away(program: StartProgram) -> None:
    """Else any client could be any other; and the log says why, to the person who has set up a new proxy."""
    server = program("raw:app", *PROXY, "--header-timeout", "500ms")
    since = server.log.mark()
    with socket.create_connection(server.address, BOUND, (CLIENT, 0)) as stranger:
        assert _end(stranger, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.log.wait(rf"warning .*turned away {CLIENT}.*not in proxy_allow_ips", since)
    for said in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 1", b""):
        with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as unannounced:
            assert _end(unannounced, said)
    server.log.wait(r"warning .*no PROXY header", since)
    # Byte by byte is not too little.
    whole = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /environ HTTP/1.0\r\n\r\n"
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in whole:
            slow.sendall(bytes([byte]))
        assert b'"REMOTE_ADDR": "192.0.2.1"' in _all(slow)


def _all(client: socket.socket) -> bytes:
    came = b""
    while data := client.recv(65536):
        came += data
    return came


def _end(client: socket.socket, said: bytes) -> bool:
    """Whether the server ends the connection without a word."""
    try:
        client.sendall(said)
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_blocking_handler_has_the_client_too(program: StartProgram) -> None:
    server = program("raw:app", *PROXY, "--handler-class", "wsgiref.simple_server:WSGIRequestHandler")
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /environ HTTP/1.0\r\n\r\n")
        assert b'"REMOTE_ADDR": "192.0.2.1"' in _all(plain)


def test_tls_behind_a_header_is_told_when_its_worker_leaves(program: StartProgram, files: Files) -> None:
    """Once it is introduced a plain connection could be handed on, and would say nothing; one in TLS cannot."""
    server = program("raw:app", *PROXY, "--certfile", files.certificate, "--keyfile", files.key)
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n")
        with Wire(plain, credentials.client()) as wire:
            assert not wire.get().last
            server.send(signal.SIGHUP)
            server.until(lambda: server.workers(2), "a worker of the next generation")
            answer = wire.get()
            while not answer.last:
                answer = wire.get()
            assert wire.ended()
