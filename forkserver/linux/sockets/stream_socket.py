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
Address = str | tuple[object, ...]  # as bind(2) is given it: a path or a name, or host, port and so on

_REASONS: Final = {
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


def bind_error(name: str, error: OSError, address: Address | None = None) -> BindError:
    """``error`` of a bind to ``name``, with the reason and the way out; ``address`` is what the kernel was given."""
    if error.errno == errno.EADDRINUSE:
        reason = _in_use("" if address is None else holder_of(address))
    else:
        reason = (
            _REASONS.get(error.errno or 0) or f"{(error.strerror or str(error)).lower()}; choose another with --bind"
        )
    return BindError(f"cannot bind {name}: {reason}", error.errno)


def holder_of(address: Address) -> str:
    """The process that listens at ``address``, in words; empty where it is not shown."""
    from forkserver.linux import process_info  # late: for a mistake

    if isinstance(address, str):
        return process_info.listening_at_path(address)
    return process_info.listening_at_port(str(address[0]), int(str(address[1])))


def _in_use(holder: str) -> str:
    """Why an address is in use, which ``holder`` listens at, and how to have it."""
    if not holder:
        return "address already in use; stop the process that holds it (ss -ltnp), or choose another with --bind"
    pid = holder.removeprefix("pid ").split()[0]
    stop = f"stop it (kill {pid})" if pid.isdigit() and pid != "1" else "stop that"
    if "(forkserver: master" in holder:
        stop = f"have it load new code (kill -HUP {pid}), {stop}"
    return f"address already in use by {holder}; {stop}, or choose another with --bind"
