"""The ways to accept a connection: by the extension, by the standard library, or by the server's ``get_request``.

The extension gives a descriptor that does not block, the client's address, and what each request says of it; a socket
is made of it when something else needs one. The standard library's accept(2) is followed by two system calls more: one
for the family of the socket, and one so that it does not block.

Source: accept(2), socketserver.BaseServer.get_request.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.server.connection.connection import Connection
from forkserver.server.loop.listener import IPV4_PARTS, Listener, client_address
from forkserver.server.loop.protocols import WorkerLoop
from forkserver.server.pressure.accept_delay import AcceptDelay


class ConnectionFactory:
    """Accepts connections of ``loop``, and makes a ``connection_class`` of each."""

    def __init__(self, loop: WorkerLoop, connection_class: type[Connection]) -> None:
        self._loop = loop
        self.make = connection_class
        self._delay = AcceptDelay()
        self._accept: Callable[[Listener], tuple[socket.socket, Any]]
        self._accept = self._get_request if loop.context.hooks.get_request else Listener.accept

    def accept(self, listener: Listener) -> Connection | None:
        """The connection of a client that waits at ``listener``; None where none does. Raises OSError."""
        loop, extension = self._loop, self._loop.plain
        if extension is None or listener.plain_kind is None:
            if (connection := self._accept_socket(listener)) is None:
                return None
        elif (accepted := listener.accept_plain(extension, listener.plain_kind)) is None:
            return None
        else:
            connection = self.make(loop, None, accepted.peer, listener, accepted)
        if loop.timeouts.now >= self._delay.look_at and not listener.unix:
            self._delay.measure(connection, loop.timeouts.now)
        return connection

    def _accept_socket(self, listener: Listener) -> Connection | None:
        try:
            sock, peer = self._accept(listener)
        except BlockingIOError:
            return None
        if type(peer) is not tuple or len(peer) != IPV4_PARTS:
            peer = client_address(peer)
        connection = self.make(self._loop, sock, peer, listener)
        if type(sock) is PlainSocket:
            sock.setblocking(False)
        return connection

    def _get_request(self, listener: Listener) -> tuple[socket.socket, Any]:
        """As ``Listener.accept``, by the server's hook."""
        self._loop.context.server.socket = listener.sock
        with self._loop.calls.in_hook(b"get_request"):
            accepted: tuple[socket.socket, Any] = self._loop.context.server.get_request()
        return accepted
