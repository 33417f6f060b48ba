"""How a connection ends whose answer is not whole: by a reset.

A client of HTTP/1.0, such as nginx in its default setting, takes the connection's end for the end of an answer without
Content-Length, so an orderly end would make a part pass for the whole. Where the process is killed, the kernel closes:
so a socket whose end is the body's is set to a reset before the body begins, and to an orderly end when it is whole. A
Unix socket knows no reset, and ends in order.

Source: socket(7) on SO_LINGER; RFC 9112 section 6.3.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any, Final

from forkserver.linux.sockets.plain_socket import PlainSocket

_LINGER: Final = struct.Struct("ii")  # struct linger: whether, and for how many seconds
_AT_ONCE: Final = _LINGER.pack(1, 0)
_IN_ORDER: Final = _LINGER.pack(0, 0)


def reset_at_close(sock: Any) -> None:
    """Have the close of ``sock`` drop what is unsent, and tell the client; a socket that is closed stays as it is."""
    _set_linger(sock, _AT_ONCE)


def close_in_order(sock: Any) -> None:
    """Take back ``reset_at_close``: the answer is whole."""
    _set_linger(sock, _IN_ORDER)


def _set_linger(sock: Any, value: bytes) -> None:
    if isinstance(sock, PlainSocket):
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)


def resets_at_close(sock: Any) -> bool:
    """Whether the close of ``sock`` is going to be a reset."""
    if not isinstance(sock, PlainSocket):
        return False
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size) == _AT_ONCE
    except OSError:  # it is closed
        return False
