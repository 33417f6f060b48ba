"""How fast a client takes what a connection keeps for it.

The kernel's send buffer hides the client: it may take megabytes at once and then report room only when a third is free
again. So what the client has taken is what the kernel was given less what waits there (SIOCOUTQ), and a client that
takes nothing is told by the time since the kernel last sent it data (TCP_INFO).

A client that reads evenly takes lumps all the same: its window opens again when a part of its buffer was read, and a
Unix socket frees whole buffers. At 20 KiB a second nothing is sent for six seconds then.

Source: tcp(7), SIOCOUTQ and TCP_INFO; unix(7), SIOCOUTQ.
"""

from __future__ import annotations

import socket
import struct
import termios
from array import array
from fcntl import ioctl
from math import inf
from typing import Final

from forkserver.linux.sockets.plain_socket import PlainSocket

QUIET_SECONDS: Final = 1.0  # for which nothing was sent to a client that may take nothing at present
LUMP_BYTES: Final = 128 * 1024  # what a client reads before its kernel says that there is room again
_FIRST_SECONDS: Final = 1.0  # in which a client that reads nothing takes what its kernel has room for
_LAST_SENT: Final = 44  # struct tcp_info: tcpi_last_data_sent, milliseconds
_INFO: Final = struct.Struct(f"={_LAST_SENT}xI")
_TCP: Final = (socket.AF_INET, socket.AF_INET6)


class SendRate:
    """The pace of the client of ``sock``, from ``now`` on (CLOCK_MONOTONIC, seconds).

    ``sent`` counts the bytes that the kernel was given since; ``progress_at`` is when ``look`` last found progress.
    """

    __slots__ = ("_at_first", "_counted", "_sock", "began", "looked_at", "progress_at", "sent")

    def __init__(self, sock: socket.socket, now: float) -> None:
        self._sock = sock
        self.began = self.progress_at = self.looked_at = now
        self._at_first = _unsent(sock)
        self._counted = 0
        self.sent = 0

    def taken(self) -> int:
        """Bytes that the client has taken."""
        return max(0, self._at_first + self.sent - _unsent(self._sock))

    def rate(self, now: float) -> float:
        """Bytes a second on average; 0 where the client takes nothing at present, infinity at the very beginning.

        The lump that the client is reading counts as taken, unless it never took as much. It takes nothing at present
        where nothing was sent since its first second, or for longer than two lumps last.
        """
        seconds, taken = now - self.began, self.taken()
        if seconds <= 0:
            return inf
        if not taken:
            return 0.0
        average, quiet = (taken + min(taken, LUMP_BYTES)) / seconds, self._quiet_seconds()
        longer = quiet > seconds - _FIRST_SECONDS or quiet * average >= 2 * LUMP_BYTES
        return 0.0 if quiet >= QUIET_SECONDS and longer else average

    def look(self, now: float, least: float) -> float:
        """When the client last made progress; ``least`` bytes since the progress before make one."""
        taken = self.taken()
        if taken - self._counted >= least:
            self._counted = taken
            self.progress_at = max(self.progress_at, now - self._quiet_seconds())
        return self.progress_at

    def _quiet_seconds(self) -> float:
        """How long ago the kernel has sent data to the client; 0 where it does not say."""
        if type(self._sock) is not PlainSocket or self._sock.family not in _TCP:
            return 0.0
        try:
            told = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        except OSError:  # it is closed
            return 0.0
        milliseconds: int = _INFO.unpack(told)[0]
        return milliseconds / 1000


def _unsent(sock: socket.socket) -> int:
    """Bytes that the kernel has and the client has not acknowledged; 0 where it does not say."""
    size = array("i", [0])
    try:
        ioctl(sock, termios.TIOCOUTQ, size)
    except (OSError, ValueError):  # it is closed, or no kind of socket that says so
        return 0
    return size[0]
