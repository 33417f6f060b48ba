"""What a TCP address takes of a machine, to tell whether two of them are the same or in each other's way.

Source: ip(7), ipv6(7).
"""

from __future__ import annotations

import socket
from typing import Final

from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.tcp_socket import EVERY_INTERFACE, resolve

_BOTH: Final = frozenset({socket.AF_INET, socket.AF_INET6})


class Reach(NamedTuple):
    """What a TCP address takes: families, host (empty for all of them) and port."""

    families: frozenset[int]
    host: str
    port: int

    def overlaps(self, other: Reach) -> bool:
        """Whether the kernel binds one of the two only where the other is not bound."""
        hosts = self.host == other.host or not (self.host and other.host)
        return self.port == other.port and hosts and bool(self.families & other.families)


def reach(address: str) -> Reach:
    """That of an address which the settings name. Raises BindError."""
    host, _, port = address.rpartition(":")
    if host == EVERY_INTERFACE or host == "[::]":
        return Reach(_BOTH, "", int(port))
    family, sockaddr = resolve(address)
    return Reach(frozenset({family}), _unless_all(str(sockaddr[0])), int(port))


def reach_of(listener: ListeningSocket) -> Reach:
    """That of a TCP socket which listens."""
    families = _BOTH if listener.dual else frozenset({listener.family})
    return Reach(families, _unless_all(listener.address.host), listener.port)


def _unless_all(host: str) -> str:
    return "" if host in ("0.0.0.0", "::") else host
