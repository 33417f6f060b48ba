"""Requests that wait while every thread of the worker is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver.ipc import scoreboard
from forkserver.ipc.scoreboard import SERVING, STATE, WAITING
from forkserver.server.connection import plain_exchange
from harness import BOUND
from harness.worker import Clock, StartTwoWorkers, StartWorker

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
Start = Callable[..., Callable[[bytes], object]]


class Stream:
    """An application whose calls yield one block and go on until they may end; quick for ``/quick``."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.begun = 0

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [b"quick"] if environ["PATH_INFO"] == "/quick" else self._events()

    def _events(self) -> Iterator[bytes]:
        yield b"data: 1\n\n"
        self.begun += 1
        assert self.end.wait(BOUND)


@pytest.fixture
def app() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.end.set()


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Calls begin by the clock of the loop, which the extension does not ask."""
    monkeypatch.setattr(plain_exchange, "load", lambda: None)
    monkeypatch.setattr(scoreboard, "monotonic_ns", lambda: int(clock.now * 1e9))


def take_both_threads(server: Any, app: Stream) -> None:
    for _ in range(2):
        server.client(GET % b"events")
    server.turn_until(lambda: app.begun == 2)


def wait_behind(server: Any, count: int = 1) -> list[Any]:
    """Clients whose requests wait."""
    clients = [server.client(GET % b"quick") for _ in range(count)]
    server.turn_until(lambda: len(server.loop.calls) == count)
    return clients


def test_a_request_is_turned_down_in_time_although_no_thread_comes_free(worker: StartWorker, app: Stream) -> None:
    """It was looked at by a thread that came free only, and with streams none does."""
    server = worker(app, threads=2, queue_timeout=3)
    take_both_threads(server, app)
    (client,) = wait_behind(server)
    server.pass_time(2.9)
    assert len(server.loop.calls) == 1
    server.pass_time(0.2)
    answer = server.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After" in answer
    app.end.set()
    server.turn_until(lambda: not any(server.row.busy(thread) for thread in (0, 1)))


def test_a_worker_alone_wakes_when_a_request_has_waited_too_long(worker: StartWorker, app: Stream) -> None:
    """Without siblings nothing else wakes it; with nothing that waits it sleeps as long as it may.

    A limit below the second after which lost threads are looked for.
    """
    server = worker(app, threads=2, queue_timeout=0.5)
    take_both_threads(server, app)
    assert server.loop._backlog.seconds_left(None) is None
    wait_behind(server)
    poll = server.loop.poller.poll
    waits: list[float | None] = []

    def noted(timeout: float | None, room: int) -> Any:
        waits.append(timeout)
        return poll(0, room)

    server.loop.poller.poll = noted
    server.loop.turn()
    assert waits[-1] == pytest.approx(0.5)


def test_a_service_whose_threads_are_all_taken_by_streams_says_so_once(
    worker: StartWorker, app: Stream, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything else waited, and the log was silent."""
    server = worker(app, threads=2)
    take_both_threads(server, app)
    wait_behind(server, 3)
    server.pass_time(4.9)
    assert capfd.readouterr().err == ""
    server.pass_time(0.2)
    said = capfd.readouterr().err
    assert "all 2 threads of this worker have been busy for 5 s (2 streams, the longest GET /events for 5 s)" in said
    assert "3 requests wait; raise --threads or --workers, or set queue_timeout; see docs/streams.md" in said
    for _ in range(5):
        server.pass_time(300)
    assert capfd.readouterr().err == ""


def test_requests_that_are_turned_down_are_spoken_of_too(
    worker: StartWorker, app: Stream, capfd: pytest.CaptureFixture[str]
) -> None:
    server = worker(app, threads=2, queue_timeout=2)
    take_both_threads(server, app)
    server.pass_time(10)
    wait_behind(server)
    server.pass_time(2.1)
    assert "1 request waits; raise --threads or --workers; see docs/streams.md" in capfd.readouterr().err
    assert not server.loop.calls


def test_the_figure_of_waiting_requests_goes_back_when_they_are_served(
    two_workers: StartTwoWorkers, app: Stream
) -> None:
    """It stayed what it was when the last one was looked at."""
    server, sibling = two_workers(app, threads=2)
    sibling.row.words[STATE] = 0
    take_both_threads(server, app)
    clients = wait_behind(server, 3)
    server.pass_time(1)
    assert server.row.words[WAITING] == 3
    app.end.set()
    for client in clients:
        assert server.until_answered(client).startswith(b"HTTP/1.1 200 ")
    assert server.row.words[WAITING] == 0


# With one thread the background driver turns the loop meanwhile, and clients wait to be accepted


@pytest.fixture
def slow(two_workers: StartTwoWorkers) -> Iterator[tuple[Any, Any, Callable[[Callable[[], object]], None]]]:
    """Two workers of one thread each; while the first is in a call, the driver's turns are the test's."""
    during: list[Callable[[], object]] = []

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"data: 1\n\n"
        during[0]()

    server, sibling = two_workers(app)
    for each in (server, sibling):
        each.loop.background_driver = Idle()

    def call(do: Callable[[], object]) -> None:
        during.append(do)
        client = server.client(GET % b"events")
        server.until_answered(client, 3)

    yield server, sibling, call
    for each in (server, sibling):
        each.loop.background_driver = None


class Idle:
    """Stands in for the background driver."""

    def rouse(self) -> None:
        pass

    def stand_back(self) -> None:
        pass

    def close(self) -> None:
        pass


def tend_for(server: Any, seconds: float) -> None:
    """The driver's turns until ``seconds`` have passed, as it would take them."""
    loop = server.loop
    with loop.loop_lock.mutex:
        loop.acceptor.hold()
        loop.tended = True
        until = server.clock.now + seconds
        while server.clock.now < until:
            left = loop.tend()
            server.clock.now = min(until, server.clock.now + max(left or seconds, 0.05))
        loop.tend()
        loop.tended = False
        loop.acceptor.let_go()


def test_clients_that_wait_to_be_accepted_are_spoken_of(slow: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The worker accepts nothing during a call, and its sibling is in one as well."""
    server, sibling, call = slow
    sibling.row.begin(b"GET /events")

    def during() -> None:
        server.client(GET % b"quick")
        tend_for(server, 6)

    call(during)
    said = capfd.readouterr().err
    assert "the only thread of this worker has been busy for" in said
    assert "clients wait for a free worker; raise --threads or --workers; see docs/streams.md" in said


@pytest.mark.parametrize("sibling_state", ["idle", "in a short call"])
def test_a_slow_call_beside_a_sibling_that_serves_is_nothing_to_speak_of(
    slow: Any, capfd: pytest.CaptureFixture[str], sibling_state: str
) -> None:
    server, sibling, call = slow

    def during() -> None:
        server.client(GET % b"quick")
        tend_for(server, 4)
        if sibling_state != "idle":
            sibling.row.begin(b"GET /short")
        tend_for(server, 4)

    call(during)
    assert sibling.row.words[STATE] == SERVING
    assert capfd.readouterr().err == ""


def test_a_slow_call_for_which_nobody_waits_is_nothing_to_speak_of(
    slow: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    server, sibling, call = slow
    sibling.row.begin(b"GET /events")
    call(lambda: tend_for(server, 600))
    assert capfd.readouterr().err == ""
