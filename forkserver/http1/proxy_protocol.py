"""The PROXY protocol's header, versions 1 and 2: bytes in, who the client is out.

A header is read to the byte and is bounded in length; bytes that cannot become one are refused at once. The caller
decides which peers may send one.

Source: haproxy.org, doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

from __future__ import annotations

import re
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from forkserver.config.values.ip_allowlist import plain
from forkserver.errors import ProtocolError
from forkserver.linux.common.records import NamedTuple

V1, V2 = 1, 2
V1_BYTES: Final = 107  # the longest header of version 1, its CRLF included
V2_BYTES: Final = 4096  # ours; the protocol's own limit is 64 KiB, of which proxies send some hundred bytes
MOST_BYTES: Final = V2_BYTES

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PREFIX: Final = b"PROXY "
_FIXED: Final = Struct("!12sBBH")  # signature, version and command, family and transport, length of what follows
_LINE: Final = re.compile(
    r"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_IPV4: Final = Struct("!4s4sHH")  # source, destination, their ports
_IPV6: Final = Struct("!16s16sHH")
_UNIX_BYTES: Final = 216  # two sun_path of 108
_TLV_BYTES: Final = 3  # type and length, before the value
_TYPE_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01


class ProxiedClient(Enum):
    """What a header says of the client."""

    ADDRESS = "an address"
    UNIX = "a Unix socket of the proxy's machine"
    UNKNOWN = "nothing"
    LOCAL = "the proxy itself, which asks whether we live"


class ProxyHeader(NamedTuple):
    """One header: its ``size`` in bytes, and what it says.

    ``source`` is the client's ``(address, port)`` where ``client`` is ADDRESS; ``secure`` that it came to the proxy by
    TLS, which only version 2 can say.
    """

    size: int
    client: ProxiedClient
    source: tuple[str, int] | None = None
    secure: bool = False


def read(data: bytes, versions: tuple[int, ...] = (V1, V2)) -> ProxyHeader | None:
    """The header at the start of ``data``, or None while it is not whole; what follows it is not looked at.

    While it gives None all of ``data`` belongs to the header. Raises ProtocolError as soon as the bytes cannot become
    one of ``versions``.
    """
    if V2 in versions and data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _read_v2(data)
    if V1 in versions and data[: len(_PREFIX)] == _PREFIX[: len(data)]:
        return _read_v1(data)
    raise ProtocolError(400, "no PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, V1_BYTES)
    head = data[:end] if end >= 0 else data.removesuffix(b"\r")
    # What no header holds does not become better by waiting.
    if not head.isascii() or b"\r" in head or b"\n" in head or (end < 0 and len(data) >= V1_BYTES):
        raise ProtocolError(400, "malformed PROXY header")
    if end < 0:
        return None
    line = head.decode("ascii")
    # Of UNKNOWN everything up to the line's end is to be ignored.
    if line == "PROXY UNKNOWN" or line.startswith("PROXY UNKNOWN "):
        return ProxyHeader(end + 2, ProxiedClient.UNKNOWN)
    match = _LINE.fullmatch(line)
    if match is None or max(int(match[4]), int(match[5])) > 65535:
        raise ProtocolError(400, "malformed PROXY header")
    kind = IPv4Address if match[1] == "TCP4" else IPv6Address
    try:
        source, _ = kind(match[2]), kind(match[3])
    except AddressValueError:
        raise ProtocolError(400, "malformed address in a PROXY header") from None
    return ProxyHeader(end + 2, ProxiedClient.ADDRESS, (str(plain(source)), int(match[4])))


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED.size:
        return None
    _, command, family, length = _FIXED.unpack_from(data)
    size = _FIXED.size + length
    if command not in (_LOCAL, _PROXY):
        raise ProtocolError(400, "a PROXY header of another version or command")
    if size > V2_BYTES:
        raise ProtocolError(400, f"a PROXY header of more than {V2_BYTES} bytes")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(size, ProxiedClient.LOCAL)  # whatever its addresses say
    return _read_addresses(family, data[_FIXED.size : size], size)


def _read_addresses(family: int, data: bytes, size: int) -> ProxyHeader:
    source, used = None, 0
    if family == _UNSPEC:
        return ProxyHeader(size, ProxiedClient.UNKNOWN)  # what follows is to be ignored
    if family in (_TCP4, _TCP6):
        form = _IPV4 if family == _TCP4 else _IPV6
        if len(data) < form.size:
            raise ProtocolError(400, "a PROXY header too short for its addresses")
        raw, _, port, _ = form.unpack_from(data)
        address = IPv4Address(raw) if family == _TCP4 else IPv6Address(raw)
        source, used = (str(plain(address)), port), form.size
    elif family == _UNIX:
        if len(data) < _UNIX_BYTES:
            raise ProtocolError(400, "a PROXY header too short for its addresses")
        used = _UNIX_BYTES
    else:
        raise ProtocolError(400, "a PROXY header for something other than a stream")
    client = ProxiedClient.UNIX if source is None else ProxiedClient.ADDRESS
    return ProxyHeader(size, client, source, _says_secure(data[used:]))


def _says_secure(data: bytes) -> bool:
    """Whether the vectors (type, length, value) say that the client came by TLS; all others are skipped."""
    at, secure = 0, False
    while at < len(data):
        start = at + _TLV_BYTES
        if start > len(data):
            raise ProtocolError(400, "a PROXY header with half a vector")
        at = start + int.from_bytes(data[start - 2 : start])
        if at > len(data):
            raise ProtocolError(400, "a PROXY header with a vector longer than itself")
        if data[start - _TLV_BYTES] == _TYPE_SSL and at > start:
            secure = bool(data[start] & _CLIENT_SSL)
    return secure
