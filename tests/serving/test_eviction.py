"""Which connections a worker closes when it runs short of them, and which it keeps."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from forkserver.server.pressure import eviction as eviction_room
from forkserver.server.pressure.eviction import GRACE_SECONDS, STALLED_SECONDS, Shortage

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHo"
Serve = Callable[..., Any]


def test_half_heads_make_room_for_a_new_client(serve: Serve) -> None:
    """A crowd that sends half a head each, and opens another connection when it is refused, keeps no one out."""
    worker = serve(worker_connections=3)
    slow = [worker.client(HALF) for _ in range(3)]
    worker.turn(4)
    worker.pass_time(1)
    assert worker.until_answered(worker.client(GET), 5).endswith(b"GET / 0")
    assert worker.until_answered(slow[0], 3).startswith(b"HTTP/1.1 408 ")
    assert len(worker.loop.heads) == 2


def test_a_connection_has_a_moment_to_send_its_head(serve: Serve) -> None:
    """Who does not fit waits until the first of them has had its time, and is accepted then without another event."""
    worker = serve(worker_connections=2)
    slow = [worker.client(HALF) for _ in range(2)]
    worker.turn(3)
    newcomer = worker.client(GET)
    worker.turn(2)
    assert len(worker.loop.heads) == 2
    worker.pass_time(GRACE_SECONDS)
    assert worker.until_answered(newcomer, 5).endswith(b"GET / 0")
    assert worker.until_answered(slow[0], 3).startswith(b"HTTP/1.1 408 ")


def test_a_crowd_that_has_come_in_a_moment_does_not_drive_out_who_was_served(serve: Serve) -> None:
    """None of it can be called slow yet; the next client waits until one can."""
    worker = serve(worker_connections=4)
    served = worker.client(GET)
    assert worker.until_answered(served, 3).endswith(b"GET / 0")
    crowd = [worker.client(HALF) for _ in range(3)]
    worker.turn(4)
    newcomer = worker.client(GET)
    worker.turn(2)
    worker.pass_time(GRACE_SECONDS)
    assert worker.until_answered(newcomer, 5).endswith(b"GET / 0")
    served.sendall(GET)
    assert worker.until_answered(served, 3).endswith(b"GET / 0")
    assert worker.until_answered(crowd[0], 3).startswith(b"HTTP/1.1 408 ")


def test_what_has_come_is_read_before_a_head_is_taken_for_slow(serve: Serve) -> None:
    """The worker was late, not the client."""
    worker = serve(worker_connections=2)
    late, slow = worker.client(HALF), worker.client(HALF)
    worker.turn(3)
    worker.clock.now += 1
    late.sendall(GET[len(HALF) :])
    worker.loop.now = worker.clock.now
    assert worker.loop.eviction.evict(1, Shortage.CONNECTIONS) == 1
    assert worker.until_answered(late, 3).endswith(b"GET / 0")
    assert worker.until_answered(slow, 3).startswith(b"HTTP/1.1 408 ")


def test_what_is_evicted_is_counted_and_bounded_by_what_there_is(serve: Serve) -> None:
    """The caller learns how much room there is."""
    worker = serve()
    idle = [worker.client(GET) for _ in range(3)]
    worker.turn(6)
    assert worker.loop.eviction.evict(2, Shortage.DESCRIPTORS) == 2
    assert worker.loop.eviction.evict(2, Shortage.DESCRIPTORS) == 1
    assert worker.loop.eviction.evict(2, Shortage.DESCRIPTORS) == 0
    assert all(worker.until_answered(client, 3).endswith(b"GET / 0<closed>") for client in idle)


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"


def go_on(worker: Any, seconds: int, *bodies: tuple[Any, int]) -> None:
    """Let each of ``bodies``, a client and its bytes a second, send for ``seconds``."""
    for _ in range(seconds):
        for client, rate in bodies:
            client.sendall(b"x" * rate)
        worker.turn()
        worker.pass_time(1)


def test_the_slowest_body_makes_room_for_a_new_client(serve: Serve) -> None:
    """At any rate that is permitted a crowd is still a crowd: the one that comes slowest is the first to go."""
    worker = serve(worker_connections=3)
    phone, drip, other = (worker.client(POST) for _ in range(3))
    worker.turn(4)
    go_on(worker, 8, (phone, 2000), (drip, 300), (other, 600))
    assert worker.until_answered(worker.client(GET), 5).endswith(b"GET / 0")
    assert worker.until_answered(drip, 3).startswith(b"HTTP/1.1 408 ")
    phone.sendall(b"x" * (60_000 - 16_000))
    assert worker.until_answered(phone, 10).endswith(b"POST / 60000")
    assert other.fileno() >= 0
    assert len(worker.loop.bodies) == 1


def test_a_body_that_makes_good_progress_is_never_closed_to_make_room(serve: Serve) -> None:
    """Newcomers wait then, in the listener's queue."""
    worker = serve(worker_connections=2, max_body=10_000_000)
    clients = [worker.client(POST.replace(b"60000", b"6000000")) for _ in range(2)]
    worker.turn(3)
    go_on(worker, 3, *((client, 40_000) for client in clients))
    assert worker.loop.eviction.evict(2, Shortage.CONNECTIONS) == 0
    assert len(worker.loop.bodies) == 2


def test_a_request_in_the_hands_of_the_application_is_never_closed_to_make_room(serve: Serve) -> None:
    closed: list[int] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        worker.loop.now = worker.clock.now = worker.clock.now + 100
        closed.append(worker.loop.eviction.evict(10, Shortage.CONNECTIONS))
        start_response("200 OK", [])
        return [b"served"]

    worker = serve(app)
    clients = [worker.client(GET), worker.client(POST.replace(b"60000", b"10") + b"x" * 10)]  # whole in one segment
    worker.turn(9)
    assert len(closed) == 2
    assert all(worker.until_answered(client, 9).endswith((b"served", b"served<closed>")) for client in clients)
    assert closed[0] == 0


def test_a_body_that_speeds_up_is_not_judged_by_what_it_was(serve: Serve) -> None:
    """Its bytes have come, and the worker had not read them."""
    worker = serve(worker_connections=2)
    first, second = worker.client(POST), worker.client(POST)
    worker.turn(3)
    go_on(worker, 6, (first, 10), (second, 500))
    first.sendall(b"x" * 40_000)
    assert worker.loop.eviction.evict(1, Shortage.CONNECTIONS) == 1
    assert worker.until_answered(second, 3).startswith(b"HTTP/1.1 408 ")
    assert worker.until_answered(first, 3) == b""


def test_new_bodies_make_room_only_for_want_of_slow_ones_the_oldest_first(serve: Serve) -> None:
    """A flood of new half requests is its own loss: the ones that came first go first."""
    worker = serve()
    old, new = worker.client(POST), worker.client()
    worker.turn(3)
    worker.pass_time(GRACE_SECONDS / 2)
    newest = worker.client(POST)
    worker.turn(2)
    worker.pass_time(GRACE_SECONDS / 2)
    assert worker.loop.eviction.evict(3, Shortage.CONNECTIONS) == 2
    assert worker.until_answered(old, 3).startswith(b"HTTP/1.1 408 ")
    assert worker.until_answered(new, 3) == b"<closed>"
    assert worker.until_answered(newest, 3) == b""


def test_stalled_uploads_make_room_in_the_spool_for_one_that_would_find_none(serve: Serve) -> None:
    """Else a few that drip keep all others out for as long as body_min_rate lets them."""
    worker = serve(max_spool=300_000, max_body=200_000, body_memory=0, spool_keep_free=0)
    large = POST.replace(b"60000", b"200000")
    stalled = worker.client(large)
    worker.turn(3)
    stalled.sendall(b"x" * 150_000)
    while worker.loop.spool.used < 150_000:
        worker.turn()
    for _ in range(30):
        worker.turn()
        worker.pass_time(0.5)
    good = worker.client(large)
    worker.turn(3)
    good.sendall(b"x" * 200_000)
    assert worker.until_answered(good, 50).endswith(b"POST / 200000")
    assert worker.until_answered(stalled, 3).startswith(b"HTTP/1.1 408 ")
    assert worker.loop.spool.used == 0


@pytest.mark.parametrize("begun", [HALF, POST], ids=["half a head", "no body"])
def test_a_client_that_has_gone_makes_the_room_that_is_wanted(serve: Serve, begun: bytes) -> None:
    """Else the next in the order, which still sends, goes as well."""
    worker = serve()
    phone, gone = worker.client(POST), worker.client(begun)
    worker.turn(3)
    go_on(worker, 8, (phone, 2000))
    gone.close()
    assert worker.loop.eviction.evict(1, Shortage.CONNECTIONS) == 1
    assert len(worker.loop.connections) == 1
    phone.sendall(b"x" * 44_000)
    assert worker.until_answered(phone, 10).endswith(b"POST / 60000")


@pytest.mark.parametrize("flood", [b"", HALF, POST], ids=["silent", "half a head", "no body"])
def test_a_flood_of_new_requests_does_not_drive_out_a_slow_body_that_moves(serve: Serve, flood: bytes) -> None:
    """What is replaced too often to have a rate must not seem faster than a phone."""
    worker = serve()
    phone = worker.client(POST)
    worker.turn(2)
    go_on(worker, 8, (phone, 2000))
    starting = worker.client(POST + b"x" * 2000)
    crowd = [worker.client(flood) for _ in range(8)]
    worker.turn(20)
    worker.pass_time(GRACE_SECONDS)
    assert worker.loop.eviction.evict(4, Shortage.CONNECTIONS) == 4
    for client, sent in (phone, 16_000), (starting, 2000):
        client.sendall(b"x" * (60_000 - sent))
        assert worker.until_answered(client, 10).endswith(b"POST / 60000")
    assert all(worker.until_answered(each, 3).endswith(b"<closed>") for each in crowd[:4])


def test_slow_bodies_and_heads_do_not_drive_out_who_was_served(serve: Serve) -> None:
    """Idle connections go first only where they are the greater part."""
    worker = serve(worker_connections=4)
    served = worker.client(GET)
    assert worker.until_answered(served, 3).endswith(b"GET / 0")
    slow = [worker.client(POST), worker.client(HALF), worker.client(POST)]
    worker.turn(5)
    go_on(worker, 3, (slow[0], 60), (slow[2], 60))
    assert worker.until_answered(worker.client(GET), 5).endswith(b"GET / 0")
    served.sendall(GET)
    assert worker.until_answered(served, 3).endswith(b"GET / 0")
    assert worker.until_answered(slow[1], 3).startswith(b"HTTP/1.1 408 ")


def test_nothing_is_closed_to_make_room_for_no_client(serve_two: Callable[..., Any]) -> None:
    """A sibling was quicker: the listener's event is of a client that is no longer there."""
    worker, _ = serve_two(worker_connections=1)
    kept = worker.client(GET)
    assert worker.until_answered(kept, 5).endswith(b"GET / 0")
    worker.loop.acceptor.take_and_serve(worker.loop.acceptor.listeners[0])
    assert len(worker.loop.connections) == 1
    assert worker.loop.acceptor.accepting


def test_a_shortage_is_told_once_with_figures(serve: Serve, capfd: Any) -> None:
    """What takes the connections, and the way out; a flood must not fill the log."""
    worker = serve(worker_connections=2)
    slow = [worker.client(HALF) for _ in range(2)]
    worker.turn(3)
    worker.pass_time(1)
    for _ in range(3):
        worker.client(GET)
        worker.turn(3)
        worker.pass_time(1)
        slow.append(worker.client(HALF))
        worker.turn(3)
        worker.pass_time(1)
    told = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 1
    assert "short of connections (2 connections: 2 without a whole request head, 0 with a body" in told[0]
    assert "raise --worker-connections" in told[0]


def test_an_answer_that_is_not_taken_makes_room_and_is_seen_to_be_cut(serve: Serve) -> None:
    """Clients that ask for much and read nothing hold connections as well as those that send nothing."""
    worker = serve(lambda environ, start: (start("200 OK", []), [b"x" * 8_000_000])[1], worker_connections=2)
    reading, deaf = (worker.client(GET, receive_buffer=4096) for _ in range(2))
    worker.turn(5)
    assert len(worker.loop.writes) == 2
    assert worker.loop.eviction.evict(1, Shortage.CONNECTIONS) == 0, "they have had no time to read"
    worker.pass_time(STALLED_SECONDS)
    while worker.loop.writes.first() is connection_of(worker, reading):
        with suppress(BlockingIOError):
            reading.recv(1 << 20)
        worker.turn()
    assert worker.loop.eviction.evict(2, Shortage.CONNECTIONS) == 1
    assert worker.until_answered(deaf, 100).endswith(b"<reset>")
    assert len(worker.loop.writes) == 1


def test_a_download_that_goes_on_between_two_events_is_never_closed_to_make_room(serve: Serve) -> None:
    """The kernel says nothing for many seconds of a client that takes 20 KiB in each: its buffer has room for more."""
    worker = serve(lambda environ, start: (start("200 OK", []), [b"x" * 8_000_000])[1], worker_connections=2)
    worker.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    reading, deaf = (worker.client(GET, receive_buffer=size) for size in (65536, 4096))
    worker.turn(20)
    assert len(worker.loop.writes) == 2
    worker.clock.now += STALLED_SECONDS
    left = 20_480 * int(STALLED_SECONDS)
    while left > 0:
        with suppress(BlockingIOError):
            left -= len(reading.recv(left))
    worker.loop.now = worker.clock.now
    assert worker.loop.eviction.evict(2, Shortage.CONNECTIONS) == 1
    assert worker.until_answered(deaf, 100).endswith(b"<reset>")
    assert len(worker.loop.writes) == 1


def test_requests_in_calls_do_not_hide_the_idle_connections_behind_them(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They keep their places in the order of those that wait for a request."""
    monkeypatch.setattr(eviction_room, "_LOOKED_AT", 1)
    closed: list[int] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/evict":
            closed.append(worker.loop.eviction.evict(1, Shortage.CONNECTIONS))
        start_response("200 OK", [])
        return [b"served"]

    worker = serve(app)
    first, second = worker.client(GET), worker.client(GET)
    worker.turn(4)
    assert len(worker.loop.resting) == 2
    first.sendall(GET.replace(b"/ ", b"/evict ", 1))
    assert worker.until_answered(first, 5).endswith(b"served")
    assert closed == [1]
    assert worker.until_answered(second, 3).endswith(b"served<closed>")


def connection_of(worker: Any, client: Any) -> Any:
    """The worker's side of ``client``."""
    return next(each for each in worker.loop.connections if each.peer == client.getsockname())


def test_a_worker_that_retires_in_a_pause_does_not_accept_when_it_ends(serve_two: Callable[..., Any]) -> None:
    """What siblings hand on is for those that stay."""
    worker, _ = serve_two(worker_connections=1)
    slow = worker.client(POST)
    worker.turn(3)
    worker.client(GET)
    worker.turn(2)
    assert worker.loop.acceptor.crowded
    worker.loop.retire(30.0, handoff=True)
    worker.pass_time(2)
    worker.turn(2)
    assert not worker.loop.acceptor.accepting
    assert slow.fileno() >= 0
