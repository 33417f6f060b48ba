"""Opening the listeners of a server: addresses of ``bind``, or the descriptors that systemd passed.

Either all of them are open in the end, or none.

Source: socket(7), sd_listen_fds(3).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Final

from forkserver.errors import BindError, UnfitSocketError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.socket_file import ABSTRACT
from forkserver.linux.sockets.stream_socket import prepare
from forkserver.linux.sockets.tcp_socket import EVERY_INTERFACE, bind_every_interface, bind_tcp
from forkserver.linux.sockets.unix_socket import bind_abstract, bind_unix

_LAST_PORT: Final = 65535
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def open_all(
    bind: Iterable[str],
    passed: Iterable[tuple[int, str]],
    backlog: int,
    mode: int,
    credentials: Credentials,
    beside: Iterable[str] = (),
    more_ports: int = 0,
) -> list[ListeningSocket]:
    """The listeners to serve: those ``passed`` by systemd, or where it gave none, those that ``bind`` names.

    ``mode`` and the user and group of ``credentials`` go to own Unix sockets; ``beside`` are addresses served too.
    Where a TCP port is in use, up to ``more_ports`` that follow it are tried. Raises BindError, with nothing left open.
    """
    binds = list(bind)
    together = [*binds, *beside]
    opened: list[ListeningSocket] = []
    try:
        # One by one onto the list, so that what is open can be closed where a later one fails.
        opened += (inherited(number, f"systemd's {name} (descriptor {number})") for number, name in passed)
        if not opened:
            opened += (_open(address, together, backlog, mode, credentials, more_ports) for address in binds)
    except BaseException:
        for listener in opened:
            listener.unlink()
            listener.close()
        raise
    return opened


def _open(
    address: str, binds: list[str], backlog: int, mode: int, credentials: Credentials, more_ports: int
) -> ListeningSocket:
    if address.startswith("fd://"):
        return inherited(int(address[5:]), address)
    if address.startswith(ABSTRACT):
        return bind_abstract(address, backlog)
    if address.startswith("unix:"):
        return bind_unix(os.path.abspath(address[5:]), backlog, mode, credentials)
    bind = bind_every_interface if address.startswith(f"{EVERY_INTERFACE}:") else bind_tcp
    for other in _following(address, more_ports):
        try:
            return bind(other, binds, backlog)
        except BindError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return bind(address, binds, backlog)


def _following(address: str, count: int) -> Iterator[str]:
    """``address`` and those with the ``count`` ports behind its own; none where ``count`` is 0."""
    host, _, port = address.rpartition(":")
    last = min(int(port) + count, _LAST_PORT)
    return (f"{host}:{each}" for each in range(int(port), last + 1 if count else 0))


def inherited(number: int, name: str) -> ListeningSocket:
    """A listener that was open when we started. Raises UnfitSocketError."""
    try:
        listening = PlainSocket(fileno=number)
    except OSError as error:
        raise UnfitSocketError(f"cannot serve {name}: {error.strerror}; pass a listening socket", error.errno) from None
    try:
        accepts = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listening.type != socket.SOCK_STREAM or not accepts:
            raise UnfitSocketError(f"cannot serve {name}: not a listening stream socket; pass one that listens")
        if listening.family not in _FAMILIES:
            family = getattr(listening.family, "name", f"number {listening.family}")
            raise UnfitSocketError(f"cannot serve {name}: its address family is {family}; pass a TCP or Unix socket")
        prepare(listening)
    except BaseException:
        listening.detach()  # not ours to close
        raise
    return ListeningSocket(listening, own=False)
