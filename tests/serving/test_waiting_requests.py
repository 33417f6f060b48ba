"""Requests that come while their worker's only thread is in a slow call: the worker that is free first takes them.

The slow call is the test itself: it runs in the application of the first worker, in the main thread.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest

from forkserver.ipc.scoreboard import REQUESTS
from harness.worker import Slow, StartTwoWorkers, Worker, read, wait_until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = GET.replace(b"/ ", b"/slow ")


def other_is_busy(workers: tuple[Worker, Worker]) -> tuple[Worker, Worker, socket.socket]:
    """Both workers, the second one in a call, and a client that the first one has answered before."""
    first, second = workers
    client = first.client(GET)
    first.until_answered(client, 3)
    second.row.begin(b"GET /busy")
    return first, second, client


def ask_beside_the_call(first: Worker, client: socket.socket) -> None:
    """Ask the first worker, which is in the slow call, and wait until the connection has left it."""
    client.sendall(GET)
    wait_until(lambda: len(first.loop.connections) == 1)


def test_requests_that_come_meanwhile_go_to_an_idle_sibling(two_workers: StartTwoWorkers, app: Slow) -> None:
    """No request waits while a worker is idle."""
    first, second = two_workers(app)
    other = first.client(GET)
    first.until_answered(other, 3)
    answers = []

    def during(_environ: dict[str, Any]) -> None:
        ask_beside_the_call(first, other)
        answers.append(second.until_answered(other, 5))

    app.during = during
    first.until_answered(first.client(SLOW))
    assert answers[0].endswith(b"quick")


@pytest.mark.parametrize("sibling_is_first", [True, False])
def test_the_worker_that_is_free_first_takes_them(
    two_workers: StartTwoWorkers, app: Slow, sibling_is_first: bool
) -> None:
    """One waited for its own worker's call, and the next call there, while others came free and took later ones."""
    first, second, other = other_is_busy(two_workers(app))

    def during(_environ: dict[str, Any]) -> None:
        ask_beside_the_call(first, other)
        if sibling_is_first:
            second.row.end()
            assert second.until_answered(other, 5).endswith(b"quick")

    app.during = during
    first.until_answered(first.client(SLOW))
    if not sibling_is_first:
        assert first.until_answered(other, 5).endswith(b"quick")
    assert first.row.words[REQUESTS] == (2 if sibling_is_first else 3)


def test_what_waits_between_workers_is_answered_at_a_stop(two_workers: StartTwoWorkers, app: Slow) -> None:
    first, _, other = other_is_busy(two_workers(app))

    def during(_environ: dict[str, Any]) -> None:
        ask_beside_the_call(first, other)
        with first.loop.loop_lock.mutex:
            first.loop.retire(60, handoff=False)

    app.during = during
    assert first.until_answered(first.client(SLOW)).startswith(b"HTTP/1.1 200 ")
    answer = first.until_answered(other)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"quick<closed>")


def test_what_waits_between_workers_is_answered_in_time(two_workers: StartTwoWorkers, app: Slow) -> None:
    """All of them are in slow calls: none takes it, and it has waited longer than queue_timeout."""
    first, _, other = other_is_busy(two_workers(app, queue_timeout=3))
    answers = []

    def during(_environ: dict[str, Any]) -> None:
        ask_beside_the_call(first, other)
        assert first.loop.clients_wait()
        first.clock.now += 3.1
        first.loop.wake()
        answers.append(read(other, 12))

    app.during = during
    first.until_answered(first.client(SLOW))
    assert answers == [b"HTTP/1.1 503"]
