"""Bytes that a client has sent and that were not read: they wait in the kernel's receive queue until enough are there.

A thread that waits for many bytes is not woken for each few of them, and the length of the queue is known without
reading it.

The kernel wakes earlier than asked for where its queue is full, memory is short or the client has ended; the waiting
thread must look. A low-water mark makes the kernel widen the connection's window at once, within ``net.ipv4.tcp_rmem``.

Source: socket(7), SO_RCVLOWAT; tcp(7), SIOCINQ and TCP_INFO.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import termios
from array import array
from fcntl import ioctl
from typing import Final

from forkserver.linux import syscalls

_STEP_BYTES: Final = 512 * 1024  # at a time, where not all can stay: the client is to send on while they are read
_LAST_DATA: Final = 52  # struct tcp_info: tcpi_last_data_recv, milliseconds
_INFO: Final = struct.Struct(f"={_LAST_DATA}xI")
_SOUND_SINCE: Final = (5, 12)  # "tcp: fix SO_RCVLOWAT related hangs under mem pressure"


def is_sound(release: str) -> bool:
    """Whether a kernel of ``release``, as uname(2) has it, wakes for many bytes too early where memory is short."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= _SOUND_SINCE


SOUND: Final = is_sound(os.uname().release)


class ReceiveQueue:
    """What waits in the receive queue of ``sock``, a TCP connection."""

    __slots__ = ("_sock", "_stepping", "mark")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stepping = False  # more than the kernel lets stand in the queue
        self.mark = 1

    def wait_for(self, count: int) -> None:
        """Have epoll report the connection at ``count`` bytes, or ``mark`` where they have no room. Raises OSError."""
        if self._stepping:
            count = min(count, _STEP_BYTES)
        if count == self.mark:
            return
        self.mark = self._set(count)
        if self.mark < count:
            self._stepping = True
            self.mark = self._set(min(count, _STEP_BYTES))

    def _set(self, count: int) -> int:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def count(self) -> int:
        """How many bytes can be read. Raises OSError."""
        return _count(self._sock.fileno())

    def idle_seconds(self) -> float:
        """How long ago the client has sent something. Raises OSError."""
        return _seconds(self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))


def waiting_seconds(descriptor: int) -> float:
    """How long, at least, the bytes have waited that can be read from a TCP connection; 0 for none. Raises OSError.

    By ``descriptor``, for a connection without a socket object.
    """
    if not _count(descriptor):  # looked at first: what comes after it makes the time shorter
        return 0.0
    return _seconds(syscalls.socket_option(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))


def _count(descriptor: int) -> int:
    size = array("i", [0])
    ioctl(descriptor, termios.FIONREAD, size)
    return size[0]


def _seconds(info: bytes) -> float:
    milliseconds: int = _INFO.unpack(info)[0]
    return milliseconds / 1000
