"""A socket to a daemon that logs: datagrams without waiting, and one of its own for each process that is not trusted.

Processes that were forked share the socket, and one of them can connect it elsewhere, or read who writes what by it. So
a process that is to run the application leaves the socket of its parent, which may be root's (``renew``).

Source: unix(7), connect(2).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from forkserver.linux.sockets.plain_socket import PlainSocket


class DatagramSocket:
    """Sends to the daemon that listens at ``path``. Raises OSError where there is none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = _unconnected()
        try:
            self.connect()
        except OSError:
            self._socket.close()
            raise

    def connect(self) -> None:
        """Lead to the daemon that listens now. Raises OSError."""
        self._socket.connect(self._path)

    def send(self, data: bytes) -> None:
        """Send ``data`` as one datagram, at once. Raises OSError."""
        self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def renew(self) -> None:
        """In a forked child: have another socket under the same number, connected where the daemon is there now."""
        with _unconnected() as own:
            with suppress(OSError):  # the next datagram finds out, and says so
                own.connect(self._path)
            os.dup2(own.fileno(), self.fileno(), inheritable=False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close this process's copy."""
        self._socket.close()


def _unconnected() -> PlainSocket:
    return PlainSocket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
