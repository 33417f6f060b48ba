"""From the kernel's queue to a connection of this worker.

It promises that workers take turns, and that a worker with too many connections, or none to be had for want of
descriptors or memory, leaves them in the queue and does not spin. It refuses to know what a connection says.

Source: accept(2), epoll(7).
"""

from __future__ import annotations

import select
import socket
import ssl
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import TYPE_CHECKING, Any, Final

from forkserver.scoreboard import ACCEPTED
from forkserver.serving.connection import BODY, READING, Connection

if TYPE_CHECKING:
    from forkserver.serving.loop import Loop

_RETRY_SECONDS: Final = 1.0  # accepting paused for want of descriptors or memory tries again
_EXHAUSTED: Final = frozenset((EMFILE, ENFILE, ENOBUFS, ENOMEM))
_DRAIN_ACCEPTS: Final = 4096  # a retiring worker takes at most so many from the queue; its siblings take the rest


class Listener:
    """A listening socket, and the names of its address where ``base_environ`` does not have them."""

    __slots__ = ("names", "sock")

    def __init__(self, sock: socket.socket, names: tuple[str, str] | None = None) -> None:
        self.sock = sock
        self.names = names


class Acceptor:
    """A loop's listeners. ``siblings``: other processes accept from them too."""

    def __init__(self, loop: Loop, connection_class: type[Connection], siblings: bool) -> None:
        self._loop = loop
        self._make = connection_class
        self._siblings = siblings
        self._mask = select.EPOLLIN | (select.EPOLLEXCLUSIVE if siblings else 0)
        self.listeners: list[Listener] = []
        self.accepting = False
        self.paused = False  # for want of something; to be started again when it is there
        self.crowded = False  # for want of an idle connection to close

    def start(self) -> None:
        """Listen to the listeners."""
        if self.accepting:
            return
        self.accepting = True
        self.paused = self.crowded = False
        for listener in self.listeners:
            self._loop.register(listener.sock.fileno(), self._mask, _Accept(self, listener))

    def stop(self) -> None:
        """Take the listeners out; connections wait in the kernel's queue, for a sibling or for later."""
        self.paused = self.crowded = False
        if not self.accepting:
            return
        self.accepting = False
        for listener in self.listeners:
            self._loop.unwatch(listener.sock.fileno())

    def _pause(self) -> None:
        self.stop()
        self.paused = True

    def take(self, listener: Listener) -> Connection | None:
        """Take one connection from ``listener``; None where there is none to take."""
        loop = self._loop
        try:
            sock, peer = self._accept(listener)
        except BlockingIOError:
            return None  # a sibling was quicker
        except OSError as error:
            self._failed(error)
            return None
        if not isinstance(peer, tuple):
            peer = ("", 0)  # a Unix socket's client has no address; handlers index a tuple
        connection = self._make(loop, sock, peer, listener)
        if type(sock) is socket.socket:
            sock.setblocking(False)
        loop.connections.add(connection)
        if loop.row is not None:
            loop.row.words[ACCEPTED] += 1
        return connection

    def _accept(self, listener: Listener) -> tuple[socket.socket, Any]:
        server = self._loop.server
        if self._loop.hooks.get_request:
            server.socket = listener.sock
            return server.get_request()
        if isinstance(listener.sock, ssl.SSLSocket):
            return socket.socket.accept(listener.sock)  # plain: a handshake would wait for the client
        return listener.sock.accept()

    def take_and_serve(self, listener: Listener) -> None:
        """Take one connection and serve it at once where its request has come with it."""
        loop = self._loop
        if len(loop.connections) >= loop.settings.worker_connections and not loop.close_an_idle_one():
            self._pause()
            self.crowded = True
            return
        connection = self.take(listener)
        if connection is None:
            return
        if self._siblings and self.accepting:
            self._go_behind(listener)
        loop.guard(connection, self.begin, connection)

    def begin(self, connection: Connection) -> None:
        """Read without asking epoll first: most clients send their request with the connection."""
        loop = self._loop
        if loop.hooks.verify_request and not loop.server.verify_request(connection.sock, connection.peer):
            connection.turn_away()
            return
        connection.readable()
        if connection.state == READING and connection.queue is None:
            connection.wait_in(loop.heads)
        if connection.state in (READING, BODY) and not connection.interest:
            loop.watch_reading(connection)

    def drain(self) -> None:
        """Take what is queued, so that no wake-up this worker got is lost for its siblings, and leave."""
        self.stop()
        for listener in self.listeners:
            for _ in range(_DRAIN_ACCEPTS):
                connection = self.take(listener)
                if connection is None:
                    break
                self._loop.guard(connection, self.begin, connection)
        self.drop()

    def drop(self) -> None:
        """Close the listeners."""
        self.stop()
        for listener in self.listeners:
            listener.sock.close()
        self.listeners = []

    def _go_behind(self, listener: Listener) -> None:
        """EPOLLEXCLUSIVE wakes the first that is registered: take turns by registering anew."""
        fd = listener.sock.fileno()
        self._loop.unwatch(fd)
        self._loop.register(fd, self._mask, _Accept(self, listener))

    def _failed(self, error: OSError) -> None:
        loop = self._loop
        if error.errno not in _EXHAUSTED:
            loop.log.debug(f"a connection was gone before it was accepted: {error}")
            return
        loop.log.warning(f"cannot accept: {error}; trying again in {_RETRY_SECONDS:g} s or when a connection closes")
        self._pause()
        loop.resume_accepting_after(_RETRY_SECONDS)


class _Accept:
    """The target of a listener's events."""

    __slots__ = ("_acceptor", "_listener")

    def __init__(self, acceptor: Acceptor, listener: Listener) -> None:
        self._acceptor = acceptor
        self._listener = listener

    def __call__(self, _event: int) -> None:
        self._acceptor.take_and_serve(self._listener)
