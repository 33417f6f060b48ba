"""The client's socket for an application that speaks WebSocket itself: ``environ["gunicorn.socket"]``.

Libraries for WebSocket on threads (simple-websocket, and with it Flask-Sock and Flask-SocketIO) look for the socket
under this name, speak the protocol on it as long as the call lasts, and end the call by StopIteration. The socket is
offered with a WebSocket handshake; its first use takes the connection out of the loop. A request that the application
answers in the ordinary way is therefore not touched.

Numbers of descriptors are reused: a number that a thread still has in hand must not become another client's. So each
operation passes through this object, which counts those in progress. The end of the call shuts the socket down, which
ends them. The descriptor is closed when none is left and, where ``fileno`` has given its number away, when the
application has closed the object too, or has dropped it.

Source: RFC 6455 section 4.2.1; recv(2), shutdown(2), close(2) "Multithreaded processes and close()", tcp(7).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from errno import EBADF
from typing import Any, Final, Protocol, TypeVar

from forkserver.linux.common.safe_lock import SafeLock
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.server.threads.loop_lock import LoopLock

T = TypeVar("T")
SOCKET: Final = "gunicorn.socket"
_TCP: Final = (socket.AF_INET, socket.AF_INET6)
_PROBE_SECONDS: Final = 15  # between two probes of a silent client
_MOST_PROBES: Final = 8


class SocketOwner(Protocol):
    """The connection."""

    @property
    def loop_lock(self) -> LoopLock:
        """Held around ``detach``."""

    def detach(self) -> None:
        """Leave the socket to the application, blocking. Raises OSError where that cannot be any more."""


class UpgradedSocket:
    """A connected, blocking stream socket with the methods of ``socket.socket`` that libraries for WebSocket use.

    ``sent`` counts the bytes that the application has sent. Every method but ``getpeername``, ``getsockname`` and
    ``getsockopt`` takes the connection over, and raises OSError where that is not possible.
    """

    def __init__(self, owner: SocketOwner, sock: socket.socket) -> None:
        self.family, self.type, self.proto = sock.family, sock.type, sock.proto
        self.sent = 0
        self._loop_lock = owner.loop_lock
        self._owner: SocketOwner | None = owner  # that may still be asked to detach
        self._sock: socket.socket | None = sock
        self._lock = SafeLock()  # may be taken with the loop lock; the loop lock is not taken with it
        self._using = 0  # operations in progress
        self._number_given = False
        self._taken = False
        self._closed = False  # by the application
        self._over = False  # the call has ended

    # For the application: as the methods of socket.socket

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        return self._use(PlainSocket.recv, bufsize, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return self._use(PlainSocket.recv_into, buffer, nbytes, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send all of ``data`` where there is no timeout: libraries do not look at the count."""
        size = self._use(_send, data, flags)
        self._count(size)
        return size

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._use(PlainSocket.sendall, data, flags)
        self._count(memoryview(data).nbytes)

    def shutdown(self, how: int) -> None:
        self._use(PlainSocket.shutdown, how)

    def setsockopt(self, *option: Any) -> None:
        self._use(PlainSocket.setsockopt, *option)

    def settimeout(self, value: float | None) -> None:
        self._use(PlainSocket.settimeout, value)

    def setblocking(self, flag: bool) -> None:
        self._use(PlainSocket.setblocking, flag)

    def gettimeout(self) -> float | None:
        """None before the first use, then as socket.gettimeout."""
        return self._sock.gettimeout() if self._taken and self._sock is not None else None

    timeout = property(gettimeout)

    def getpeername(self) -> Any:
        return self._look(PlainSocket.getpeername)

    def getsockname(self) -> Any:
        return self._look(PlainSocket.getsockname)

    def getsockopt(self, *option: int) -> Any:
        return self._look(PlainSocket.getsockopt, *option)

    def fileno(self) -> int:
        """The number of the descriptor, or -1 where the call is over or the object is closed.

        It stays this connection's until the object is closed or dropped.
        """
        try:
            self._take()
        except OSError:
            return -1
        self._lock.taken  # noqa: B018
        try:
            if self._sock is None or self._closed or (self._over and not self._number_given):
                return -1
            self._number_given = True
            return self._sock.fileno()
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the connection; the descriptor is given back when the call has ended. Closing twice is once."""
        try:
            self._take()
        except OSError:
            return
        self._lock.taken  # noqa: B018
        try:
            self._closed = True
            self._shut_down()
            self._give_back()
        finally:
            self._lock.release()

    def __enter__(self) -> UpgradedSocket:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The object was dropped, with the number that it has given away. No lock: this may run anywhere.
        if self._taken and self._sock is not None:
            self._sock.close()

    # For the connection, with the loop lock

    def end(self) -> bool:
        """The call is over, or the connection is to end now; whether the descriptor is closed from here."""
        self._owner = None
        self._lock.taken  # noqa: B018
        try:
            self._over = True
            if not self._taken:
                self._sock = None
                return False
            self._shut_down()
            self._give_back()
            return True
        finally:
            self._lock.release()

    # Within

    def _take(self) -> None:
        if self._taken:
            return
        self._loop_lock.taken  # noqa: B018
        try:
            if not self._taken:
                if self._owner is None:
                    raise _bad_descriptor()
                self._owner.detach()
                self._taken = True
        finally:
            self._loop_lock.release()

    def _use(self, operate: Callable[..., T], *args: Any) -> T:
        """What ``operate`` gives for the socket, counted as an operation in progress."""
        self._take()
        self._lock.taken  # noqa: B018
        try:
            sock = self._open_socket()
            self._using += 1
        finally:
            self._lock.release()
        try:
            return operate(sock, *args)
        finally:
            self._lock.taken  # noqa: B018
            try:
                self._using -= 1
                self._give_back()
            finally:
                self._lock.release()

    def _look(self, ask: Callable[..., T], *args: Any) -> T:
        """What ``ask`` gives for the socket, which stays as it is."""
        self._loop_lock.taken  # noqa: B018
        try:
            self._lock.taken  # noqa: B018
            try:  # so that neither the loop nor another thread closes it meanwhile
                return ask(self._open_socket(), *args)
            finally:
                self._lock.release()
        finally:
            self._loop_lock.release()

    def _open_socket(self) -> socket.socket:
        if self._sock is None or self._closed:
            raise _bad_descriptor()
        return self._sock

    def _count(self, size: int) -> None:
        self._lock.taken  # noqa: B018
        try:
            self.sent += size
        finally:
            self._lock.release()

    def _shut_down(self) -> None:
        """Wake every thread that waits on the socket, and tell the client. Caller holds the lock."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client has gone, or it was done before
                pass

    def _give_back(self) -> None:
        """Close the descriptor if no number of it can be in use. Caller holds the lock."""
        if self._over and not self._using and (self._closed or not self._number_given) and self._sock is not None:
            self._sock.close()
            self._sock = None


def end_silence(sock: socket.socket, seconds: float) -> None:
    """Have a TCP client noticed that takes nothing for ``seconds``, or is not there any more (tcp(7))."""
    if sock.family not in _TCP:
        return
    milliseconds = round(min(seconds, 86400.0) * 1000)
    probe = max(1, min(_PROBE_SECONDS, round(seconds / 2)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _MOST_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _send(sock: socket.socket, data: Any, flags: int) -> int:
    if flags or sock.gettimeout() is not None:
        return sock.send(data, flags)
    sock.sendall(data)
    return memoryview(data).nbytes


def _bad_descriptor() -> OSError:
    return OSError(EBADF, os.strerror(EBADF))
