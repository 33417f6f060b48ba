"""What of a connection of TLS stands in OpenSSL's memory at once, and what goes out, record by record."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.connection.states import CLOSED
from forkserver.server.wsgi.response_sink import ClientGoneError
from harness.fakes import FakeLoop
from harness.memory_client import GET, Client, SealedMemory

RECORD = 16 * 1024  # plain; sealed it takes some bytes more
PATTERN = bytes(range(251)) * 2000  # of half a megabyte: no two records of it are alike


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
