"""Sockets of the class that the standard library had before the application was imported.

An application may put a class of its own in place of ``socket.socket``, as PySocks' documentation says
(``socket.socket = socks.socksocket``). Such a class need not take a descriptor or a type other than SOCK_STREAM, and
its methods may talk to a proxy. ``socket.socketpair`` and ``accept`` look the name up at each call, so neither is used.
"""

from __future__ import annotations

import _socket
import socket
from typing import Protocol

PlainSocket = socket.socket


class Closable(Protocol):
    """A socket, or what holds one."""

    def close(self) -> None: ...


class Accepted(Protocol):
    """A descriptor of a connection that does not block, and the family, type and protocol for its socket."""

    @property
    def kind(self) -> tuple[int, int, int]: ...
    def fileno(self) -> int: ...
    def detach(self) -> int: ...


def socketpair(kind: int) -> tuple[PlainSocket, PlainSocket]:
    """Two Unix sockets of the type ``kind`` that are connected. Raises OSError."""
    ours, theirs = _socket.socketpair(socket.AF_UNIX, kind, 0)
    return _plain(ours, kind), _plain(theirs, kind)


def of_accepted(accepted: Accepted) -> PlainSocket:
    """The socket of a connection that was accepted without one; a closed one where it is closed. Raises OSError."""
    family, kind, proto = accepted.kind
    if (number := accepted.fileno()) < 0:
        made = PlainSocket(family, kind, proto)
        made.close()
        return made
    made = PlainSocket(family, kind | socket.SOCK_NONBLOCK, proto, number)
    accepted.detach()
    return made


def _plain(made: _socket.socket, kind: int) -> PlainSocket:
    return PlainSocket(socket.AF_UNIX, kind, 0, made.detach())
