"""Binding TCP addresses: one host and port, or every interface by IPv6 and IPv4.

Source: ip(7), ipv6(7), tcp(7), capabilities(7).
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from forkserver.errors import BindError
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.stream_socket import bind_error, new_socket, prepare

EVERY_INTERFACE: Final = "*"  # the host of :PORT, for IPv6 and IPv4
# There is no IPv6: no protocol (ipv6.disable=1, RestrictAddressFamilies=), or no address.
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)
_PORT_START: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


def bind_tcp(address: str, binds: list[str], backlog: int) -> ListeningSocket:
    """Listen at ``address``; ``binds`` are all addresses that are served. Raises BindError."""
    port = address.rpartition(":")[2]
    family, sockaddr = resolve(address)
    # [::] takes IPv4 clients too, unless another bind is there for them.
    apart = any(other != address and other.endswith(f":{port}") for other in binds)
    return _listen_tcp(address, family, sockaddr, apart, backlog)


def resolve(address: str) -> tuple[int, tuple[object, ...]]:
    """The family of ``address``, and what the kernel is given for it: host, port and so on. Raises BindError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        # ASCII as bytes: of text Python makes an international name first, by tables that take milliseconds to load.
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise BindError(
            f"cannot bind {address}: {error.strerror}; give an address of this machine", error.errno
        ) from None
    # A name with both kinds (localhost) is IPv4, as make_server has it.
    family, _, _, _, sockaddr = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, sockaddr


def bind_every_interface(address: str, binds: list[str], backlog: int) -> ListeningSocket:
    """Listen on every interface by IPv6 and IPv4, or where this machine has no IPv6, by IPv4. Raises BindError."""
    port = int(address.rpartition(":")[2])
    try:
        return _listen_tcp(address, socket.AF_INET6, ("::", port), f"0.0.0.0:{port}" in binds, backlog)
    except BindError as error:
        if error.errno not in _NO_IPV6:
            raise
    listener = _listen_tcp(address, socket.AF_INET, ("0.0.0.0", port), False, backlog)
    listener.lacks_ipv6 = True
    return listener


def _listen_tcp(address: str, family: int, sockaddr: tuple[object, ...], apart: bool, backlog: int) -> ListeningSocket:
    """Listen at ``sockaddr``, which ``address`` means; ``apart`` keeps an IPv6 socket to IPv6. Raises BindError."""
    listening = new_socket(family, address)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, apart)
        prepare(listening)
        listening.bind(sockaddr)
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        if error.errno == errno.EACCES:
            raise BindError(f"cannot bind {address}: {_forbidden(address)}", error.errno) from None
        raise bind_error(address, error, sockaddr) from None
    return ListeningSocket(listening, own=True)


def _forbidden(address: str) -> str:
    """Why the kernel forbids a TCP address, and what an ordinary user can do. Source: ip(7), capabilities(7)."""
    host, _, number = address.removeprefix(EVERY_INTERFACE).rpartition(":")
    port, least = int(number), _first_free_port()
    if port >= least:
        return "permission denied by a rule of this machine (SELinux, seccomp); choose another port with --bind"
    other = max(least, {80: 8080, 443: 8443}.get(port, 8000 + port))
    return (
        f"permission denied, ports below {least} are for root (CAP_NET_BIND_SERVICE); choose one from {least} on, such "
        f"as --bind {host}:{other}, or have root install the socket unit that --systemd-socket prints"
    )


def _first_free_port() -> int:
    """The first port that every user may bind: net.ipv4.ip_unprivileged_port_start, ip(7)."""
    try:
        with open(_PORT_START, encoding="ascii") as file:
            return int(file.read(16))
    except (OSError, ValueError):  # no /proc, or a kernel before 4.11
        return 1024
