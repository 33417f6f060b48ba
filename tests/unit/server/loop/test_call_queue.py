"""Requests that wait for the application: their order, how long they may wait, and when the worker is recycled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from forkserver.ipc.scoreboard import REQUESTS
from forkserver.server.connection.states import CALLING, CLOSED, READING, READY, ConnectionState
from forkserver.server.loop.call_queue import CallQueue
from harness.fakes import FakeLoop


class Request:
    """A connection whose request is whole; serving it takes ``seconds``, or raises."""

    def __init__(self, name: str, house: House, seconds: float = 0.0, error: BaseException | None = None) -> None:
        self.name, self._house, self._seconds, self._error = name, house, seconds, error
        self.state: ConnectionState = READY
        self.thread = 0
        self.backlog_seconds = 0.0
        self.head = None
        self.stranded = False

    def serve(self, thread: int = 0) -> None:
        self._house.done.append(f"{self.name} in {thread}")
        self._house.loop.timeouts.now += self._seconds
        self._house.loop.row.words[REQUESTS] += 1
        self.state = CLOSED
        if self._error is not None:
            raise self._error

    def turn_down(self) -> None:
        self._house.done.append(f"{self.name} turned down")
        self.state = CLOSED

    def cut(self) -> None:
        self._house.done.append(f"{self.name} cut")

    def close(self) -> None:
        self._house.done.append(f"{self.name} closed")


class Balancer:
    """Siblings that take all requests but the first, where calls are ``slow``."""

    def __init__(self, queue: CallQueue) -> None:
        self._queue = queue
        self.slow = False
        self.noted: list[float] = []
        self.shown = 0

    def hand_off_others(self) -> None:
        while len(self._queue.waiting) > 1:
            self._queue.waiting.pop()

    def note(self, seconds: float) -> None:
        self.noted.append(seconds)

    def show_fewer(self) -> None:
        self.shown += 1


class FakePool:
    """Application threads; none of them runs."""

    def __init__(self, threads: int = 2) -> None:
        self.threads, self.submitted, self.closed = threads, 0, False

    def __len__(self) -> int:
        return self.threads

    def fill(self) -> None:
        self.threads = 2

    def submit(self) -> None:
        self.submitted += 1

    def wake_one(self) -> None:
        self.submitted += 1

    def close(self) -> None:
        self.closed = True


class House:
    """A queue in a loop of fakes."""

    def __init__(self, **settings: Any) -> None:
        self.loop = FakeLoop(**settings)
        self.done: list[str] = []
        loop: Any = self.loop
        loop.balancer = None
        loop.handle_fault = lambda connection, error: self.done.append(f"{connection.name} raised {error!r}")
        loop.acceptor = self
        loop.end_tending = lambda: self.done.append("tended")
        self.queue = CallQueue(loop, self.loop.context.settings)
        self.recycled: list[str] = []
        self.queue.recycling.on_due = self.recycled.append
        self.paused = False

    def start(self) -> None:
        """As the acceptor."""
        self.done.append("accepts")

    def submit(self, name: str, **more: Any) -> Request:
        made: Any = Request(name, self, **more)
        self.queue.submit(made, b"")
        return made  # type: ignore[no-any-return]

    def balance(self) -> Balancer:
        loop: Any = self.loop
        loop.balancer = Balancer(self.queue)
        return loop.balancer  # type: ignore[no-any-return]

    def engage(self, threads: int = 2) -> FakePool:
        pool: Any = FakePool(threads)
        self.queue.engage(pool)
        return pool  # type: ignore[no-any-return]


@pytest.fixture
def house() -> House:
    return House()


def test_requests_are_served_in_their_order(house: House) -> None:
    for name in "abc":
        house.submit(name)
    assert len(house.queue) == 3
    house.queue.call_all()
    assert house.done == ["a in 0", "b in 0", "c in 0"]


def test_what_comes_in_a_call_waits_for_the_next_turn(house: House) -> None:
    """What is ready is read and sent between two calls' turns."""
    first = house.submit("a")
    serve = first.serve
    first.serve = lambda thread=0: (serve(thread), house.submit("b"))[0]  # type: ignore[method-assign]
    house.queue.call_all()
    assert house.done == ["a in 0"]
    house.queue.call_all()
    assert house.done == ["a in 0", "b in 0"]


def test_a_client_that_has_gone_is_passed_over(house: House) -> None:
    house.submit("gone").state = CLOSED
    house.submit("a")
    house.queue.call_all()
    assert house.done == ["a in 0"]


@pytest.mark.parametrize("error", [LookupError("a"), SystemExit(1)])
def test_a_fault_costs_one_request(house: House, error: BaseException) -> None:
    house.submit("a", error=error)
    house.submit("b")
    house.queue.call_all()
    assert house.done == ["a in 0", f"a raised {error!r}", "b in 0"]


def test_a_request_that_has_waited_longer_than_queue_timeout_is_turned_down() -> None:
    """Under overload an answer that no client waits for any more only delays the next one."""
    house = House(queue_timeout=5.0)
    house.submit("a", seconds=6.0)
    house.submit("b")
    house.queue.call_all()
    assert house.done == ["a in 0", "b turned down"]


def test_the_wait_counts_from_when_the_request_was_whole_elsewhere() -> None:
    house = House(queue_timeout=5.0)
    request: Any = house.submit("a")
    house.queue.backdate(request, house.loop.timeouts.now - 6)
    later: Any = house.submit("b")
    house.queue.backdate(later, house.loop.timeouts.now + 100)
    assert house.queue.waiting[1][0] is later
    assert later.whole_at == house.loop.timeouts.now, "clocks of workers are one, but a time may be made up"
    house.queue.call_all()
    assert house.done == ["a turned down", "b in 0"]


def test_a_request_that_was_whole_earlier_elsewhere_comes_first() -> None:
    house = House()
    now = house.loop.timeouts.now
    for name, before in (("c", 1.0), ("a", 3.0), ("b", 2.0), ("d", 0.0)):
        request: Any = house.submit(name)
        house.queue.backdate(request, now - before)
    house.queue.call_all()
    assert house.done == ["a in 0", "b in 0", "c in 0", "d in 0"]


def test_the_wait_counts_from_before_the_connection_was_accepted() -> None:
    """The worker was in a call; the extension keeps the time for the figures, and Python for the queue."""
    house = House(queue_timeout=5.0)
    house.submit("c")
    late: Any = Request("a", house)
    late.backlog_seconds, late.head = 6.0, SimpleNamespace(whole_since=9_000_000_000)
    house.queue.submit(late, b"")
    early: Any = Request("b", house)
    early.backlog_seconds = 4.0
    house.queue.submit(early, b"")
    assert (late.backlog_seconds, late.head.whole_since) == (0.0, 3_000_000_000), "it is the first request's only"
    house.queue.call_all()
    assert house.done == ["a turned down", "b in 0", "c in 0"]


def test_late_requests_are_turned_down_while_the_threads_are_busy() -> None:
    house = House(queue_timeout=5.0)
    house.submit("gone").state = CLOSED
    house.submit("a")
    house.loop.timeouts.now += 6
    house.submit("b")
    house.queue.turn_down_late()
    assert house.done == ["a turned down"]
    assert [call[0].name for call in house.queue.waiting] == ["b"]  # type: ignore[attr-defined]


def test_slow_calls_leave_their_followers_to_siblings(house: House) -> None:
    balancer = house.balance()
    for name in "ab":
        house.submit(name, seconds=2.0)
    house.queue.call_all()
    assert house.done == ["a in 0", "b in 0"]
    assert balancer.noted == [2.0], "seconds of a call on average"
    balancer.slow = True
    for name in "cd":
        house.submit(name)
    house.queue.call_all()
    assert house.done[2:] == ["c in 0"]


def test_the_loop_is_taken_back_after_each_call(house: House) -> None:
    house.loop.tended = True
    house.submit("a")
    house.queue.call_all()
    assert house.done == ["a in 0", "tended"]


# Recycling


def test_the_worker_is_due_for_recycling_once_after_max_requests() -> None:
    house = House(max_requests=2, max_requests_jitter=0)
    for name in "abc":
        house.submit(name)
        house.queue.call_all()
    assert house.recycled == ["it has served 2 requests"]


# Threads


def test_a_pool_is_told_of_each_request(house: House) -> None:
    house.submit("a")
    assert not house.queue.threaded
    pool = house.engage()
    house.submit("b")
    assert (pool.submitted, house.queue.threaded) == (2, True)


def test_a_thread_serves_what_has_waited_longest(house: House) -> None:
    balancer = house.balance()
    house.engage()
    house.loop.loop_lock.release()
    for name in "ab":
        house.submit(name)
    assert house.queue.serve_next(1)
    assert house.done == ["a in 1"]
    assert house.queue.serve_next(0)
    assert house.queue.serve_next(0), "one token too many does no harm"
    assert house.done == ["a in 1", "b in 0"]
    assert balancer.shown == 2


def test_a_thread_that_comes_back_in_a_forked_child_does_not_go_on(house: House) -> None:
    house.loop.loop_lock.release()
    house.loop.forked = True
    assert not house.queue.serve_next(0)


def test_a_thread_that_was_struck_leaves_neither_the_lock_nor_a_request(
    house: House, capfd: pytest.CaptureFixture[str]
) -> None:
    """A time limit that came late: the request was out of the queue, or half served, and the lock perhaps taken."""
    pool = house.engage()
    names = ("waiting", "lost", "half", "other", "ended", "idle", "stranded")
    waiting, lost, half, other, ended, idle, stranded = map(house.submit, names)
    house.loop.connections |= {waiting, lost, half, other, ended, idle, stranded}
    while len(house.queue) > 1:
        house.queue.waiting.pop()
    half.state = other.state = CALLING
    half.thread, other.thread = 1, 0
    ended.state = CLOSED
    idle.state = stranded.state = READING
    stranded.stranded = house.paused = True
    house.loop.row.begin(b"GET /", 1)
    house.loop.row.begin(b"GET /", 0)
    house.loop.loop_lock.acquire()
    assert house.queue.recover(1, LookupError("too late"))
    assert [call[0].name for call in house.queue.waiting] == ["waiting", "lost"]  # type: ignore[attr-defined]
    assert pool.submitted == 8, "a thread is told of the one that was lost"
    assert sorted(house.done) == ["accepts", "ended closed", "half cut", "stranded cut"]
    assert ended not in house.loop.connections
    assert [busy is None for busy in map(house.loop.row.busy, (0, 1))] == [False, True], "its call is over"
    said = capfd.readouterr().err
    assert "an exception has come in application thread 1 outside its requests" in said
    assert "LookupError: too late" in said
    with pytest.raises(RuntimeError):
        house.loop.loop_lock.release()


def test_a_call_that_an_exception_breaks_off_is_over_for_the_master_too(house: House) -> None:
    """It would have the worker killed when timeout is over."""
    house.engage()
    house.loop.loop_lock.release()
    request: Any = house.submit("a", error=LookupError("too late"))
    serve = request.serve
    request.serve = lambda thread: (house.loop.row.begin(b"GET /", thread), serve(thread))
    assert house.queue.serve_next(1)
    assert house.done == ["a in 1", "a raised LookupError('too late')"]
    assert house.loop.row.busy(1) is None


def test_a_thread_that_was_struck_in_a_forked_child_does_not_go_on(house: House) -> None:
    house.loop.forked = True
    assert not house.queue.recover(0, LookupError("too late"))


def test_the_loop_serves_while_a_pool_has_no_thread(house: House) -> None:
    pool = house.engage(threads=0)
    assert not house.queue.threaded
    house.submit("a")
    assert pool.submitted == 0
    assert house.queue.fill_pool()
    assert (house.queue.threaded, pool.submitted) == (True, 1)
    assert not house.queue.fill_pool()


def test_the_threads_end_with_the_queue(house: House) -> None:
    house.queue.close()
    pool = house.engage()
    house.queue.close()
    assert pool.closed
