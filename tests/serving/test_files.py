"""A file that is sent is the file that the application gave, to its last byte, whatever becomes of it meanwhile."""

from __future__ import annotations

import os
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.ipc.scoreboard import REQUESTS
from forkserver.linux.sockets.resets import reset_at_close
from forkserver.server.connection.states import DRAINING
from harness import credentials
from harness.worker import StartWorker

SIZE = 512 * 1024  # more than the sockets here take, and more than a body has in memory
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def send_back(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Answers with the request's body, by the file wrapper."""
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](environ["wsgi.input"])


def upload(framing: str, body: bytes) -> bytes:
    if framing == "chunked":
        return POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def send(server: Any, client: socket.socket, data: bytes) -> None:
    """Send ``data`` while the worker turns: it is more than the kernel keeps."""
    view = memoryview(data)
    while view:
        try:
            view = view[client.send(view) :]
        except BlockingIOError:
            server.turn()


def slow_client(server: Any, *sent: bytes) -> socket.socket:
    """A client that takes little before it reads."""
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted sockets inherit it
    client: socket.socket = server.client(*sent, receive_buffer=4096)
    return client


def connection_of(server: Any, client: socket.socket) -> Any:
    server.turn_until(lambda: any(each.peer == client.getsockname() for each in server.loop.connections))
    return next(each for each in server.loop.connections if each.peer == client.getsockname())


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_an_upload_that_is_sent_back_is_not_another_clients_upload(worker: StartWorker, framing: str) -> None:
    """The spool's file ends with the call, and its number is the next upload's while the first client still reads."""
    server = worker(send_back, body_memory=0)
    other = server.client(b"G")  # which has its socket's number already
    server.turn(2)
    slow = slow_client(server)
    send(server, slow, upload(framing, b"A" * SIZE))
    server.turn_until(lambda: connection_of(server, slow).state == DRAINING)
    send(server, other, b"ET / HTTP/1.1\r\nHost: a\r\n\r\n" + POST + b"Content-Length: %d\r\n\r\n" % (SIZE + 1))
    send(server, other, b"B" * SIZE)
    server.turn_until(lambda: (rest := connection_of(server, other).upload) and rest.size == SIZE)
    got = body_of(server.until_answered(slow, 5000))
    assert (len(got), got.count(b"A")) == (SIZE, SIZE)


def test_an_upload_that_is_sent_back_takes_the_spool_until_it_is_sent(worker: StartWorker) -> None:
    """Else clients that read slowly would fill the disk beyond max_spool."""
    server = worker(send_back, body_memory=0)
    slow = slow_client(server)
    send(server, slow, upload("length", b"A" * SIZE))
    server.turn_until(lambda: connection_of(server, slow).state == DRAINING)
    assert server.loop.context.spool.used == SIZE
    assert len(body_of(server.until_answered(slow, 5000))) == SIZE
    assert server.loop.context.spool.used == 0


def test_a_client_that_leaves_gives_the_spool_back(worker: StartWorker) -> None:
    server = worker(send_back, body_memory=0)
    slow = slow_client(server)
    send(server, slow, upload("length", b"A" * SIZE))
    server.turn_until(lambda: connection_of(server, slow).state == DRAINING)
    slow.close()
    server.turn_until(lambda: not server.loop.connections)
    assert server.loop.context.spool.used == 0


def test_an_upload_over_tls_is_sent_back_as_it_came(worker: StartWorker, tmp_path: Path) -> None:
    """There the file is read and sealed piece by piece while the client takes it."""
    server = worker(send_back, body_memory=0, tls=credentials.server(tmp_path))
    plain = slow_client(server)
    wrap = credentials.client().wrap_socket
    with wrap(plain, do_handshake_on_connect=False, server_hostname="localhost") as client:
        client.setblocking(False)

        def until(step: Callable[[], Any]) -> Any:
            for _ in range(1000):
                try:
                    return step()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    server.turn()
            raise AssertionError("nothing comes, and nothing is taken")

        until(client.do_handshake)
        view = memoryview(upload("length", b"A" * SIZE))
        while view:
            view = view[until(lambda view=view: client.send(view[:16384])) :]  # type: ignore[misc]
        got = b""
        while len(body_of(got)) < SIZE:
            got += until(lambda: client.recv(SIZE))
    assert body_of(got).count(b"A") == SIZE


class Files:
    """Two files of one size with different bytes, and an application that answers with the first one, ``file``."""

    def __init__(self, folder: Path) -> None:
        self.paths = folder / "first", folder / "second"
        for path, letter in zip(self.paths, (b"1", b"2"), strict=True):
            path.write_bytes(letter * SIZE)
        self.before: Callable[[], object] = lambda: None
        self.opened: list[Any] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] != "/file":
            self.before()
            start_response("200 OK", [])
            return [b"other"]
        self.opened.append(self.paths[0].open("rb"))
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](self.opened[-1])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_file_that_the_application_closes_is_sent_to_its_end(worker: StartWorker, files: Files) -> None:
    """A worker thread of its own, a cache that is emptied, a weak reference that has gone: it is not to know of us."""
    server = worker(files)
    slow = slow_client(server, GET % b"file")
    server.turn_until(lambda: files.opened)
    number = files.opened[0].fileno()
    files.opened[0].close()
    with files.paths[1].open("rb") as other:
        assert other.fileno() == number
        assert body_of(server.until_answered(slow, 5000)) == b"1" * SIZE


def test_a_file_is_closed_once_and_when_it_is_sent(worker: StartWorker, files: Files) -> None:
    server = worker(files)
    slow = slow_client(server, GET % b"file")
    server.turn_until(lambda: files.opened)
    assert not files.opened[0].closed
    server.until_answered(slow, 5000)
    assert files.opened[0].closed


def test_the_same_wrapper_may_be_answered_with_twice(worker: StartWorker, files: Files) -> None:
    """The first answer closes the file when it is out, and the second one is on its way then."""
    made: list[Any] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if not made:
            made.append(environ["wsgi.file_wrapper"](files.paths[0].open("rb")))
        start_response("200 OK", [])
        return made[0]

    server = worker(app)
    quick, slow = slow_client(server), slow_client(server)
    for client in (quick, slow):
        client.sendall(GET % b"")
        server.turn_until(lambda client=client: connection_of(server, client).state == DRAINING)  # type: ignore[misc]
    assert body_of(server.until_answered(quick, 5000)) == b"1" * SIZE
    assert made[0].filelike.closed
    assert body_of(server.until_answered(slow, 5000)) == b"1" * SIZE


def test_a_request_behind_a_file_that_is_on_its_way_waits_for_it(worker: StartWorker, files: Files) -> None:
    server = worker(files)
    client = slow_client(server, GET % b"file" + GET % b"" + GET % b"file")
    got = server.until_answered(client, 10_000)
    assert got.count(b"HTTP/1.1 200 OK") == 3
    first, second = got.index(b"1" * SIZE), got.index(b"other")
    assert first < second
    assert got.endswith(b"1" * SIZE)


def test_without_a_free_descriptor_a_file_is_read(worker: StartWorker, files: Files) -> None:
    """A limit of files is no reason to fail an answer, nor to send from a number that is not our own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        file = files.paths[0].open("rb")
        file.seek(SIZE - 1000)
        lowest = os.dup(file.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file)

    server = worker(app)
    client = server.client(GET % b"")
    try:
        server.turn_until(lambda: server.row.words[REQUESTS])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert body_of(server.until_answered(client)) == b"1" * 1000


def test_a_client_that_leaves_its_file_has_it_closed(worker: StartWorker, files: Files) -> None:
    server = worker(files)
    slow = slow_client(server, GET % b"file")
    server.turn_until(lambda: files.opened)
    slow.close()
    server.turn_until(lambda: not server.loop.connections)
    assert files.opened[0].closed


class Access:
    """An access log of the size of each answer."""

    enabled = plain = True
    parts = ()

    def __init__(self, server: Any) -> None:
        self.sizes: list[int] = []
        server.replace(access=self)
        server.replace(access=self)

    def add(self, *entry: Any) -> None:
        self.sizes.append(entry[4])

    def flush(self) -> None:
        """It writes nothing."""


def of_a_file(path: Path) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    return app


def of_a_block(path: Path) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        return [path.read_bytes()]

    return app


@pytest.mark.parametrize("kind", [of_a_file, of_a_block])
@pytest.mark.parametrize("reset", [True, False], ids=["cut", "out of time"])
def test_the_access_log_has_what_was_sent_of_an_answer_that_was_cut(
    worker: StartWorker, tmp_path: Path, kind: Callable[[Path], Any], reset: bool
) -> None:
    """A count of traffic by it, or a look for downloads that failed, is not told of bytes that never left."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * SIZE)
    server = worker(kind(path))
    access = Access(server)
    client = slow_client(server, GET % b"file")
    server.turn_until(lambda: any(each.state == DRAINING for each in server.loop.connections))
    assert access.sizes == [], "how much it was is not known yet"
    if reset:
        reset_at_close(client)
        client.close()
        server.turn_until(lambda: not server.loop.connections)
    else:
        server.pass_time(server.loop.context.settings.write_timeout + 1)
        assert not server.loop.connections
    (size,) = access.sizes
    assert 0 < size < SIZE // 2


def one_block(start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"x" * SIZE]


def two_blocks(start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"x" * SIZE, b"y" * SIZE]


def stream(start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield from (b"x" * SIZE, b"y" * SIZE)


def written(start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])(b"x" * SIZE)
    return []


class Blocking(WSGIRequestHandler):
    def handle(self) -> None:
        super().handle()


@pytest.mark.parametrize("kind", [one_block, two_blocks, stream, written])
@pytest.mark.parametrize("handler", [WSGIRequestHandler, Blocking])
def test_the_access_log_has_nothing_of_an_answer_whose_client_has_gone_before_it(
    worker: StartWorker, kind: Callable[..., Any], handler: type
) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        reset_at_close(client)
        client.close()
        return kind(start_response)

    server = worker(app, handler=handler)
    access = Access(server)
    client = server.client(GET % b"")
    server.turn_until(lambda: access.sizes)
    assert access.sizes == [0]


def test_the_access_log_has_what_was_sent_of_a_block_before_its_client_ran_out_of_time(
    worker: StartWorker,
) -> None:
    """A part of it was sent or kept, and the call waited for room for the rest."""

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"x" * 8 * SIZE]

    server = worker(app, max_spool=0, write_timeout=5.0)
    access = Access(server)
    slow_client(server, GET % b"")
    server.turn_until(lambda: access.sizes)
    assert 0 < access.sizes[0] < SIZE


@pytest.mark.parametrize("kind", [of_a_file, of_a_block])
def test_the_access_log_has_an_answer_that_is_taken_slowly_once_and_whole(
    worker: StartWorker, tmp_path: Path, kind: Callable[[Path], Any]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * SIZE)
    server = worker(kind(path))
    access = Access(server)
    client = slow_client(server, GET % b"file")
    answer = server.until_answered(client, 5000)
    assert len(answer.partition(b"\r\n\r\n")[2]) == SIZE
    assert access.sizes == [SIZE]
