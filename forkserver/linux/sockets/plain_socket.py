"""Sockets of the class that the standard library had before the application was imported.

An application may put a class of its own in place of ``socket.socket``, as PySocks' documentation says
(``socket.socket = socks.socksocket``). Such a class need not take a descriptor or a type other than SOCK_STREAM, and
its methods may talk to a proxy. ``socket.socketpair`` and ``accept`` look the name up at each call, so neither is used.
"""

from __future__ import annotations

import _socket
import socket

PlainSocket = socket.socket


def socketpair(kind: int) -> tuple[PlainSocket, PlainSocket]:
    """Two Unix sockets of the type ``kind`` that are connected. Raises OSError."""
    ours, theirs = _socket.socketpair(socket.AF_UNIX, kind, 0)
    return _plain(ours, kind), _plain(theirs, kind)


def _plain(made: _socket.socket, kind: int) -> PlainSocket:
    return PlainSocket(socket.AF_UNIX, kind, 0, made.detach())
