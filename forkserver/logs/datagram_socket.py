"""A socket to a daemon that logs: datagrams without waiting, and one of its own for each process that is not trusted.

Processes that were forked share the socket, and one of them can connect it elsewhere, or read who writes what by it. So
a process that is to run the application leaves the socket of its parent, which may be root's (``renew``).

A daemon of another machine may be away, or no route lead to it: what is sent finds that out, and nothing waits for it.

Source: unix(7), udp(7), connect(2).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from forkserver.linux.sockets.plain_socket import PlainSocket

Address = str | tuple[str, int]  # the path of a Unix socket, or the IP address and port of UDP


class DatagramSocket:
    """Sends to the daemon that listens at ``address``. Raises OSError where there is none on this machine."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket = _unconnected(address)
        try:
            self.connect()
        except OSError:
            if isinstance(address, str):
                self._socket.close()
                raise

    def connect(self) -> None:
        """Lead to the daemon that listens now. Raises OSError."""
        self._socket.connect(self._address)

    def send(self, data: bytes) -> None:
        """Send ``data`` as one datagram, at once. Raises OSError."""
        self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def renew(self) -> None:
        """In a forked child: have another socket under the same number, connected where the daemon is there now."""
        with _unconnected(self._address) as own:
            with suppress(OSError):  # the next datagram finds out, and says so
                own.connect(self._address)
            os.dup2(own.fileno(), self.fileno(), inheritable=False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close this process's copy."""
        self._socket.close()


def _unconnected(address: Address) -> PlainSocket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return PlainSocket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
