"""How many connections wait in the kernel to be accepted.

Source: tcp(7) on TCP_INFO, whose ``tcpi_unacked`` this is for a listening socket; sock_diag(7) for Unix sockets.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final, Protocol

from forkserver.linux import syscalls
from forkserver.linux.sockets.plain_socket import PlainSocket

_TCP_INFO: Final = struct.Struct("=24xI")  # tcpi_unacked
_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_SHOW_QUEUE: Final = 0x10  # UDIAG_SHOW_RQLEN
_QUEUE: Final = 4  # UNIX_DIAG_RQLEN
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_ASKED: Final = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_TOLD: Final = struct.Struct("=BBBxIII")  # struct unix_diag_msg
_ATTRIBUTE: Final = struct.Struct("=HH")
_ANY: Final = 0xFFFFFFFF
_ANSWER_BYTES: Final = 4096
_INT_BYTES: Final = 4


class Listening(Protocol):
    """A listening socket, or what holds one."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...


def accepts(descriptor: int) -> bool:
    """Whether it is a socket that listens; takes no lock of the socket. Raises OSError. SO_ACCEPTCONN of socket(7)."""
    told = syscalls.socket_option(descriptor, socket.SOL_SOCKET, socket.SO_ACCEPTCONN, _INT_BYTES)
    return any(told)


def length(listening: Listening) -> int | None:
    """How many connections wait at the ``listening`` socket; None where the kernel does not tell."""
    number = listening.fileno()
    try:
        if listening.family != socket.AF_UNIX:
            if not accepts(number):  # then the kernel takes its lock, which another process may hold
                return None
            told = syscalls.socket_option(number, socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            waiting: int = _TCP_INFO.unpack(told)[0]
            return waiting
        return _of_unix(os.fstat(number).st_ino)
    except OSError:  # a sandbox without sock_diag: AF_NETLINK is refused
        return None


def _of_unix(inode: int) -> int | None:
    body = _ASKED.pack(socket.AF_UNIX, 0, 0, _ANY, inode, _SHOW_QUEUE, _ANY, _ANY)
    with PlainSocket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as link:
        link.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 0, 0) + body)
        answer = link.recv(_ANSWER_BYTES, socket.MSG_DONTWAIT)  # the kernel has answered when send returns
    if len(answer) < _HEADER.size or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None  # an error: the socket is in another network namespace
    at = _HEADER.size + _TOLD.size
    while at + _ATTRIBUTE.size <= len(answer):
        size, kind = _ATTRIBUTE.unpack_from(answer, at)
        if kind == _QUEUE:
            waiting: int = struct.unpack_from("=I", answer, at + _ATTRIBUTE.size)[0]
            return waiting
        at += max(_ATTRIBUTE.size, size + 3 & ~3)
    return None
