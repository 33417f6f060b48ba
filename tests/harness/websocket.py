"""Handshakes for WebSocket, and an application that speaks on the socket it gets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from forkserver.server.connection.states import UPGRADED
from forkserver.server.wsgi.websocket import UpgradedSocket

HANDSHAKE = b"GET /ws?secret=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
Start = Callable[..., Callable[[bytes], object]]
Environ = dict[str, Any]


class Site:
    """An application that gives the socket of each handshake to ``during``, and ends as such libraries do."""

    def __init__(self, during: Callable[[UpgradedSocket], object] | None = None) -> None:
        self.during = during
        self.environs: list[Environ] = []

    def __call__(self, environ: Environ, start_response: Start) -> list[bytes]:
        self.environs.append(environ)
        client: UpgradedSocket | None = environ.get("gunicorn.socket")
        if client is not None and self.during is not None:
            client.sendall(SWITCHED)
            self.during(client)
            raise StopIteration
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    @property
    def offered(self) -> UpgradedSocket:
        found: UpgradedSocket = self.environs[0]["gunicorn.socket"]
        return found


def echo(client: UpgradedSocket) -> None:
    while data := client.recv(4096):
        client.send(data)


def receive(server: Any, client: socket.socket, size: int) -> bytes:
    """``size`` bytes, or what comes before the end."""
    data = b""

    def came() -> bool:
        nonlocal data
        try:
            piece = client.recv(size - len(data))
        except BlockingIOError:
            return False
        data += piece
        return not piece or len(data) == size

    server.turn_until(came)
    return data


def upgraded(server: Any) -> list[Any]:
    return [each for each in server.loop.connections if each.state == UPGRADED]


def open_websocket(server: Any) -> socket.socket:
    """A client whose handshake was answered."""
    client: socket.socket = server.client(HANDSHAKE)
    assert receive(server, client, len(SWITCHED)) == SWITCHED
    return client


def is_bad_descriptor(use: Callable[[], object]) -> bool:
    with pytest.raises(OSError, match="descriptor") as caught:
        use()
    return caught.value.errno == errno.EBADF
