"""Who is meant by a list of peers: addresses, networks, and ``unix`` for whoever comes by a Unix socket.

It promises that an address means the same however it is written, IPv4 within IPv6 too. It refuses to know what the
peers on the list may do.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

UNIX: Final = "unix"
EVERYBODY: Final = "*"

_REMEMBERED: Final = 4096  # hosts, of which it is known whether they are on the list

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Peers:
    """The peers that ``listed`` names, each item an address, a network, ``unix`` or ``*``. Raises ValueError."""

    def __init__(self, listed: Iterable[str]) -> None:
        names = list(listed)
        self._unix = UNIX in names
        self._everybody = EVERYBODY in names
        networks = [network(name) for name in names if name not in (UNIX, EVERYBODY)]
        self._hosts = {str(each.network_address) for each in networks if each.num_addresses == 1}
        self._networks = [each for each in networks if each.num_addresses > 1]
        self.have = lru_cache(_REMEMBERED)(self._have)

    def _have(self, host: str) -> bool:
        """Whether a peer of that address, "" for a Unix socket's, is on the list."""
        if self._everybody:
            return True
        if not host:
            return self._unix
        if host in self._hosts:
            return True
        if not self._networks and ":" not in host:
            return False
        try:
            address = plain(ip_address(host.partition("%")[0]))
        except ValueError:  # a server class has made an address of its own kind
            return False
        return str(address) in self._hosts or any(address in each for each in self._networks)


def canonical(text: str) -> str:
    """One item of such a list, as it is shown again. Raises ValueError."""
    if text in (UNIX, EVERYBODY):
        return text
    return str(ip_network(text)) if "/" in text else str(ip_address(text))


def network(text: str) -> Network:
    """One address or network. Raises ValueError, also for a network with bits behind its prefix."""
    found = ip_network(text)
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped and found.prefixlen >= 96:
        return IPv4Network((found.network_address.ipv4_mapped, found.prefixlen - 96))
    return found


def plain(address: Address) -> Address:
    """``address``, or the IPv4 address that it holds: a listener on [::] sees IPv4 clients so (RFC 4291, 2.5.5.2)."""
    return getattr(address, "ipv4_mapped", None) or address
