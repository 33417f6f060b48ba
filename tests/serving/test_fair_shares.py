"""A connection gets its share of a turn: what it has sent beyond waits until others had theirs."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from forkserver.linux.sockets.resets import reset_at_close
from forkserver.server.buffers.request_body import StreamedBody
from forkserver.server.connection.transport import SHARE_BYTES
from harness import BOUND, credentials
from harness.worker import arrived

GET = b"GET /modest HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = 20_000
Serve = Callable[..., Any]


def test_many_small_chunks_do_not_keep_others_waiting(worker: Serve) -> None:
    """The other is served while most of the chunks still wait, and none of them is lost."""
    server = worker()
    greedy = server.client(CHUNKED)
    server.turn(2)
    greedy.sendall(b"1\r\nx\r\n" * CHUNKS)
    server.turn()
    modest = server.client(GET)
    arrived(modest)
    assert server.until_answered(modest, 3).endswith(b"/modest 0")
    (upload,) = [each.upload for each in server.loop.connections if isinstance(each.upload, StreamedBody)]
    assert 0 < upload.size < CHUNKS / 4
    greedy.sendall(b"0\r\n\r\n")
    assert server.until_answered(greedy, 1000).endswith(b"POST / %d" % CHUNKS)


def test_a_crowd_with_small_chunks_does_not_keep_others_waiting(worker: Serve) -> None:
    """A client that has sent little comes before those that have sent more than their share, however many these are."""
    server = worker()
    crowd = [server.client(CHUNKED) for _ in range(40)]
    server.turn_until(lambda: sum(each.upload is not None for each in server.loop.connections) == len(crowd))
    for client in crowd:
        client.sendall(b"1\r\nx\r\n" * 2000)
        arrived(client)
    server.turn(2)
    taken = sum(each.upload.size for each in server.loop.connections)
    modest = server.client(GET)
    arrived(modest)
    assert server.until_answered(modest, 3).endswith(b"/modest 0")
    shares = sum(each.upload.size for each in server.loop.connections if each.upload) - taken
    assert shares <= 4 * 16 * 256, "a turn goes on with a part of the crowd only"


def test_a_body_that_has_come_whole_in_small_chunks_is_served_without_another_event(worker: Serve) -> None:
    """What was read is not seen by epoll any more."""
    server = worker()
    client = server.client(CHUNKED + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n" + GET)
    answers = server.until_answered(client, 200)
    assert b"POST / 2000" in answers
    assert answers.endswith(b"/modest 0")


def test_a_body_that_waits_for_its_turn_is_neither_too_slow_nor_closed_to_make_room(worker: Serve) -> None:
    """It is the worker that holds it back."""
    server = worker(worker_connections=1)
    client = server.client(CHUNKED)
    server.turn(2)
    client.sendall(b"1\r\nx\r\n" * 2000)
    server.turn()
    server.clock.now += 100
    server.client(GET)
    server.turn()
    client.sendall(b"0\r\n\r\n")
    assert server.until_answered(client, 100).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_leaves_with_chunks_unread_costs_nothing(worker: Serve) -> None:
    server = worker()
    client = server.client(CHUNKED + b"1\r\nx\r\n" * 2000)
    reset_at_close(client)
    server.turn(2)
    client.close()
    while server.loop.connections or server.loop.ready:
        server.turn()
    assert server.loop.context.spool.used == 0


def test_a_file_is_sent_a_share_a_turn(worker: Serve, tmp_path: Path) -> None:
    """A client that reads as fast as the kernel sends would keep the loop to itself."""
    path = tmp_path / "large"
    path.write_bytes(bytes(8 * SHARE_BYTES))

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", str(8 * SHARE_BYTES))])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    server = worker(app)
    client = server.client(GET, receive_buffer=16 * SHARE_BYTES)
    while not server.loop.connections:
        server.turn()
    (connection,) = server.loop.connections
    left = []
    while connection.transport.out or not left:
        server.turn()
        while receive(client):
            pass
        left.append(sum(part.count for part in connection.transport.out.parts) if connection.transport.out else 0)
    assert left[0] >= 6 * SHARE_BYTES, "a share in the call, and one in the turn behind it"
    assert max(before - after for before, after in pairwise(left)) <= SHARE_BYTES


def receive(client: socket.socket) -> bytes:
    """What has come, without waiting."""
    try:
        return client.recv(SHARE_BYTES)
    except BlockingIOError:
        return b""


def test_small_tls_records_do_not_keep_others_waiting(worker: Serve, tmp_path: Path) -> None:
    """A record of one byte costs as much as one of a thousand: few bytes are read where records are small."""
    server = worker(tls=credentials.server(tmp_path))
    client = Sealed(server)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    server.turn(3)
    (connection,) = server.loop.connections
    client.send(*[b"x"] * 3000)
    before = connection.upload.size
    server.turn()  # it has not shown yet that its records are small
    counts = []
    for _ in range(5):
        before = connection.upload.size
        server.turn()
        counts.append(connection.upload.size - before)
    assert max(counts) < 256
    assert sum(counts) > 0
    progress = connection.upload.progress
    assert progress.received > 20 * connection.upload.size, "bytes on the wire, records included"
    client.send(*[b"x" * 15_000] * 3, b"x" * 12_000)
    for _ in range(100):
        if client.answer():
            break
        server.turn()
    assert b"POST / 60000" in client.answered


class Sealed:
    """A TLS client whose records are those that the test gives."""

    def __init__(self, server: Any) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = credentials.client().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._sock = server.client()
        self.answered = b""
        for _ in range(50):
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                server.turn()
                self._incoming.write(receive(self._sock))
        self._flush()
        server.turn(2)

    def send(self, *records: bytes) -> None:
        for record in records:
            self._tls.write(record)
        self._flush()

    def _flush(self) -> None:
        self._sock.settimeout(BOUND)
        self._sock.sendall(self._outgoing.read())
        self._sock.setblocking(False)

    def answer(self) -> bytes:
        """What has been answered so far."""
        if data := receive(self._sock):
            self._incoming.write(data)
            try:
                while part := self._tls.read():
                    self.answered += part
            except ssl.SSLWantReadError:
                pass
        return self.answered
