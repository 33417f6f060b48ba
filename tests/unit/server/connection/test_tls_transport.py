"""TLS between a connection and a fake socket: OpenSSL's client is in memory, and sends what the test says."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.http1.in_the_clear import HINT
from forkserver.server.connection.states import CLOSED, LINGERING, READING
from forkserver.server.wsgi.response_sink import ClientGoneError
from harness import credentials
from harness.fakes import FakeListener, FakeLoop, FakeSocket

RECORD = 16 * 1024  # plain; sealed it takes some bytes more
PATTERN = bytes(range(251)) * 2000  # of half a megabyte: no two records of it are alike
GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


class Client:
    """A client that speaks TLS by memory, and the worker's connection of it."""

    def __init__(
        self, tls: ssl.SSLContext, loop: FakeLoop | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        self.loop = loop or FakeLoop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = credentials.client().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.sock = FakeSocket()
        self._read = 0
        self.connection = self.loop.connect(sock=self.sock, listener=listener(tls))

    def pump(self, *, deliver: bool = True) -> bytes:
        """Bring what each side has said to the other; the client's bytes only if they are to be delivered."""
        said = self._outgoing.read()
        if deliver and said:
            self.loop.send(self.connection, said)
        self._incoming.write(bytes(self.sock.sent[self._read :]))
        self._read = len(self.sock.sent)
        return said

    def shake(self) -> None:
        """Go through the whole handshake."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.pump()
            else:
                self.pump()
                return

    def ask(self, data: bytes = GET) -> bytes:
        """What is answered to ``data``."""
        self.tls.write(data)
        self.pump()
        self.loop.serve()
        return self.read()

    def read(self) -> bytes:
        self.pump()
        data = b""
        try:
            while piece := self.tls.read(1 << 20):
                data += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return data

    def upload(self, body: bytes, step: int) -> bytes:
        """What is answered to ``body``, of which ``step`` sealed bytes come at a time."""
        self.tls.write(b"POST /path HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        self.tls.write(body)
        said = self._outgoing.read()
        for at in range(0, len(said), step):
            self.loop.send(self.connection, said[at : at + step])
            while self.sock.incoming:
                self.loop.send(self.connection, b"")
        self.loop.serve()
        return self.read()

    def has_end(self) -> bool:
        """Whether the connection has ended with close_notify."""
        self.pump(deliver=False)
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True
        except (ssl.SSLWantReadError, ssl.SSLEOFError):
            return False


class SealedMemory:
    """Stands between a transport and OpenSSL's memory, and notes the most that ever was in each part of it."""

    def __init__(self, transport: Any) -> None:
        self._memory, transport._incoming = transport._incoming, self
        transport._tls = self.tls = WatchedTls(transport._tls, transport._outgoing)
        self.most = 0

    @property
    def pending(self) -> int:
        return int(self._memory.pending)

    def write(self, data: bytes | memoryview) -> int:
        written = self._memory.write(data)
        self.most = max(self.most, self.pending)
        return int(written)


class WatchedTls:
    """OpenSSL's side of a connection, which puts what it seals into ``outgoing``."""

    def __init__(self, tls: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> None:
        self._tls, self._outgoing = tls, outgoing
        self.pending, self.unwrap = tls.pending, tls.unwrap
        self.most = 0

    def write(self, data: bytes | memoryview) -> int:
        written = self._tls.write(data)
        self.most = max(self.most, self._outgoing.pending)
        return written

    def read(self, size: int) -> bytes:
        try:
            return self._tls.read(size)
        finally:
            self.most = max(self.most, self._outgoing.pending)


def listener(tls: ssl.SSLContext) -> Any:
    made = FakeListener()
    made.tls = tls
    return made


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return credentials.server(tmp_path)


@pytest.fixture
def client(tls: ssl.SSLContext) -> Iterator[Client]:
    made = Client(tls)
    made.shake()
    yield made
    made.connection.close()


def test_a_request_and_its_answer_are_sealed(client: Client) -> None:
    assert client.ask().endswith(b"GET /path 0")
    assert b"GET /path" not in client.sock.sent
    assert client.connection.state is READING
    assert client.ask(GET.replace(b"/path", b"/next")).endswith(b"GET /next 0")


def test_a_handshake_may_come_byte_by_byte(tls: ssl.SSLContext) -> None:
    client = Client(tls)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    hello = client._outgoing.read()
    for at in range(len(hello)):
        client.loop.send(client.connection, hello[at : at + 1])
    client.shake()
    assert client.ask().endswith(b"GET /path 0")
    client.connection.close()


def test_the_application_learns_of_the_clients_tls(tls: ssl.SSLContext) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    client = Client(tls, FakeLoop(app))
    client.shake()
    client.ask()
    ((https, scheme, version),) = [(each["HTTPS"], each["wsgi.url_scheme"], each["SSL_PROTOCOL"]) for each in seen]
    assert (https, scheme, version) == ("on", "https", client.tls.version())
    client.connection.close()


def test_an_answer_of_several_records_goes_out_in_one_call(tls: ssl.SSLContext) -> None:
    size = 200_000

    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    client = Client(tls, FakeLoop(app))
    client.shake()
    before = client.sock.sends
    assert client.ask().endswith(b"x" * size)
    assert client.sock.sends == before + 1
    client.connection.close()


def test_what_the_client_does_not_take_is_kept_sealed(tls: ssl.SSLContext) -> None:
    size = 600_000

    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    client = Client(tls, FakeLoop(app))
    client.shake()
    client.sock.room = 1000
    got = client.ask()
    while client.connection in client.loop.poller.writing:
        client.sock.room = 100_000
        client.connection.writable(4)
        got += client.read()
    assert got.endswith(b"x" * size)
    assert client.connection.state is READING
    client.connection.close()


def test_a_body_is_opened_as_it_comes(client: Client) -> None:
    client.tls.write(b"POST /path HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    client.pump()
    for _ in range(10):
        client.tls.write(b"x" * 10_000)
        client.pump()
    client.loop.serve()
    assert client.read().endswith(b"POST /path 100000")


def test_a_connection_of_tls_stays_with_the_worker_that_has_read_of_it(tls: ssl.SSLContext) -> None:
    """Its keys are made of that. Until then it is as good in another worker."""
    client = Client(tls)
    assert not client.connection.stays
    client.loop.send(client.connection, b"\x16")
    assert client.connection.stays
    assert not client.connection.can_move


def test_an_orderly_end_has_close_notify_and_one_that_is_cut_off_has_none(tls: ssl.SSLContext) -> None:
    """So the client can tell an end from an interruption (RFC 8446 section 6.1)."""
    orderly, cut, lingering = (Client(tls) for _ in range(3))
    for each in (orderly, cut, lingering):
        each.shake()
        each.ask()
    orderly.connection.close()
    cut.connection.reset()
    lingering.ask(GET[:-2] + b"Connection: close\r\n\r\n")
    assert [each.has_end() for each in (orderly, cut)] == [True, False]
    assert lingering.connection.state in (CLOSED, LINGERING)
    lingering.connection.close()


def test_a_client_that_speaks_http_is_told_so_in_the_clear(tls: ssl.SSLContext) -> None:
    client = Client(tls)
    client.loop.send(client.connection, GET)
    assert bytes(client.sock.sent).startswith(b"HTTP/1.1 400 ")
    assert HINT.encode() in client.sock.sent
    assert client.connection.state is LINGERING


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\0\x05hello", b"\x16" + bytes(100)])
def test_a_handshake_that_fails_ends_with_an_alert(tls: ssl.SSLContext, garbage: bytes) -> None:
    client = Client(tls)
    client.loop.send(client.connection, garbage)
    assert client.connection.state is CLOSED
    assert bytes(client.sock.sent[:1]) in (b"\x15", b"")
    assert not client.loop.access


def test_a_client_that_goes_in_its_handshake_is_closed(tls: ssl.SSLContext) -> None:
    client = Client(tls)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.pump()
    client.sock.ended = True
    client.loop.send(client.connection, b"")
    assert client.connection.state is CLOSED


def test_a_handshake_that_hangs_counts_as_a_head_that_does_not_come(tls: ssl.SSLContext) -> None:
    client = Client(tls, FakeLoop(header_timeout=15.0))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.pump()
    assert client.connection.head_bytes > 0
    client.loop.pass_time(16)
    assert client.connection.state is CLOSED


def test_a_record_that_was_tampered_with_ends_the_connection(client: Client) -> None:
    client.tls.write(GET)
    said = bytearray(client._outgoing.read())
    said[-1] ^= 1
    client.loop.send(client.connection, bytes(said))
    assert client.connection.state is CLOSED
    assert not client.loop.submitted


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    data = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]


@pytest.fixture
def echoing(tls: ssl.SSLContext) -> Iterator[Client]:
    """A client whose body is sent back."""
    made = Client(tls, FakeLoop(echo))
    made.shake()
    yield made
    made.connection.close()


@pytest.mark.parametrize("room", [1 << 30, 1000])
def test_openssl_never_holds_much_more_than_a_record_of_an_answer(echoing: Client, room: int) -> None:
    """Its memory never shrinks: what was in it once is taken from the machine as long as the connection is kept."""
    memory = SealedMemory(echoing.connection.transport)
    echoing.sock.room = room
    got = echoing.upload(PATTERN, 1 << 20)
    while echoing.connection in echoing.loop.poller.writing:
        echoing.sock.room = 100_000
        echoing.connection.writable(4)
        got += echoing.read()
    assert got.endswith(PATTERN)
    assert RECORD < memory.tls.most < RECORD + 300


def test_openssl_never_holds_much_more_than_a_record_of_the_extensions_answer(client: Client) -> None:
    memory = SealedMemory(client.connection.transport)
    before = client.sock.sends
    assert client.connection.transport.send_whole(b"head", PATTERN[:250_000]) == b""
    assert client.sock.sends == before + 1
    assert client.read() == b"head" + PATTERN[:250_000]
    assert RECORD < memory.tls.most < RECORD + 300


def test_openssl_never_holds_much_more_than_a_record_of_a_file(tls: ssl.SSLContext, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PATTERN)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(len(PATTERN)))])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    client = Client(tls, FakeLoop(app))
    client.shake()
    memory = SealedMemory(client.connection.transport)
    assert client.ask().endswith(PATTERN)
    assert RECORD < memory.tls.most < RECORD + 300
    client.connection.close()


@pytest.mark.parametrize("step", [1 << 20, 50_000, 4099])
def test_openssl_never_holds_more_than_two_records_of_an_upload(echoing: Client, step: int) -> None:
    """However it is cut: all of it is read, and nothing is left in OpenSSL's memory."""
    memory = SealedMemory(echoing.connection.transport)
    assert echoing.upload(PATTERN, step).endswith(PATTERN)
    assert 0 < memory.most <= 2 * RECORD
    assert not memory.pending


def test_an_upload_in_records_of_a_few_bytes_is_whole(echoing: Client) -> None:
    body = PATTERN[:9000]
    echoing.tls.write(b"POST /path HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n")
    for at in range(0, len(body), 3):
        echoing.tls.write(body[at : at + 3])
    echoing.pump()
    while echoing.sock.incoming:
        echoing.loop.send(echoing.connection, b"")
    echoing.loop.serve()
    assert echoing.read().endswith(body)


def test_what_follows_a_close_notify_is_not_read(echoing: Client) -> None:
    """The request before it is answered; bytes behind it belong to no record."""
    memory = SealedMemory(echoing.connection.transport)
    body = PATTERN[:200_000]
    echoing.upload(body, 1 << 20)  # so that reads are large
    echoing.tls.write(GET)
    with pytest.raises(ssl.SSLWantReadError):
        echoing.tls.unwrap()
    said = echoing._outgoing.read()
    echoing.loop.send(echoing.connection, said + b"x" * (60_000 - len(said)))
    echoing.loop.serve()
    assert b"Content-Length: 0\r\n" in echoing.read()
    assert memory.most <= 2 * RECORD
    echoing.loop.send(echoing.connection, b"")
    assert echoing.connection.state is CLOSED


@pytest.mark.parametrize(("head", "size"), [(0, 100), (0, 3 * RECORD), (200, 3 * RECORD), (RECORD, 5), (40_000, 5)])
@pytest.mark.parametrize("room", [0, 50, 20_000])
def test_what_the_kernel_does_not_take_of_a_whole_answer_is_given_back(
    client: Client, head: int, size: int, room: int
) -> None:
    client.sock.room, before = room, len(client.sock.sent)
    rest = client.connection.transport.send_whole(b"h" * head, PATTERN[:size])
    taken = len(client.sock.sent) - before
    assert taken == min(room, taken + len(rest))
    client.sock.room = 1 << 30
    client.connection.transport.keep(rest)
    client.connection.transport.flush()
    assert client.read() == b"h" * head + PATTERN[:size]


@pytest.mark.parametrize("size", [100, 3 * RECORD])
def test_a_whole_answer_goes_out_behind_what_was_kept_before(client: Client, size: int) -> None:
    transport = client.connection.transport
    client.sock.room = 0
    transport.send(b"first")
    rest = transport.send_whole(PATTERN[:size])
    transport.keep(rest)
    client.sock.room = 1 << 30
    transport.flush()
    assert client.read() == b"first" + PATTERN[:size]


@pytest.mark.parametrize("size", [100, 3 * RECORD])
def test_a_client_that_has_gone_is_told_from_one_that_takes_nothing(client: Client, size: int) -> None:
    client.sock.failed = True
    assert client.connection.transport.send_whole(PATTERN[:size]) is None
    with pytest.raises(ClientGoneError):
        client.connection.transport.send(PATTERN[:size])
