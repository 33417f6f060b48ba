"""The PROXY header of a connection: which peers may send one, what is read, and what the connection learns."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.config import settings as table
from forkserver.http1.proxy_protocol import MOST_BYTES
from forkserver.server.proxy.client_address import ProxiedAddress
from forkserver.server.proxy.proxy_header_reader import ProxyHeaderReader, proxy_protocol_policy
from harness.fakes import FakeSocket

V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2 = SIGNATURE + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + b"\x12\x67\0\x50"
V2_TLS = SIGNATURE + b"\x21\x11\0\x14" + V2[16:] + b"\x20\0\x05\x01" + bytes(4)
GET = b"GET / HTTP/1.1\r\n"


class Client:
    """A connection whose peer has sent ``data``, between fakes."""

    def __init__(self, data: bytes = b"", peer: tuple[Any, ...] = ("10.0.0.5", 9), **settings: Any) -> None:
        fake: Any = FakeSocket(data)
        self.sock = fake
        self.peer = peer
        self.stays = False
        self.closed = False
        self.known: list[ProxiedAddress] = []
        self.begun: list[Client] = []
        self.told: list[tuple[str, str]] = []
        allowed = proxy_protocol_policy(
            table.defaults(**{"proxy_protocol": "on", "proxy_allow_ips": ["10.0.0.0/8", "unix"], **settings})
        )
        assert allowed is not None
        self.reader = ProxyHeaderReader(self, allowed, self, self.begun.append)
        self.reader.start()

    def set_client_address(self, client: ProxiedAddress) -> None:
        self.known.append(client)

    def close(self) -> None:
        self.closed = True

    def turned_away(self, client: str, why: str) -> None:
        self.told.append((client, why))

    def send(self, data: bytes) -> None:
        self.sock.incoming += data
        self.reader(1)


@pytest.mark.parametrize(
    ("header", "address", "flags"),
    [(V1, ("192.0.2.1", 4711), 6), (V2, ("192.0.2.1", 4711), 6), (V2_TLS, ("192.0.2.1", 4711), 7)],
)
def test_the_connection_learns_its_client_and_what_follows_stays(
    header: bytes, address: tuple[str, int], flags: int
) -> None:
    """It may be for OpenSSL to read."""
    client = Client(header + GET)
    assert client.begun == [client]
    assert client.known == [address]
    assert client.known[0].flags == flags
    assert client.sock.incoming == GET
    assert client.reader.over
    assert not client.closed


@pytest.mark.parametrize("header", [V1, V2, V2_TLS], ids=["v1", "v2", "v2 with TLS"])
def test_a_header_may_come_byte_by_byte(header: bytes) -> None:
    client = Client()
    for at in range(len(header)):
        assert not client.reader.over
        client.send(header[at : at + 1])
    assert client.begun == [client]
    client = Client(header[:-1])
    client.send(header[-1:] + GET)
    assert (client.known, client.sock.incoming) == ([("192.0.2.1", 4711)], GET)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x21\0\0\0"])
def test_a_client_that_the_proxy_cannot_name_has_no_address(header: bytes) -> None:
    """The proxy's own may have rights."""
    client = Client(header)
    assert client.known == [("", 0)]
    assert not client.known[0].known


def test_a_check_of_the_proxy_itself_has_the_proxys_address() -> None:
    client = Client(SIGNATURE + b"\x20\0\0\0" + GET)
    assert client.known == []
    assert client.begun == [client]


@pytest.mark.parametrize("peer", [("203.0.113.1", 9), ("::1", 9), ("odd\n", 0)])
def test_a_peer_that_may_not_send_one_is_turned_away_unread(peer: tuple[Any, ...]) -> None:
    client = Client(V1 + GET, peer)
    assert (client.closed, client.reader.over, client.begun, client.known) == (True, True, [], [])
    assert client.sock.incoming == V1 + GET
    ((host, why),) = client.told
    assert host == peer[0]
    listed = f" {host}" if host != "odd\n" else ""
    assert why == f"it is not in proxy_allow_ips; if it is your proxy, set --proxy-allow-ips{listed}"


def test_a_proxy_on_a_unix_socket_can_be_listed() -> None:
    assert Client(V1, ("", 0)).begun
    assert Client(V1, ("", 0), proxy_allow_ips=["10.0.0.0/8"]).told[0][1].endswith("--proxy-allow-ips unix")


@pytest.mark.parametrize(
    ("data", "versions"),
    [(GET, "on"), (V1, "v2"), (V2, "v1"), (b"PROXY nonsense\r\n", "on"), (b"P" * MOST_BYTES, "on")],
)
def test_what_is_no_header_turns_its_peer_away(data: bytes, versions: str) -> None:
    """Without one its client would have the proxy's address."""
    client = Client(data, proxy_protocol=versions)
    assert (client.closed, client.reader.over, client.begun) == (True, True, [])
    assert [host for host, _ in client.told] == ["10.0.0.5"]


@pytest.mark.parametrize("gone", ["ended", "failed"])
def test_a_peer_that_goes_is_closed_without_a_word(gone: str) -> None:
    client = Client(V1[:10])
    setattr(client.sock, gone, True)
    client.reader(1)
    assert (client.closed, client.told, client.begun) == (True, [], [])


def test_no_sibling_gets_a_connection_before_its_header() -> None:
    """What was read of the header would be lost."""
    client = Client(V1[:10])
    assert client.stays
    client.send(V1[10:])
    assert not client.stays


def test_without_the_setting_no_header_is_expected() -> None:
    assert proxy_protocol_policy(table.defaults()) is None
