"""Where a server listens: ports in use, every interface, IPv6, Unix sockets; and what the errors say."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.validate import validator

import pytest

from harness.asking import FORKSERVER, WSGIREF, ask, ok


def test_a_port_in_use_is_an_oserror_with_its_number(library: ModuleType, make: Callable[..., Any]) -> None:
    httpd = make()
    strict = type("Strict", (library.WSGIServer,), {"allow_reuse_address": False})
    with pytest.raises(OSError, match="in use") as caught:
        library.make_server("127.0.0.1", httpd.server_port, ok, server_class=strict)
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.strerror == os.strerror(errno.EADDRINUSE)
    if library is FORKSERVER:
        assert isinstance(caught.value, FORKSERVER.BindError)
        assert str(caught.value).startswith(f"cannot listen on 127.0.0.1:{httpd.server_port}: ")


def test_an_address_that_cannot_be_is_an_oserror(library: ModuleType) -> None:
    """An address that no interface has (RFC 5737)."""
    with pytest.raises(OSError, match=r"assign|available") as caught:
        library.make_server("192.0.2.1", 0, ok)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_every_interface_is_an_empty_host(make: Callable[..., Any]) -> None:
    httpd = make(host="")
    assert httpd.server_address[0] == "0.0.0.0"
    assert httpd.server_name
    assert ask(httpd).text == "ok"


def test_ipv6_is_an_address_family(library: ModuleType, make: Callable[..., Any]) -> None:
    """wsgiref wants a subclass for it; here the host says enough."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    kept: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept.update(environ)
        return ok(environ, start_response)

    server = type("Server", (library.WSGIServer,), {"address_family": socket.AF_INET6})
    for server_class in [server] if library is WSGIREF else [server, library.WSGIServer]:
        httpd = make(validator(app), server=server_class, host="::1")
        assert ask(httpd).text == "ok"
        assert kept["REMOTE_ADDR"] == "::1"
        assert len(httpd.server_address) == 4


@pytest.mark.parametrize("handler", ["ours", "with a hook", "blocking"])
def test_the_peer_of_a_unix_socket_is_a_tuple(tmp_path: Path, handler: str) -> None:
    """wsgiref fails there with an IndexError, in the log already."""
    seen: list[Any] = []

    class Server(FORKSERVER.WSGIServer):
        address_family = socket.AF_UNIX

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)
            self.server_name, self.server_port = "localhost", 80
            self.setup_environ()

    def get_environ(self: Any) -> dict[str, Any]:
        seen.append(self.client_address)
        return FORKSERVER.WSGIRequestHandler.get_environ(self)

    def setup(self: Any) -> None:
        FORKSERVER.WSGIRequestHandler.setup(self)

    own: dict[str, Any] = {"ours": {}, "with a hook": {"get_environ": get_environ}}.get(
        handler, {"get_environ": get_environ, "setup": setup}
    )
    path = str(tmp_path / "socket")
    with Server(path, type("Handler", (FORKSERVER.WSGIRequestHandler,), own)) as httpd:
        httpd.set_app(validator(ok))
        assert ask(httpd).text == "ok"
        assert seen == ([] if handler == "ours" else [("", 0)])
        with pytest.raises(OSError, match=r"cannot listen on /.*: Address already in use") as caught:
            Server(path, FORKSERVER.WSGIRequestHandler)
        assert caught.value.errno == errno.EADDRINUSE
