"""Clients that do not take their answers cost neither the disk nor other clients' time."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from forkserver.ipc.scoreboard import BUSY_SINCE, DEADLINE, ROW_WORDS
from forkserver.server.buffers import send_rate as pace_room
from harness.worker import StartWorker

MIB = 1024 * 1024
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def large(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """/N: N MiB in blocks of 256 KiB; /half: half a MiB; /block: 6 MiB in one; anything else: a word."""
    path = environ["PATH_INFO"][1:]
    environ["wsgi.input"].read()
    start_response("200 OK", [])
    if path == "half":
        return [bytes(MIB // 2)]
    if path == "block":
        return [bytes(6 * MIB)]
    return (bytes(MIB // 4) for _ in range(4 * int(path))) if path.isdigit() else [b"small"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's clock cannot be set: here a client takes nothing at present as soon as it took nothing for 20 ms."""
    monkeypatch.setattr(pace_room, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(pace_room, "_FIRST_SECONDS", inf)


def unread(server: Any, size: int | bytes) -> socket.socket:
    """A client that has asked for so many MiB, or for what the path says, and reads nothing."""
    path = size if isinstance(size, bytes) else b"%d" % size
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client: socket.socket = server.client(GET % path, receive_buffer=4096)
    server.turn(2)
    return client


def held(server: Any) -> set[Any]:
    return {each.peer for each in server.loop.connections}


def test_unread_answers_give_way_to_others(worker: StartWorker, capfd: pytest.CaptureFixture[str]) -> None:
    """The slowest are cut off, and the log says so once with figures."""
    server = worker(large, max_spool=64 * MIB, max_body=MIB, spool_keep_free=0)
    clients = []
    for _ in range(12):
        clients.append(unread(server, 5))
        server.pass_time(2)
    assert server.loop.context.spool.used <= 24 * MIB
    assert clients[-1].getsockname() in held(server)
    assert clients[0].getsockname() not in held(server)
    told = re.findall(r"no room in the spool: .*", capfd.readouterr().err)
    assert len(told) == 1
    assert re.search(r"more than 16 MiB.* cut off 1 answer .* at 0 bytes a second", told[0])


def test_a_reader_that_goes_on_is_not_cut_off(worker: StartWorker) -> None:
    server = worker(large, max_spool=64 * MIB, max_body=MIB, spool_keep_free=0)
    reader = unread(server, 5)
    got = 0
    for _ in range(8):
        unread(server, 5)
        for _ in range(40):
            server.turn()
            try:
                got += len(reader.recv(65536))
            except BlockingIOError:
                continue
        server.clock.now += 1.5
    assert reader.getsockname() in held(server) or got > 5 * MIB


def test_a_drip_is_no_progress(worker: StartWorker) -> None:
    """A client that takes a few bytes in a minute keeps neither the answer nor the connection."""
    server = worker(large, write_timeout=60.0)
    client = unread(server, 5)
    for _ in range(3):
        client.recv(100)
        server.pass_time(25)
    server.turn()
    assert client.getsockname() not in held(server)


@pytest.fixture
def waiting(worker: StartWorker) -> Callable[..., Any]:
    """A worker whose call waits for a client: the answer is larger than one may keep. ``looks`` sees each wait."""

    def make(looks: Callable[[Any], object], **changes: Any) -> Any:
        server = worker(large, max_spool=16 * MIB, max_body=MIB, spool_keep_free=0, **changes)
        real = server.clock.wait_writable

        def look(fd: int, seconds: float) -> bool:
            looks(server)
            return bool(real(fd, seconds))

        server.loop.wait_writable = look
        return server

    return make


def test_a_call_that_waits_for_its_client_is_no_hang(waiting: Callable[..., Any]) -> None:
    """The master sees that it waits, and that time is added to what the call may last."""
    seen = []

    def look(server: Any) -> None:
        call = server.row.busy()
        seen.append((call.awaits_client, call.deadline))

    server = waiting(look, timeout=30.0, write_timeout=5.0)
    ends: list[tuple[bool, int, int]] = []
    row = server.row
    real = server.loop.context.request_deadline.await_client

    def noted(waits: bool, thread: int, seconds: float = 0.0) -> None:
        real(waits, thread, seconds)
        if not waits:
            ends.append((row.busy().awaits_client, row.words[ROW_WORDS + DEADLINE], row.words[ROW_WORDS + BUSY_SINCE]))

    server.loop.context.request_deadline.await_client = noted
    client = unread(server, 10)
    assert seen
    assert all(waits for waits, _ in seen)
    waits, deadline, since = ends[-1]
    assert not waits
    assert deadline - since >= 35e9
    assert client.getsockname() not in held(server), "no progress for write_timeout"
    assert server.loop.context.spool.used == 0


def ask_with_little_room(server: Any, readers: list[socket.socket], request: bytes) -> None:
    """Send ``request`` on a new connection, the first of ``readers``, for which the kernel keeps hardly anything."""
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    readers.append(server.client())
    server.turn(2)
    readers[0].sendall(request)
    server.turn(2)


def test_a_client_that_takes_its_answer_in_time_gets_all_of_it(waiting: Callable[..., Any]) -> None:
    got: list[bytes] = []
    readers: list[socket.socket] = []

    def look(server: Any) -> None:
        try:
            got.append(readers[0].recv(MIB))
        except BlockingIOError:
            return

    server = waiting(look)
    ask_with_little_room(server, readers, GET % b"6")
    for _ in range(1000):
        if got and got[-1].endswith(b"\r\n0\r\n\r\n"):
            break
        got.append(server.until_answered(readers[0]))
    assert b"".join(got).count(b"\r\n40000\r\n") == 24


def test_a_client_that_takes_one_large_block_steadily_gets_all_of_it(waiting: Callable[..., Any]) -> None:
    """It makes progress although nothing of the block can be kept until most of it was taken."""
    got: list[bytes] = []
    readers: list[socket.socket] = []

    def look(server: Any) -> None:
        try:
            got.append(readers[0].recv(MIB))
        except BlockingIOError:
            return
        server.clock.now += 1.0

    server = waiting(look, write_timeout=5.0)
    ask_with_little_room(server, readers, GET % b"block")
    assert server.clock.now > 1010.0, "it waited for longer than write_timeout"
    for _ in range(1000):
        if sum(map(len, got)) > 6 * MIB:
            break
        got.append(server.until_answered(readers[0]))
    assert b"".join(got).partition(b"\r\n\r\n")[2] == bytes(6 * MIB)


def test_a_slow_reader_does_not_keep_the_only_thread_from_others(
    waiting: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """With no other request waiting it would have all of write_timeout."""
    others: list[socket.socket] = []

    def look(server: Any) -> None:
        if not others:
            others.append(server.client(GET % b""))

    server = waiting(look, write_timeout=600.0)
    began = server.clock.now
    slow = unread(server, 10)
    assert server.clock.now - began < 10
    assert slow.getsockname() not in held(server)
    assert server.until_answered(others[0], 5).endswith(b"small")
    assert re.search(
        r'"GET /10" from 127\.0\.0\.1: cut off, for its client took .* requests wait', capfd.readouterr().err
    )


def test_a_body_for_which_there_is_no_room_is_refused_before_it_is_sent(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """503 with Retry-After, as soon as its length is known; the log says it once."""
    server = worker(large, max_spool=MIB, max_body=MIB, body_memory=0, spool_keep_free=0)
    server.loop.context.spool.take(MIB // 2)
    for _ in range(3):
        answer = server.until_answered(server.client(POST % 900_000), 5)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in answer
    told = re.findall(r"cannot keep a request body.*", capfd.readouterr().err)
    assert len(told) == 1
    assert "max_spool (1 MiB, all workers together) is used up" in told[0]


def test_unread_answers_do_not_keep_uploads_out(worker: StartWorker) -> None:
    server = worker(large, max_spool=16 * MIB, max_body=14 * MIB, body_memory=0, spool_keep_free=0)
    for _ in range(4):
        unread(server, 2)
    server.pass_time(2)
    upload = server.client(POST % (13 * MIB))
    server.turn(2)
    answer = server.until_answered(upload, 3)
    assert answer == b"", "it is not refused"


def test_one_reader_cannot_take_the_whole_spool(worker: StartWorker) -> None:
    """A response has a share; uploads of others need room too."""
    server = worker(max_spool=8_000_000, max_body=1_000_000, write_timeout=0.01)
    server.httpd.set_app(lambda environ, start: (start("200 OK", []), (b"z" * 100_000 for _ in range(100)))[1])
    server.client(GET % b"", receive_buffer=4096)
    server.turn(2)
    assert server.loop.context.spool.used <= 2_000_000


def test_small_blocks_cost_their_overhead(worker: StartWorker) -> None:
    """A million one-byte blocks are no megabyte."""
    server = worker(lambda environ, start: (start("200 OK", []), (b"x" for _ in range(50_000)))[1])
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted sockets inherit it
    server.client(GET % b"", receive_buffer=4096)
    server.turn(2)
    [connection] = server.loop.connections
    assert len(connection.transport.out.parts) < 5000
