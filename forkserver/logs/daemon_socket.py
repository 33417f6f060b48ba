"""Sockets to daemons that log, to which is sent without waiting: of datagrams, and of TCP.

Processes that were forked share the socket, and one of them can connect it elsewhere, or read who writes what by it. So
a process that is to run the application leaves the socket of its parent, which may be root's (``renew``).

A daemon of another machine may be away, or no route lead to it: what is sent finds that out, and nothing waits for it.

By TCP connecting goes on beside the service, and a message for which the kernel has no room is refused, as is one for a
connection that the other end has closed. One that was
taken in part is continued before anything else is sent. A connection that has broken is made anew, at most once in
``_AGAIN_SECONDS``; one that was forked is the parent's, for messages of two processes would mix.

Source: unix(7), udp(7), tcp(7), connect(2), RFC 6587 section 3.4.1 (octet counting).
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN, EBADF, ENOTCONN, EPIPE
from typing import Final

from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.syscalls import monotonic

_AGAIN_SECONDS: Final = 1.0
_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
Address = str | tuple[str, int]  # the path of a Unix socket, or the IP address and port


class DatagramSocket:
    """Sends to the daemon that listens at ``address``.

    Raises OSError where there is none on this machine, unless it may be ``away`` for now.
    """

    def __init__(self, address: Address, away: bool = False) -> None:
        self._address = address
        self._socket = _unconnected(address, socket.SOCK_DGRAM)
        try:
            self.connect()
        except OSError:
            if isinstance(address, str) and not away:
                self._socket.close()
                raise

    def connect(self) -> None:
        """Lead to the daemon that listens now. Raises OSError."""
        self._socket.connect(self._address)

    def send(self, data: bytes) -> None:
        """Send ``data`` as one datagram, at once. Raises OSError."""
        self._socket.send(data, _NOW)

    def renew(self) -> None:
        """In a forked child: have another socket under the same number, connected where the daemon is there now."""
        with _unconnected(self._address, socket.SOCK_DGRAM) as own:
            with suppress(OSError):  # the next datagram finds out, and says so
                own.connect(self._address)
            os.dup2(own.fileno(), self.fileno(), inheritable=False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close this process's copy."""
        self._socket.close()


class StreamSocket:
    """Sends to the daemon at the IP address and port ``address``. ``clock`` gives seconds."""

    def __init__(self, address: tuple[str, int], clock: Callable[[], float] = monotonic) -> None:
        self._address = address
        self._clock = clock
        self._rest = b""  # of a message that was taken in part
        self._begun_at = -math.inf
        self._pid = os.getpid()
        self._socket = _unconnected(address, socket.SOCK_STREAM)
        self._begin()

    def connect(self) -> None:
        """Begin to connect anew. Raises OSError where that was tried a moment ago."""
        if self._clock() < self._begun_at + _AGAIN_SECONDS:
            raise OSError(ENOTCONN, os.strerror(ENOTCONN))
        self._begin_anew()

    def renew(self) -> None:
        """Have a connection of this process's own under the same number."""
        with _unconnected(self._address, socket.SOCK_STREAM) as own:
            os.dup2(own.fileno(), self.fileno(), inheritable=False)
        self._begin()

    def send(self, data: bytes) -> None:
        """Send ``data`` as one message. Raises BlockingIOError where there is no room, else OSError."""
        if self._pid != os.getpid():
            self._begin_anew()
        elif self._has_ended():
            raise BrokenPipeError(EPIPE, os.strerror(EPIPE))
        if self._rest:
            self._rest = self._rest[self._socket.send(self._rest, _NOW) :]
            if self._rest:
                raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        message = b"%d %s" % (len(data), data)
        self._rest = message[self._socket.send(message, _NOW) :]

    def _has_ended(self) -> bool:
        """Whether the other end has closed: the kernel would take one more message, and lose it."""
        try:
            return not self._socket.recv(1, _NOW | socket.MSG_PEEK)
        except OSError:  # nothing has come, or the send will say what is the matter
            return False

    def _begin(self) -> None:
        self._rest, self._begun_at, self._pid = b"", self._clock(), os.getpid()
        self._inode = os.fstat(self.fileno()).st_ino
        self._socket.connect_ex(self._address)  # it goes on; how it ends, the next message finds out

    def _begin_anew(self) -> None:
        # An application that closes all descriptors of its process has other files under their numbers.
        if os.fstat(self.fileno()).st_ino != self._inode:
            raise OSError(EBADF, os.strerror(EBADF))
        self.renew()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close this process's copy; what the kernel has taken is still sent."""
        self._socket.close()


def _unconnected(address: Address, kind: int) -> PlainSocket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return PlainSocket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
