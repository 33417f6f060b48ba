"""A listening socket of the worker, and the addresses of its two ends."""

from __future__ import annotations

import socket
from errno import ENOSYS
from typing import TYPE_CHECKING, Any, Final

from forkserver.linux.descriptor_limit import LOW_NUMBERS, move_up
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.tls_socket import socket_class
from forkserver.server.proxy.proxy_header_reader import ProxyProtocolPolicy

if TYPE_CHECKING:
    import ssl

    from forkserver.server.wsgi.accelerator._exchange import AcceptedSocket, Context

IPV4_PARTS: Final = 2  # of an address: host, port
_IPV6_PARTS: Final = 4  # and flow, scope
_BATCH: Final = 16  # connections that a lone worker takes between two polls, at most
_PROBE: Final = 8  # events with one connection each, then a look whether there are more
_STREAMS: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_MAPPED: Final = "::ffff:"  # before an IPv4 address that an IPv6 socket shows


class Listener:
    """A listening socket, and the names of its address where ``base_environ`` does not have them.

    ``number`` is the master's for it, the same in every worker; ``inherited`` says that the service manager owns it, so
    that its queue is kept for the next program. ``tls`` is spoken on it; proxies in ``allowed`` send a PROXY header;
    ``shut`` says that no client can join its queue any more. ``batch`` is how many connections a lone worker tries to
    take at an event; to find none costs half as much as to take one. ``plain_kind`` is the kind of its connections that
    the extension may accept, None where it may not.
    """

    __slots__ = (
        "_family",
        "_single",
        "allowed",
        "batch",
        "inherited",
        "names",
        "number",
        "plain_kind",
        "shut",
        "sock",
        "tls",
        "unix",
    )

    def __init__(
        self, sock: socket.socket, names: tuple[str, str] | None = None, number: int = 0, inherited: bool = False
    ) -> None:
        self.tls: ssl.SSLContext | None = None
        self.allowed: ProxyProtocolPolicy | None = None
        self.sock = sock
        self.unix = sock.family == socket.AF_UNIX
        self.names = names
        self.number = number
        self.inherited = inherited
        self.shut = False
        self.batch = _BATCH
        self._single = 0  # events in a row with one connection
        # A script's SSLSocket is accepted without TLS: its handshake would wait for the client.
        usual = type(sock).accept in (PlainSocket.accept, getattr(socket_class(), "accept", None))
        self._family = (sock.family, sock.type, sock.proto) if usual else None
        self.plain_kind = self._family if sock.family in _STREAMS else None

    def fileno(self) -> int:
        return self.sock.fileno()

    def note_taken(self, count: int) -> None:
        """All ``count`` connections of a batch were there: try more at the next event, or, after single ones, later."""
        self._single = self._single + 1 if count == 1 else 0
        if count > 1 or self._single >= _PROBE:
            self.batch, self._single = min(2 * count, _BATCH) if count > 1 else _BATCH, 0

    @property
    def shown(self) -> str:
        """Its address, for the log."""
        return str(self.sock.getsockname()) if self.unix else ":".join(names_of(self.sock))

    def accept(self) -> tuple[socket.socket, Any]:
        """A connection and its client's address, as ``socket.accept`` gives them."""
        if self._family is None:
            return self.sock.accept()
        # As ``accept`` does it, but for looking up the class and the kind of socket each time.
        number, peer = self.sock._accept()  # type: ignore[attr-defined]
        if number >= LOW_NUMBERS:
            number = move_up(number)
        return PlainSocket(*self._family, fileno=number), peer

    def accept_plain(self, extension: Context, kind: tuple[int, int, int]) -> AcceptedSocket | None:
        """A connection of the ``plain_kind``, without a socket yet; None where no client waits. Raises OSError."""
        try:
            return extension.accept(self.sock.fileno(), kind, self.names)
        except OSError as error:
            if error.errno != ENOSYS:
                raise
            self.plain_kind = None  # a sandbox without accept4(2): the standard library does with accept(2)
            return None


def find(listeners: list[Listener], number: int, sock: socket.socket, tls: ssl.SSLContext | None) -> Listener:
    """The listener of that number; where this worker has none, one by the address of ``sock``, that came from it."""
    for listener in listeners:
        if listener.number == number:
            return listener
    listener = Listener(sock, names_of(sock), number)
    if sock.family != socket.AF_UNIX:
        listener.tls = tls
    return listener


def client_address(peer: Any) -> tuple[Any, ...]:
    """What ``accept`` says of a client, as a tuple, which handlers index; IPv4's own where an IPv6 socket has taken it.

    Source: RFC 4291, section 2.5.5.2.
    """
    if not isinstance(peer, tuple):
        return "", 0  # a Unix socket's client has no address
    host = str(peer[0])
    mapped = len(peer) == _IPV6_PARTS and host.startswith(_MAPPED) and "." in host
    return (host.removeprefix(_MAPPED), peer[1]) if mapped else peer


def names_of(sock: socket.socket) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT of a socket's own address; PEP 3333 wants neither empty."""
    address = sock.getsockname()
    if not isinstance(address, tuple):
        return "localhost", "80"
    host = address[0]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return host, str(address[1])
