"""Requests that wait while all threads are busy: when the operator is told, and when they are turned down."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest

from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS, SERVING, STATE, THREAD_WORDS
from forkserver.server.connection.states import CLOSED, READY
from forkserver.server.connection.timeouts import NEVER
from forkserver.server.handoff.balancer import RETRY_SECONDS
from forkserver.server.loop.backlog import CallBacklog
from forkserver.server.pressure.saturation import BUSY_SECONDS
from harness.fakes import FakeLoop

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


class Calls:
    """The calls that wait, since when; ``seconds`` is how long they may."""

    def __init__(self, seconds: float) -> None:
        self.waiting: deque[Any] = deque()
        self.seconds = seconds
        self.next_look = math.inf
        self.looked = 0

    def submit(self, connection: Any, data: bytes | None) -> None:
        """The test says since when it waits."""

    def turn_down_late(self) -> None:
        self.looked += 1


class House:
    """A backlog in a worker with two threads, which have been busy since ``busy`` seconds ago."""

    def __init__(self, busy: float = 60.0, queue_timeout: float = NEVER) -> None:
        self.loop = FakeLoop()
        loop: Any = self.loop
        self.calls = loop.calls = Calls(queue_timeout)
        loop.balancer = None
        self.clients = False
        loop.clients_wait = lambda: self.clients
        self.loop.row.words[STATE] = SERVING
        for thread in range(2):
            self.loop.row.begin(b"GET /stream", thread)
            since = round((self.loop.clock.now - busy) * 1e9)
            self.loop.row.words[ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE] = since
        self.backlog = CallBacklog(loop)

    def wait(self, seconds: float) -> Any:
        """A request that has waited so long."""
        connection = self.loop.connect(GET)
        connection.whole_at = self.loop.timeouts.now - seconds
        self.calls.waiting.append((connection, GET))
        return connection


def test_the_operator_is_told_when_requests_wait_for_threads_that_are_held_long(
    capfd: pytest.CaptureFixture[str],
) -> None:
    house = House()
    for _ in range(2):
        house.wait(BUSY_SECONDS)
    for _ in range(2):
        house.backlog.look()
    said = capfd.readouterr().err
    assert said.count("all 2 threads of this worker have been busy for 60 s") == 1
    assert "2 requests wait; raise --threads or --workers, or set queue_timeout" in said
    assert house.calls.looked == 2


@pytest.mark.parametrize(("busy", "waits"), [(60.0, 1.0), (1.0, BUSY_SECONDS)])
def test_ordinary_load_is_not_told_of(busy: float, waits: float, capfd: pytest.CaptureFixture[str]) -> None:
    """Threads change from call to call while requests wait."""
    house = House(busy)
    house.wait(waits)
    house.backlog.look()
    assert not capfd.readouterr().err


def test_a_client_that_has_gone_does_not_wait(capfd: pytest.CaptureFixture[str]) -> None:
    house = House()
    house.wait(BUSY_SECONDS).state = CLOSED
    house.backlog.look()
    assert not capfd.readouterr().err


def test_with_one_thread_the_clients_that_wait_are_in_the_listeners_queue(capfd: pytest.CaptureFixture[str]) -> None:
    house = House()
    house.loop.row.end(1)
    house.loop.tended = True
    single: Any = house.loop
    single.row.threads = 1
    house.backlog.look()
    assert not capfd.readouterr().err, "no client waits"
    house.clients = True
    house.loop.timeouts.now += BUSY_SECONDS
    house.backlog.look()
    assert "the only thread of this worker has been busy" in (said := capfd.readouterr().err)
    assert "clients wait for a free worker" in said


@pytest.mark.parametrize("limit", [None, 1.0, 100.0])
def test_with_nothing_waiting_there_is_nothing_to_look_at(limit: float | None) -> None:
    assert House().backlog.seconds_left(limit) == limit


@pytest.mark.parametrize(
    ("waited", "queue_timeout", "limit", "left"),
    [(0.0, NEVER, None, BUSY_SECONDS), (1.0, NEVER, None, BUSY_SECONDS - 1), (0.0, 2.0, None, 2.0),
     (0.0, 2.0, 0.5, 0.5), (100.0, 2.0, None, RETRY_SECONDS)],
)  # fmt: skip
def test_it_is_looked_at_again_when_something_is_due(
    waited: float, queue_timeout: float, limit: float | None, left: float
) -> None:
    """And not before: an idle loop does not wake."""
    house = House(queue_timeout=queue_timeout)
    connection = house.wait(waited)
    assert connection.state is READY
    assert house.backlog.seconds_left(limit) == pytest.approx(left)


def test_a_script_tells_nothing_and_turns_requests_down_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    house = House(queue_timeout=2.0)
    script: Any = house.loop
    script.row = None
    backlog = CallBacklog(script)
    house.wait(BUSY_SECONDS)
    backlog.look()
    assert house.calls.looked == 1
    assert not capfd.readouterr().err
    assert backlog.seconds_left(None) == RETRY_SECONDS
