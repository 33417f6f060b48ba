"""Which connections a worker closes when it runs short of them, and which it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forkserver.serving.eviction import GRACE_SECONDS, Shortage

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
