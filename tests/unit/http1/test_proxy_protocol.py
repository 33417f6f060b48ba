"""The PROXY protocol's header: every byte of it, in whatever pieces it comes."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.config.values.ip_allowlist import plain
from forkserver.errors import ProtocolError
from forkserver.http1.proxy_protocol import MOST_BYTES, V1, V1_BYTES, V2, ProxiedClient, ProxyHeader, read

CORPUS = Path(__file__).parents[2] / "corpus" / "proxy"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int = 0x21, family: int = 0x11, payload: bytes = b"\1\2\3\4\5\6\7\x08\0\x50\1\xbb") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


ADDRESSES = b"\1\2\3\4\5\6\7\x08\0\x50\1\xbb"


@pytest.mark.parametrize(
    ("data", "client", "source"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", ProxiedClient.ADDRESS, ("192.0.2.1", 56324)),
        (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", ProxiedClient.ADDRESS, ("2001:db8::1", 1)),
        (b"PROXY UNKNOWN\r\n", ProxiedClient.UNKNOWN, None),
        (b"PROXY UNKNOWN ffff:f...f ffff 65535 65535\r\n", ProxiedClient.UNKNOWN, None),
        (v2(), ProxiedClient.ADDRESS, ("1.2.3.4", 80)),
        (v2(family=0x21, payload=bytes(15) + b"\1" + bytes(16) + b"\0\x50\0\1"), ProxiedClient.ADDRESS, ("::1", 80)),
        (v2(family=0x31, payload=bytes(216)), ProxiedClient.UNIX, None),
        (v2(family=0x00, payload=b"ignored"), ProxiedClient.UNKNOWN, None),
        (v2(command=0x20, family=0x00, payload=b""), ProxiedClient.LOCAL, None),
        (v2(command=0x20, family=0x11), ProxiedClient.LOCAL, None),
        (
            v2(payload=ADDRESSES + tlv(0x03, b"crc0") + tlv(0x04, b"") + tlv(0xEA, b"x" * 300)),
            ProxiedClient.ADDRESS,
            None,
        ),
    ],
)
def test_a_header_says_who_the_client_is(data: bytes, client: ProxiedClient, source: tuple[str, int] | None) -> None:
    header = read(data + b"GET / HTTP/1.1\r\n")
    assert header is not None
    assert (header.size, header.client, header.secure) == (len(data), client, False)
    assert source is None or header.source == source


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 56324 443\r\n",
        b"PROXY TCP6 ::ffff:c000:201 ::ffff:c000:202 56324 443\r\n",
        v2(family=0x21, payload=bytes(10) + b"\xff\xff\xc0\0\2\1" + bytes(16) + struct.pack("!HH", 56324, 443)),
    ],
)
def test_an_ipv4_client_whom_the_proxy_has_taken_on_an_ipv6_socket_has_its_ipv4_address(data: bytes) -> None:
    """HAProxy's ``bind :::443 v4v6`` writes all its IPv4 clients so; lists of addresses would not know them."""
    header = read(data)
    assert header is not None
    assert header.source == ("192.0.2.1", 56324)


@pytest.mark.parametrize(("flags", "secure"), [(0x01, True), (0x07, True), (0x00, False), (0x02, False)])
def test_version_2_says_whether_the_client_came_by_tls(flags: int, secure: bool) -> None:
    ssl = struct.pack("!BI", flags, 0) + tlv(0x21, b"TLSv1.3")
    header = read(v2(payload=ADDRESSES + tlv(0x05, b"id") + tlv(0x20, ssl) + tlv(0x04, b"pad")))
    assert header is not None
    assert header.secure is secure


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\rx",
        b"PROXY TCP4 192.0.2.1  192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 05 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 443\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY \r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY UNKNOWN \xff\r\n",
        b"PROXY UNKNOWN a\nb\r\n",
        b"PROXY UNKNOWN " + b"x" * V1_BYTES,
        b"PROXY UNKNOWN " + b"x" * (V1_BYTES - 15) + b"\r\n",
        SIGNATURE[:-1] + b"\r",
        v2(command=0x11),
        v2(command=0x22),
        v2(family=0x12),
        v2(family=0x41),
        v2(payload=ADDRESSES[:-1]),
        v2(family=0x31, payload=bytes(215)),
        v2(payload=ADDRESSES + b"\1\0"),
        v2(payload=ADDRESSES + b"\1\0\2x"),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MOST_BYTES),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


def test_the_longest_line_of_version_1_is_read() -> None:
    line = b"PROXY UNKNOWN " + b"x" * (V1_BYTES - 16) + b"\r\n"
    assert read(line) == ProxyHeader(V1_BYTES, ProxiedClient.UNKNOWN)


def test_a_version_that_is_not_wanted_is_refused() -> None:
    """Who is to send the one and sends the other is another."""
    for data, other in ((v2(), V1), (b"PROXY UNKNOWN\r\n", V2)):
        assert read(data) is not None
        with pytest.raises(ProtocolError):
            read(data, (other,))


@given(
    st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=30)
)
def test_both_versions_give_back_what_was_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, other: int, after: bytes
) -> None:
    line = f"PROXY TCP{address.version} {address} {address} {port} {other}\r\n".encode()
    packed = address.packed * 2 + struct.pack("!HH", port, other)
    for data in (line, v2(family=0x11 if address.version == 4 else 0x21, payload=packed)):
        assert read(data + after) == ProxyHeader(len(data), ProxiedClient.ADDRESS, (str(plain(address)), port))


noise = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=120).map(lambda tail: b"PROXY TCP4 1.2.3.4 " + tail),
    st.binary(max_size=120).map(lambda tail: b"PROXY UNKNOWN" + tail),
    st.builds(v2, st.sampled_from([0x20, 0x21, 0x22]), st.sampled_from([0, 0x11, 0x21, 0x31]), st.binary(max_size=400)),
)


def outcome(data: bytes) -> object:
    try:
        return read(data)
    except ProtocolError:
        return "refused"


@given(noise)
def test_it_does_not_matter_in_which_pieces_it_comes(data: bytes) -> None:
    """The first verdict on a beginning is the verdict on the whole, and no header is longer than its bound."""
    first = next((found for end in range(len(data) + 1) if (found := outcome(data[:end])) is not None), None)
    assert first == outcome(data)
    if first is None:
        assert len(data) < MOST_BYTES


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_is_read_or_refused_as_its_names_say(path: Path) -> None:
    """What the fuzzer starts from, and what it has found."""
    assert (outcome(path.read_bytes()) == "refused") is path.name.startswith("reject-")
