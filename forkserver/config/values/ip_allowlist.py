"""Lists of peers: addresses, networks, ``unix`` for clients of Unix sockets, and ``*`` for every sender.

An address means the same however it is written, IPv4 within IPv6 too. What the peers on a list may do is decided by the
code that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

UNIX: Final = "unix"
ANY_SENDER: Final = "*"

_REMEMBERED: Final = 4096  # hosts that had to be parsed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class IpAllowlist:
    """The peers that ``listed`` names, each item an address, a network, ``unix`` or ``*``. Raises ValueError.

    ``have(host)`` says whether a peer of that address is meant. ``any_sender`` is True where ``*`` is listed.
    """

    def __init__(self, listed: Iterable[str]) -> None:
        names = list(listed)
        self._unix = UNIX in names
        self.any_sender = ANY_SENDER in names
        networks = [network(name) for name in names if name not in (UNIX, ANY_SENDER)]
        self._hosts = {str(each.network_address) for each in networks if each.num_addresses == 1}
        self._networks = [each for each in networks if each.num_addresses > 1]
        self._within = lru_cache(_REMEMBERED)(self._parse_and_look)
        self.have: Callable[[str], bool] = self._have_any if self.any_sender else self.name

    def _have_any(self, _host: str) -> bool:
        return True

    def name(self, host: str) -> bool:
        """Whether anything but ``*`` names the peer of the address ``host``, "" for a Unix socket's."""
        if not host:
            return self._unix
        if host in self._hosts:
            return True
        if not self._networks and ":" not in host:
            return False
        return self._within(host)

    def _parse_and_look(self, host: str) -> bool:
        try:
            address = plain(ip_address(host.partition("%")[0]))
        except ValueError:  # a server class has made an address of its own kind
            return False
        return str(address) in self._hosts or any(address in each for each in self._networks)


def canonical(text: str) -> str:
    """One item of such a list, as it is shown again. Raises ValueError."""
    if text in (UNIX, ANY_SENDER):
        return text
    return str(ip_network(text)) if "/" in text else str(ip_address(text))


def network(text: str) -> Network:
    """One address or network. Raises ValueError, also for a network with bits behind its prefix."""
    found = ip_network(text)
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped and found.prefixlen >= 96:
        return IPv4Network((found.network_address.ipv4_mapped, found.prefixlen - 96))
    return found


@lru_cache(_REMEMBERED)
def as_listed(host: str) -> str | None:
    """How the peer of the address ``host`` is written in such a list; None where it cannot be."""
    if not host:
        return UNIX
    try:
        return str(plain(ip_address(host.partition("%")[0])))
    except ValueError:
        return None


@lru_cache(_REMEMBERED)
def is_public(host: str) -> bool:
    """Whether ``host`` is an address of the Internet, and not of a network of the operator's own.

    Source: IANA's registries of special-purpose addresses, as ``ipaddress`` has them.
    """
    try:
        return plain(ip_address(host.partition("%")[0])).is_global
    except ValueError:
        return False


def plain(address: Address) -> Address:
    """``address``, or the IPv4 address that it holds: a listener on [::] sees IPv4 clients so (RFC 4291, 2.5.5.2)."""
    return getattr(address, "ipv4_mapped", None) or address
