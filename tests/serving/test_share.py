"""A connection gets its share of a turn: what it has sent beyond waits until others had theirs."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from forkserver.server.connection.request_body import StreamedBody
from forkserver.server.connection.transport import SHARE_BYTES
from harness import BOUND, credentials

GET = b"GET /modest HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = 20_000
Serve = Callable[..., Any]


def test_many_small_chunks_do_not_keep_others_waiting(serve: Serve) -> None:
    """The other is served while most of the chunks still wait, and none of them is lost."""
    worker = serve()
    greedy = worker.client(CHUNKED)
    worker.turn(2)
    greedy.sendall(b"1\r\nx\r\n" * CHUNKS)
    worker.turn()
    modest = worker.client(GET)
    assert worker.until_answered(modest, 3).endswith(b"/modest 0")
    (upload,) = [each.upload for each in worker.loop.connections if isinstance(each.upload, StreamedBody)]
    assert 0 < upload.size < CHUNKS / 4
    greedy.sendall(b"0\r\n\r\n")
    assert worker.until_answered(greedy, 1000).endswith(b"POST / %d" % CHUNKS)


def test_a_crowd_with_small_chunks_does_not_keep_others_waiting(serve: Serve) -> None:
    """Whoever has sent little comes before those that have sent more than their share, however many these are."""
    worker = serve()
    crowd = [worker.client(CHUNKED) for _ in range(40)]
    worker.turn(45)
    for client in crowd:
        client.sendall(b"1\r\nx\r\n" * 2000)
    worker.turn(2)
    taken = sum(each.upload.size for each in worker.loop.connections)
    modest = worker.client(GET)
    assert worker.until_answered(modest, 3).endswith(b"/modest 0")
    shares = sum(each.upload.size for each in worker.loop.connections if each.upload) - taken
    assert shares <= 4 * 16 * 256, "a turn goes on with a part of the crowd only"


def test_a_body_that_has_come_whole_in_small_chunks_is_served_without_another_event(serve: Serve) -> None:
    """What was read is not seen by epoll any more."""
    worker = serve()
    client = worker.client(CHUNKED + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n" + GET)
    answers = worker.until_answered(client, 200)
    assert b"POST / 2000" in answers
    assert answers.endswith(b"/modest 0")


def test_a_body_that_waits_for_its_turn_is_neither_too_slow_nor_closed_to_make_room(serve: Serve) -> None:
    """It is the worker that holds it back."""
    worker = serve(worker_connections=1)
    client = worker.client(CHUNKED)
    worker.turn(2)
    client.sendall(b"1\r\nx\r\n" * 2000)
    worker.turn()
    worker.clock.now += 100
    worker.client(GET)
    worker.turn()
    client.sendall(b"0\r\n\r\n")
    assert worker.until_answered(client, 100).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_leaves_with_chunks_unread_costs_nothing(serve: Serve) -> None:
    worker = serve()
    client = worker.client(CHUNKED + b"1\r\nx\r\n" * 2000)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    worker.turn(2)
    client.close()
    while worker.loop.connections or worker.loop.ready:
        worker.turn()
    assert worker.loop.spool.used == 0


def test_a_file_is_sent_a_share_a_turn(serve: Serve, tmp_path: Path) -> None:
    """A client that reads as fast as the kernel sends would keep the loop to itself."""
    path = tmp_path / "large"
    path.write_bytes(bytes(8 * SHARE_BYTES))

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", str(8 * SHARE_BYTES))])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    worker = serve(app)
    client = worker.client(GET, receive_buffer=16 * SHARE_BYTES)
    while not worker.loop.connections:
        worker.turn()
    (connection,) = worker.loop.connections
    left = []
    while connection.out or not left:
        worker.turn()
        while receive(client):
            pass
        left.append(sum(part.count for part in connection.out.parts) if connection.out else 0)
    assert left[0] >= 6 * SHARE_BYTES, "a share in the call, and one in the turn behind it"
    assert max(before - after for before, after in pairwise(left)) <= SHARE_BYTES


def receive(client: socket.socket) -> bytes:
    """What has come, without waiting."""
    try:
        return client.recv(SHARE_BYTES)
    except BlockingIOError:
        return b""


def test_small_tls_records_do_not_keep_others_waiting(serve: Serve, tmp_path: Path) -> None:
    """A record of one byte costs as much as one of a thousand: few bytes are read where records are small."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*credentials.write(tmp_path))
    worker = serve(tls=context)
    client = Sealed(worker)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    worker.turn(3)
    (connection,) = worker.loop.connections
    client.send(*[b"x"] * 3000)
    before = connection.upload.size
    worker.turn()  # it has not shown yet that its records are small
    counts = []
    for _ in range(5):
        before = connection.upload.size
        worker.turn()
        counts.append(connection.upload.size - before)
    assert max(counts) < 256
    assert sum(counts) > 0
    progress = connection.upload.progress
    assert progress.received > 20 * connection.upload.size, "bytes on the wire, records included"
    client.send(*[b"x" * 15_000] * 3, b"x" * 12_000)
    for _ in range(100):
        if client.answer():
            break
        worker.turn()
    assert b"POST / 60000" in client.answered


class Sealed:
    """A TLS client whose records are those that the test gives."""

    def __init__(self, worker: Any) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = credentials.client().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._sock = worker.client()
        self.answered = b""
        for _ in range(50):
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                worker.turn()
                self._incoming.write(receive(self._sock))
        self._flush()
        worker.turn(2)

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
