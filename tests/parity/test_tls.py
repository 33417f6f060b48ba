"""TLS as the stdlib's pages have it: an SSLSocket in place of the listener, or made by get_request."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from socketserver import ForkingMixIn, ThreadingMixIn
from types import ModuleType
from typing import Any

import pytest

from harness import BOUND, credentials
from harness.asking import FORKSERVER, PLAIN, Served, refuse
from harness.clients import Wire, request
from harness.worker import wait_until

POST = request("/form", method="POST", body=b"a body")


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [*PLAIN])
    return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))]


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return credentials.server(tmp_path)


def over_tls(address: Any) -> bytes:
    client = http.client.HTTPSConnection(*address, context=credentials.client(), timeout=BOUND)
    try:
        client.request("POST", "/", body=b"a body")
        return client.getresponse().read()
    finally:
        client.close()


@pytest.mark.parametrize("mixins", [(), (ThreadingMixIn,)], ids=["plain", "threads"])
def test_an_ssl_socket_in_place_of_the_listener_serves_tls(
    library: ModuleType, make: Callable[..., Any], tls: ssl.SSLContext, mixins: tuple[type, ...]
) -> None:
    """The page on ssl: httpd.socket = context.wrap_socket(httpd.socket, server_side=True)."""
    httpd = make(echo, server=type("Server", (*mixins, library.WSGIServer), {}))
    httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    with Served(httpd) as served:
        for _ in range(2):
            assert over_tls(served.address) == b"a body"


def test_get_request_may_wrap_in_tls_itself(library: ModuleType, make: Callable[..., Any], tls: ssl.SSLContext) -> None:
    """What the handshake has read already, is not seen from outside: such a connection is served at once."""

    class Server(library.WSGIServer):
        def get_request(self) -> tuple[Any, Any]:
            request, client_address = super().get_request()
            return tls.wrap_socket(request, server_side=True), client_address

    with Served(make(echo, server=Server)) as served:
        for _ in range(2):
            assert over_tls(served.address) == b"a body"


def test_a_client_without_tls_costs_only_itself(
    library: ModuleType, make: Callable[..., Any], tls: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every port on the internet is asked in plain HTTP now and then; that is no error of the server's."""
    httpd = make(echo)
    httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    assert refuse(httpd, b"GET / HTTP/1.0\r\n\r\n") or library is not FORKSERVER
    assert "Traceback" not in capsys.readouterr().err
    with Served(httpd) as served:
        assert over_tls(served.address) == b"a body"


def test_a_client_that_never_shakes_hands_holds_up_no_other(tls: ssl.SSLContext) -> None:
    """In wsgiref it stops the server; here the handshake waits for its first bytes."""
    httpd = FORKSERVER.make_server("127.0.0.1", 0, echo)
    httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    with Served(httpd) as served, Wire(served.address):
        assert over_tls(served.address) == b"a body"


@pytest.mark.parametrize("mixin", [ThreadingMixIn, ForkingMixIn])
def test_a_client_that_stalls_in_its_handshake_holds_up_no_other_thread_or_process(
    tls: ssl.SSLContext, mixin: type
) -> None:
    """Its first byte begins the handshake, which is for the thread or process that serves it."""
    server = type("Server", (mixin, FORKSERVER.WSGIServer), {"daemon_threads": True})
    httpd = FORKSERVER.make_server("127.0.0.1", 0, echo, server_class=server)
    httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    with Served(httpd) as served, Wire(served.address) as stalled:
        stalled.send(b"\x16")
        assert over_tls(served.address) == b"a body"
        stalled.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # else the other has waited for its end
            stalled.socket.recv(1)
        # A close would not do: the process that waits for the handshake was forked from this one, and has this end too.
        stalled.socket.shutdown(socket.SHUT_RDWR)
    # A daemon thread is waited for by no server, and has a socket to close.
    wait_until(lambda: not [each for each in threading.enumerate() if "process_request" in each.name])


def test_a_handshake_that_fails_in_a_thread_is_no_error(
    tls: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> None:
    server = type("Server", (ThreadingMixIn, FORKSERVER.WSGIServer), {})
    httpd = FORKSERVER.make_server("127.0.0.1", 0, echo, server_class=server)
    httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    with Served(httpd) as served:
        with Wire(served.address) as wire:
            wire.send(b"\x16\x03\x01\x00\x05hello")
            assert wire.socket.recv(1) in (b"\x15", b"")  # OpenSSL's alert
        assert over_tls(served.address) == b"a body"
    assert "Traceback" not in capsys.readouterr().err
