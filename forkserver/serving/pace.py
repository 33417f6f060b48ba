"""How fast a client takes what a connection keeps for it.

The kernel's send buffer hides the client: it may take megabytes at once and then report room only when a third is free
again. So what the client has taken is what the kernel was given less what waits there (SIOCOUTQ), and a client that
takes nothing is told by the time since the kernel last sent it data (TCP_INFO).

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

QUIET_SECONDS: Final = 1.0  # a client to which nothing was sent for so long takes nothing at present
_LAST_SENT: Final = 44  # struct tcp_info: tcpi_last_data_sent, milliseconds
_INFO: Final = struct.Struct(f"={_LAST_SENT}xI")
_TCP: Final = (socket.AF_INET, socket.AF_INET6)


class Pace:
    """The pace of the client of ``sock``, from ``now`` on (CLOCK_MONOTONIC, seconds).

    ``sent`` counts the bytes that the kernel was given since; ``progress_at`` is when ``look`` last found progress.
    """

    __slots__ = ("_at_first", "_counted", "_sock", "began", "judged_at", "progress_at", "sent")

    def __init__(self, sock: socket.socket, now: float) -> None:
        self._sock = sock
        self.began = self.progress_at = self.judged_at = now
        self._at_first = _unsent(sock)
        self._counted = 0
        self.sent = 0

    def taken(self) -> int:
        """Bytes that the client has taken."""
        return max(0, self._at_first + self.sent - _unsent(self._sock))

    def rate(self, now: float, patience: float = 0.0) -> float:
        """Bytes a second on average; 0 where the client takes nothing at present, infinity at the very beginning.

        With ``patience``, what was taken in the last so many seconds counts as present, if that is longer.
        """
        if now <= self.began:
            return inf
        quiet = self._quiet_seconds() >= max(QUIET_SECONDS, patience)
        return 0.0 if quiet else self.taken() / (now - self.began)

    def look(self, now: float, least: float) -> float:
        """When the client last made progress; ``least`` bytes since the progress before make one."""
        taken = self.taken()
        if taken - self._counted >= least:
            self._counted = taken
            self.progress_at = max(self.progress_at, now - self._quiet_seconds())
        return self.progress_at

    def _quiet_seconds(self) -> float:
        """How long ago the kernel has sent data to the client; 0 where it does not say."""
        if type(self._sock) is not socket.socket or self._sock.family not in _TCP:
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
