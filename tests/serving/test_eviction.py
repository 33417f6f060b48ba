"""Which connections a worker closes when it runs short of them, and which it keeps."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

import pytest

from forkserver.server.buffers import send_rate
from forkserver.server.connection.rate_queues import FAST_BYTES
from forkserver.server.pressure.eviction import ANSWER_GRACE_SECONDS, GRACE_SECONDS, STALLED_SECONDS, Shortage
from harness.worker import StartTwoWorkers, StartWorker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHo"
Serve = Callable[..., Any]
GET_PATH = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


def test_half_heads_make_room_for_a_new_client(worker: Serve) -> None:
    """A crowd that sends half a head each, and opens another connection when it is refused, keeps no one out."""
    server = worker(worker_connections=3)
    slow = [server.client(HALF) for _ in range(3)]
    server.turn(4)
    server.pass_time(1)
    assert server.until_answered(server.client(GET), 5).endswith(b"GET / 0")
    assert server.until_answered(slow[0], 3).startswith(b"HTTP/1.1 408 ")
    assert len(server.loop.timeouts.heads) == 2


def test_a_connection_has_a_moment_to_send_its_head(worker: Serve) -> None:
    """What does not fit waits until the first has had its time, and is accepted then without another event."""
    server = worker(worker_connections=2)
    slow = [server.client(HALF) for _ in range(2)]
    server.turn(3)
    newcomer = server.client(GET)
    server.turn(2)
    assert len(server.loop.timeouts.heads) == 2
    server.pass_time(GRACE_SECONDS)
    assert server.until_answered(newcomer, 5).endswith(b"GET / 0")
    assert server.until_answered(slow[0], 3).startswith(b"HTTP/1.1 408 ")


def test_what_has_come_is_read_before_a_head_is_taken_for_slow(worker: Serve) -> None:
    """The worker was late, not the client."""
    server = worker(worker_connections=2)
    late, slow = server.client(HALF), server.client(HALF)
    server.turn(3)
    server.clock.now += 1
    late.sendall(GET[len(HALF) :])
    server.loop.timeouts.now = server.clock.now
    assert server.loop.eviction.evict(1, Shortage.CONNECTIONS) == 1
    assert server.until_answered(late, 3).endswith(b"GET / 0")
    assert server.until_answered(slow, 3).startswith(b"HTTP/1.1 408 ")


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"


def go_on(server: Any, seconds: int, *bodies: tuple[Any, int]) -> None:
    """Let each of ``bodies``, a client and its bytes a second, send for ``seconds``."""
    for _ in range(seconds):
        for client, rate in bodies:
            client.sendall(b"x" * rate)
        server.turn()
        server.pass_time(1)


def test_the_slowest_body_makes_room_for_a_new_client(worker: Serve) -> None:
    """At any rate that is permitted a crowd is still a crowd: the one that comes slowest is the first to go."""
    server = worker(worker_connections=3)
    phone, drip, other = (server.client(POST) for _ in range(3))
    server.turn(4)
    go_on(server, 8, (phone, 2000), (drip, 300), (other, 600))
    assert server.until_answered(server.client(GET), 5).endswith(b"GET / 0")
    assert server.until_answered(drip, 3).startswith(b"HTTP/1.1 408 ")
    phone.sendall(b"x" * (60_000 - 16_000))
    assert server.until_answered(phone, 10).endswith(b"POST / 60000")
    assert other.fileno() >= 0
    assert len(server.loop.timeouts.bodies) == 1


def test_a_request_in_the_hands_of_the_application_is_never_closed_to_make_room(worker: Serve) -> None:
    closed: list[int] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        server.loop.timeouts.now = server.clock.now = server.clock.now + 100
        closed.append(server.loop.eviction.evict(10, Shortage.CONNECTIONS))
        start_response("200 OK", [])
        return [b"served"]

    server = worker(app)
    clients = [server.client(GET), server.client(POST.replace(b"60000", b"10") + b"x" * 10)]  # whole in one segment
    server.turn(9)
    assert len(closed) == 2
    assert all(server.until_answered(client, 9).endswith((b"served", b"served<closed>")) for client in clients)
    assert closed[0] == 0


def test_stalled_uploads_make_room_in_the_spool_for_one_that_would_find_none(worker: Serve) -> None:
    """Else a few that drip keep all others out for as long as body_min_rate lets them."""
    server = worker(max_spool=300_000, max_body=200_000, body_memory=0, spool_keep_free=0)
    large = POST.replace(b"60000", b"200000")
    stalled = server.client(large)
    server.turn(3)
    stalled.sendall(b"x" * 150_000)
    while server.loop.context.spool.used < 150_000:
        server.turn()
    for _ in range(15):
        server.pass_time(1.0)
    good = server.client(large)
    server.turn(3)
    good.sendall(b"x" * 200_000)
    assert server.until_answered(good, 50).endswith(b"POST / 200000")
    assert server.until_answered(stalled, 3).startswith(b"HTTP/1.1 408 ")
    assert server.loop.context.spool.used == 0


def test_slow_bodies_and_heads_do_not_drive_out_who_was_served(worker: Serve) -> None:
    """Idle connections go first only where they are the greater part."""
    server = worker(worker_connections=4)
    served = server.client(GET)
    assert server.until_answered(served, 3).endswith(b"GET / 0")
    slow = [server.client(POST), server.client(HALF), server.client(POST)]
    server.turn(5)
    go_on(server, 3, (slow[0], 60), (slow[2], 60))
    assert server.until_answered(server.client(GET), 5).endswith(b"GET / 0")
    served.sendall(GET)
    assert server.until_answered(served, 3).endswith(b"GET / 0")
    assert server.until_answered(slow[1], 3).startswith(b"HTTP/1.1 408 ")


def test_nothing_is_closed_to_make_room_for_no_client(two_workers: StartTwoWorkers) -> None:
    """A sibling was quicker: the listener's event is of a client that is no longer there."""
    server, _ = two_workers(worker_connections=1)
    kept = server.client(GET)
    assert server.until_answered(kept, 5).endswith(b"GET / 0")
    server.loop.acceptor.take_and_serve(server.loop.acceptor.listeners[0])
    assert len(server.loop.connections) == 1
    assert server.loop.acceptor.accepting


def test_a_shortage_is_told_once_with_figures(worker: Serve, capfd: Any) -> None:
    """What takes the connections, and the way out; a flood must not fill the log."""
    server = worker(worker_connections=2)
    slow = [server.client(HALF) for _ in range(2)]
    server.turn(3)
    server.pass_time(1)
    for _ in range(3):
        server.client(GET)
        server.turn(3)
        server.pass_time(1)
        slow.append(server.client(HALF))
        server.turn(3)
        server.pass_time(1)
    told = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 1
    assert "short of connections (2 connections: 2 without a whole request head, 0 with a body" in told[0]
    assert "raise --worker-connections" in told[0]


def test_an_answer_that_is_not_taken_makes_room_and_is_seen_to_be_cut(worker: Serve) -> None:
    """Clients that ask for much and read nothing hold connections as well as those that send nothing."""
    server = worker(lambda environ, start: (start("200 OK", []), [b"x" * 8_000_000])[1], worker_connections=2)
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 262_144)
    reading, deaf = (server.client(GET, receive_buffer=16384) for _ in range(2))
    server.turn(5)
    assert len(server.loop.timeouts.answers) == 2
    assert server.loop.eviction.evict(1, Shortage.CONNECTIONS) == 0, "they have had no time to read"
    server.pass_time(STALLED_SECONDS)
    while connection_of(server, reading).transport.pace.rate(server.clock.now) < FAST_BYTES:
        with suppress(BlockingIOError):
            reading.recv(1 << 20)
        server.turn()
    assert server.loop.eviction.evict(2, Shortage.CONNECTIONS) == 1
    assert server.until_answered(deaf, 100).endswith(b"<reset>")
    assert len(server.loop.timeouts.answers) == 1


def test_a_crowd_that_reads_nothing_keeps_no_one_out(worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that opens another connection for each that is closed leaves others their places all the same."""
    monkeypatch.setattr(send_rate, "QUIET_SECONDS", 0.0)  # the kernel's clock cannot be set
    monkeypatch.setattr(send_rate, "_FIRST_SECONDS", inf)
    server = worker(
        lambda environ, start: (start("200 OK", []), [b"x" * (8_000_000 if environ["PATH_INFO"] == "/big" else 1)])[1],
        worker_connections=3,
    )
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(3):
        server.client(GET_PATH % b"big", receive_buffer=4096)
    server.turn(6)
    for _ in range(3):
        client = server.client(GET)
        server.client(GET_PATH % b"big", receive_buffer=4096)
        server.turn(2)
        server.pass_time(ANSWER_GRACE_SECONDS)
        assert server.until_answered(client, 9).endswith(b"x")
        server.turn(4)
        assert len(server.loop.timeouts.answers) >= 2


def test_a_download_that_goes_on_between_two_events_is_never_closed_to_make_room(worker: Serve) -> None:
    """The kernel says nothing for many seconds of a client that takes 20 KiB in each: its buffer has room for more."""
    server = worker(lambda environ, start: (start("200 OK", []), [b"x" * 8_000_000])[1], worker_connections=2)
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    reading, deaf = (server.client(GET, receive_buffer=size) for size in (65536, 4096))
    server.turn(20)
    assert len(server.loop.timeouts.answers) == 2
    server.pass_time(STALLED_SECONDS)
    left = 20_480 * int(STALLED_SECONDS)
    while left > 0:
        with suppress(BlockingIOError):
            left -= len(reading.recv(left))
    server.loop.timeouts.now = server.clock.now
    assert server.loop.eviction.evict(2, Shortage.CONNECTIONS) == 1
    assert server.until_answered(deaf, 100).endswith(b"<reset>")
    assert len(server.loop.timeouts.answers) == 1


def connection_of(server: Any, client: Any) -> Any:
    """The worker's side of ``client``."""
    return next(each for each in server.loop.connections if each.peer == client.getsockname())


def test_a_worker_that_retires_in_a_pause_does_not_accept_when_it_ends(two_workers: StartTwoWorkers) -> None:
    """What siblings hand on is for those that stay."""
    server, _ = two_workers(worker_connections=1)
    slow = server.client(POST)
    server.turn(3)
    server.client(GET)
    server.turn(2)
    assert server.loop.acceptor.crowded
    server.loop.retire(30.0, handoff=True)
    server.pass_time(2)
    server.turn(2)
    assert not server.loop.acceptor.accepting
    assert slow.fileno() >= 0


def test_accepting_resumes_when_a_connection_becomes_idle(worker: StartWorker) -> None:
    """At the limit, an idle connection is one to be closed for a newcomer, not one to wait for."""
    server = worker(worker_connections=1)
    busy = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
    server.turn(2)
    waiting = server.client(GET_PATH % b"")
    server.turn(3)
    busy.sendall(b"ok")
    assert server.until_answered(waiting).endswith(b"GET / 0")


def test_a_request_that_has_arrived_is_not_closed_to_make_room(worker: StartWorker) -> None:
    """A client is idle that has sent nothing; the kernel knows more than epoll has told."""
    server = worker(worker_connections=2)
    first, second = server.client(GET_PATH % b""), server.client(GET_PATH % b"")
    for client in (first, second):
        server.until_answered(client, 3)
    first.sendall(GET_PATH % b"first")
    listener = server.loop.acceptor.listeners[0]
    newcomer = server.client(GET_PATH % b"new")
    server.loop.acceptor.take_and_serve(listener)
    assert b"/new 0" in server.until_answered(newcomer, 3)
    assert b"/first 0" in server.until_answered(first, 3)
