"""The PROXY header of one connection, which comes before everything else that is said on it.

The header is looked at with MSG_PEEK and then taken to its last byte, so that what follows stays for the next reader.
Only a peer in proxy_allow_ips may send one. A peer that sends none, or half of one, is dropped when a head would be
overdue.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from forkserver.config.values.ip_allowlist import IpAllowlist, as_listed
from forkserver.errors import ProtocolError
from forkserver.http1 import proxy_protocol
from forkserver.http1.proxy_protocol import ProxiedClient, ProxyHeader
from forkserver.linux.common.records import NamedTuple
from forkserver.server.proxy.client_address import ProxiedAddress

if TYPE_CHECKING:
    from forkserver.config.settings import Settings

_VERSIONS: Final = {
    "on": (proxy_protocol.V1, proxy_protocol.V2),
    "v1": (proxy_protocol.V1,),
    "v2": (proxy_protocol.V2,),
}


class ProxyProtocolPolicy(NamedTuple):
    """Who may send a header, and of which versions."""

    peers: IpAllowlist
    versions: tuple[int, ...]


def proxy_protocol_policy(settings: Settings) -> ProxyProtocolPolicy | None:
    """Those that ``settings`` name; None where connections begin without a header."""
    if settings.proxy_protocol == "off":
        return None
    return ProxyProtocolPolicy(IpAllowlist(settings.proxy_allow_ips), _VERSIONS[settings.proxy_protocol])


class Introduced(Protocol):
    """A connection that begins with a header."""

    peer: tuple[Any, ...]
    stays: bool  # no sibling can have it

    @property
    def sock(self) -> socket.socket: ...
    def set_client_address(self, client: ProxiedAddress) -> None:
        """A proxy has told the address of the client."""

    def close(self) -> None:
        """Close it."""


class ProxyNotices(Protocol):
    """The error log."""

    def turned_away(self, client: str, why: str) -> None:
        """A connection of ``client`` was closed before a request."""


T = TypeVar("T", bound=Introduced)


class ProxyHeaderReader(Generic[T]):
    """Reads the header of ``connection``, lets it know its client, and calls ``begin(connection)``.

    Called with an event when there is something to read; ``over`` is True when nothing more is to come here.
    """

    def __init__(
        self, connection: T, allowed: ProxyProtocolPolicy, notices: ProxyNotices, begin: Callable[[T], object]
    ) -> None:
        self._connection = connection
        self._allowed = allowed
        self._notices = notices
        self._begin = begin
        self._data = b""
        self._stays, connection.stays = connection.stays, True
        self.over = False

    def __call__(self, _event: int = 0) -> None:
        try:
            header = self._read()
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._refuse(error.reason)
            return
        except OSError:
            self._end()
            return
        if header is None:
            return
        self._make_known(header)
        self.over = True
        self._begin(self._connection)

    def start(self) -> None:
        """Read what has come with the connection, where its peer may send one."""
        if self._allowed.peers.have(str(self._connection.peer[0])):
            self()
        else:
            self._refuse(_not_allowed(str(self._connection.peer[0])))

    def _read(self) -> ProxyHeader | None:
        """Looked at first and taken afterwards: what is spoken behind the header may be for OpenSSL to read."""
        sock = self._connection.sock
        data = sock.recv(proxy_protocol.MOST_BYTES, socket.MSG_PEEK)
        if not data:
            raise ConnectionResetError
        header = proxy_protocol.read(self._data + data, self._allowed.versions)
        if header is None:
            self._data += sock.recv(len(data))
        else:
            sock.recv(header.size - len(self._data))
        return header

    def _make_known(self, header: ProxyHeader) -> None:
        connection = self._connection
        if header.client is not ProxiedClient.LOCAL:
            # A client that the proxy cannot name has no address, rather than the proxy's, which may have rights.
            address: tuple[Any, ...] = header.source or ("", 0)
            told = ProxiedAddress(address)
            told.known, told.secure = header.client is ProxiedClient.ADDRESS, header.secure
            connection.set_client_address(told)
        connection.stays = self._stays

    def _refuse(self, why: str) -> None:
        connection = self._connection
        self._notices.turned_away(str(connection.peer[0]), why)
        self._end()

    def _end(self) -> None:
        self.over = True
        self._connection.close()


def _not_allowed(host: str) -> str:
    """Why the peer of the address ``host`` is turned away, and the way out."""
    listed = as_listed(host)
    flag = "--proxy-allow-ips" if listed is None else f"--proxy-allow-ips {listed}"
    return f"it is not in proxy_allow_ips; if it is your proxy, set {flag}"
