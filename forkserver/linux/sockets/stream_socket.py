"""Listening stream sockets of any family: their options, and how a failed bind is worded.

Source: socket(7), tcp(7).
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from forkserver.errors import BindError
from forkserver.linux.sockets.plain_socket import PlainSocket

# What the kernel holds of an answer before it is sent: enough to keep a fast client busy. Without it a slow reader
# takes all of tcp_wmem (4 MiB) at once: milliseconds of copying, in which the worker serves no other client (tcp(7)).
_UNSENT_BYTES: Final = 512 * 1024
_REASONS: Final = {
    errno.EADDRINUSE: "address already in use; stop the process that holds it, or choose another with --bind",
    errno.EADDRNOTAVAIL: "no such address on this machine; choose one that `ip address` lists",
}


def new_socket(family: int, name: str) -> socket.socket:
    """A stream socket for the address ``name``. Raises BindError: a reload without a free descriptor is refused."""
    try:
        return PlainSocket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise bind_error(name, error) from None


def prepare(listening: socket.socket) -> None:
    """Set what every listener has: it is closed on exec, does not block, and sends without delay."""
    listening.set_inheritable(False)
    # Non-blocking: a sibling may win an accept between poll and accept.
    listening.setblocking(False)
    if listening.family != socket.AF_UNIX:
        # Connections inherit it from their listener: an answer in two writes must not wait for an ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def bind_error(name: str, error: OSError) -> BindError:
    """``error`` of a bind to ``name``, with the reason and the way out."""
    reason = _REASONS.get(error.errno or 0) or f"{(error.strerror or str(error)).lower()}; choose another with --bind"
    return BindError(f"cannot bind {name}: {reason}", error.errno)
