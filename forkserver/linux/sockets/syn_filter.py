"""Refusing new connections at a TCP listener without resetting those in its queue, or about to join it.

A newcomer's SYN is dropped, not refused: its client tries again after a second, and meets the next server, or a closed
port.

Two ways. A socket filter that drops what has SYN and not ACK; newer kernels allow it only with CAP_NET_ADMIN, which
neither an ordinary user nor root in most containers has. Without it, a least hop limit of 255, which no packet has that
was routed: the kernel asks it of packets for the listener itself, not of those that end a handshake. But connections
take it over from their listener, so the worker that accepts them must lift it: ``lift_hop_limit``.

Source: socket(7), ip(7), ipv6(7), Linux Documentation/networking/filter.rst, tcp_v4_rcv() in net/ipv4/tcp_ipv4.c.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; the socket module has no name for it
IP_MINTTL: Final = 21  # linux/in.h, likewise
IPV6_MINHOPCOUNT: Final = 73  # linux/in6.h, likewise
_MOST_HOPS: Final = 255
_getsockopt: Final = ctypes.CDLL(None).getsockopt  # the filter is read by instructions, which socket takes for bytes

# Classic BPF for a TCP socket, whose packets begin with the TCP header: drop what has SYN and not ACK, keep all else.
_DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # ldb [13]: the flags
    (0x54, 0, 0, 0x12),  # and #SYN|ACK
    (0x15, 0, 1, 0x02),  # jeq #SYN, next, skip one
    (0x06, 0, 0, 0),  # ret #0: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # ret #-1: keep whole
)


def block_new_connections(listening: socket.socket) -> None:
    """Let no connection join the queue of ``listening`` any more."""
    try:
        attach(listening)
    except OSError:
        # EPERM: see above. A sandbox that is not Linux may know neither way; then a stop resets who comes at its end.
        _ask_for_hops(listening, _MOST_HOPS)


def limited(listening: socket.socket) -> bool:
    """Whether connections take over from ``listening`` what ``lift_hop_limit`` has to lift."""
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        return listening.getsockopt(socket.IPPROTO_IP, IP_MINTTL) == _MOST_HOPS
    except OSError:
        return False  # such a system has not limited it either


def blocked(listening: socket.socket) -> bool:
    """Whether no connection joins the queue of ``listening`` any more."""
    length = ctypes.c_uint32(0)  # no room for the filter: the kernel tells how long it is
    status = _getsockopt(listening.fileno(), socket.SOL_SOCKET, SO_ATTACH_FILTER, None, ctypes.byref(length))
    return (status == 0 and length.value > 0) or limited(listening)


def lift_hop_limit(accepted: socket.socket) -> None:
    """Let packets for a connection through again; those that were dropped come once more."""
    # A get_request() of the application's may return what only resembles a socket.
    if getattr(accepted, "family", None) in (socket.AF_INET, socket.AF_INET6):
        _ask_for_hops(accepted, 0)


def attach(listening: socket.socket) -> None:
    """Have the kernel drop SYNs for ``listening``. Raises OSError."""
    memory = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _DROP_SYN))
    # struct sock_fprog: how many instructions, and where they stand (native alignment).
    program = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(memory))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _ask_for_hops(sock: socket.socket, least: int) -> None:
    try:
        # An IPv6 socket may have IPv4 clients, whose packets are asked for the one.
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, least)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, least)
    except OSError:
        return  # not known here, so nothing is limited
