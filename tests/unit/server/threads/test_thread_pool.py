"""Application threads: each serves when it is free, and those that the kernel refuses are started later."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from forkserver.logs.error_log import ErrorLog
from forkserver.server.connection.transport import Transport
from forkserver.server.threads.thread_pool import LOOK_SECONDS, Pool
from forkserver.server.threads.thread_starter import LAST_DELAY, NO_THREAD, ThreadStarter
from harness import BOUND
from harness.fakes import FakeClock
from harness.late import LateError, strike
from harness.way_back import uncovered_ways_back


class LimitedStarter(ThreadStarter):
    """Starts ``room`` threads more, and then none."""

    def __init__(self, room: int) -> None:
        super().__init__(ErrorLog("-", "info", "server"))
        self.room = room

    def try_start(self, start: Callable[[], threading.Thread], consequence: str, now: float) -> threading.Thread | None:  # type: ignore[override]
        def limited() -> threading.Thread:
            if not self.room:
                raise RuntimeError(NO_THREAD)
            self.room -= 1
            return start()

        return super().try_start(limited, consequence, now)


class Calls:
    """Notes which thread serves; each call waits until the test lets it go on."""

    def __init__(self) -> None:
        self.enlisted: SimpleQueue[int] = SimpleQueue()
        self.begun: SimpleQueue[int] = SimpleQueue()
        self.go_on: SimpleQueue[bool] = SimpleQueue()
        self.recovered: SimpleQueue[tuple[int, BaseException]] = SimpleQueue()
        self.recovers = True
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def serve_next(self, number: int) -> bool:
        self.begun.put(number)
        return self.go_on.get(timeout=BOUND)

    def recover(self, number: int, error: BaseException) -> bool:
        self.recovered.put((number, error))
        return self.recovers


class House:
    """A pool of ``threads``, of which the kernel gives ``room`` at first."""

    def __init__(self, threads: int, room: int) -> None:
        self.starter, self.clock, self.calls = LimitedStarter(room), FakeClock(), Calls()
        calls = self.calls
        self.pool = Pool(
            threads, self.starter, self.clock, calls.enlisted.put, calls.serve_next, calls.recover, calls.wake
        )

    def begun(self, count: int) -> list[int]:
        """The threads that have begun so many calls."""
        return sorted(self.calls.begun.get(timeout=BOUND) for _ in range(count))


Make = Callable[..., House]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[House] = []

    def start(threads: int, room: int = 9) -> House:
        made.append(House(threads, room))
        return made[-1]

    yield start
    for each in made:
        each.pool.close()


def test_each_thread_has_a_number_of_its_own(make: Make) -> None:
    house = make(3)
    assert sorted(house.calls.enlisted.get(timeout=BOUND) for _ in range(3)) == [0, 1, 2]
    assert (len(house.pool), house.pool.complete) == (3, True)


def test_calls_run_side_by_side_and_one_that_is_over_makes_way_for_the_next(make: Make) -> None:
    house = make(2)
    for _ in range(3):
        house.pool.submit()
    assert house.begun(2) == [0, 1]
    assert house.calls.begun.empty(), "no third thread"
    for _ in range(3):
        house.calls.go_on.put(True)
    assert house.begun(1)[0] in (0, 1)


def test_close_waits_for_the_calls_in_hand(make: Make) -> None:
    house = make(2)
    house.pool.submit()
    house.begun(1)
    closing = threading.Thread(target=house.pool.close)
    closing.start()
    assert closing.is_alive()
    house.calls.go_on.put(True)
    closing.join(BOUND)
    assert not closing.is_alive()
    assert not any(each.name.startswith("app-") for each in threading.enumerate())


def test_a_thread_that_is_not_to_go_on_ends(make: Make) -> None:
    """It has come back from the application in a forked child, and is all there is."""
    house = make(1)
    house.pool.submit()
    house.begun(1)
    house.calls.go_on.put(False)
    for thread in house.pool._threads:
        thread.join(BOUND)
        assert not thread.is_alive()


def test_a_time_limit_that_comes_late_ends_no_thread_and_costs_no_request(make: Make) -> None:
    """It strikes the thread when it has taken the next request's token."""
    house = make(1)
    house.calls.enlisted.get(timeout=BOUND)
    with strike(house.pool._threads[0]):
        house.pool.submit()
        number, error = house.calls.recovered.get(timeout=BOUND)
    assert (number, type(error)) == (0, LateError)
    assert house.begun(1) == [0]
    for _ in range(2):
        house.calls.go_on.put(True)


def test_what_recovering_raises_ends_no_thread(make: Make) -> None:
    """Two time limits may come one upon the other."""
    house = make(1)
    raised: list[BaseException] = [SystemExit(1), LateError()]

    def recover(number: int, error: BaseException) -> bool:
        house.calls.recovered.put((number, error))
        if raised:
            raise raised.pop()
        return True

    house.pool._recover = recover
    house.calls.enlisted.get(timeout=BOUND)
    with strike(house.pool._threads[0]):
        house.pool.submit()
        recovered = [type(house.calls.recovered.get(timeout=BOUND)[1]) for _ in range(3)]
    assert recovered == [LateError, LateError, SystemExit]
    assert house.begun(1) == [0]
    for _ in range(4):
        house.calls.go_on.put(True)


@pytest.mark.parametrize("closing", [False, True])
def test_a_thread_that_is_struck_ends_where_it_is_not_to_go_on(make: Make, closing: bool) -> None:
    """In a forked child; and a pool that closes waits for its threads."""
    house = make(1)
    house.calls.recovers = closing
    house.calls.enlisted.get(timeout=BOUND)
    house.pool._closing = closing
    with strike(house.pool._threads[0]):
        house.pool.submit()
        house.pool._threads[0].join(BOUND)
    assert not house.pool._threads[0].is_alive()


def test_a_thread_that_has_ended_all_the_same_is_started_again(make: Make) -> None:
    house = make(1)
    house.calls.go_on.put(False)
    house.pool.submit()
    house.pool._threads[0].join(BOUND)
    assert house.begun(1) == [0]
    house.pool._lost.append(0)  # as where three time limits come one upon the other
    assert not house.pool.complete
    house.calls.go_on.put(True)
    house.pool.fill()
    assert (len(house.pool), house.pool.complete) == (1, True)
    number, error = house.calls.recovered.get(timeout=BOUND)
    assert (number, str(error)) == (0, "it has ended its thread"), "what the one before has left undone is seen to"
    assert house.begun(1) == [0]


def test_a_thread_that_has_ended_without_a_word_is_missed_at_the_next_look(make: Make) -> None:
    house = make(1)
    house.calls.go_on.put(False)
    house.pool.submit()
    house.pool._threads[0].join(BOUND)
    assert house.begun(1) == [0]
    house.calls.go_on.put(True)
    house.pool.fill()
    assert not house.pool._threads[0].is_alive(), "it is not looked for with each request"
    house.clock.now += LOOK_SECONDS
    house.pool.fill()
    assert (len(house.pool), house.pool.complete) == (1, True)
    assert house.calls.recovered.get(timeout=BOUND)[0] == 0, "what the one before has left undone is seen to"
    assert house.begun(1) == [0]


def test_nothing_that_comes_in_an_application_thread_passes_by_its_handlers() -> None:
    """The way back of a loop is where a late exception mostly comes."""
    assert uncovered_ways_back(Pool._run.__code__) == []
    assert uncovered_ways_back(Transport._keep_by_waiting.__code__) == []


def test_a_thread_that_ends_all_the_same_is_noted_before_the_loop_is_woken_to_start_another(make: Make) -> None:
    """The loop may sleep, and no client may send what would wake it."""
    house = make(1)
    pool, noted = house.pool, []
    house.calls.wake = lambda: noted.append(pool._lost[:])  # type: ignore[method-assign]
    pool._wake = house.calls.wake
    loops = inspect.getsource(Pool._run).splitlines().index("            for _ in repeat(None):")
    outermost = Pool._run.__code__.co_firstlineno + loops

    def strike_where_nothing_catches(frame: FrameType, event: str, _value: object) -> Any:
        if frame.f_code is not Pool._run.__code__:
            return None
        if (event, frame.f_lineno) == ("line", outermost):
            raise LateError
        return strike_where_nothing_catches

    trace = sys.gettrace()
    sys.settrace(strike_where_nothing_catches)
    try:
        with pytest.raises(LateError):
            pool._run(7, None)
    finally:
        sys.settrace(trace)
    assert noted == [[7]]
    pool._lost.clear()


def test_the_threads_that_there_are_serve_and_the_others_follow(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    house = make(3, room=1)
    assert (len(house.pool), house.pool.complete) == (1, False)
    assert "requests are served by 1 of 3 threads" in capfd.readouterr().err
    house.pool.submit()
    assert house.begun(1) == [0]
    house.starter.room = 9
    house.pool.submit()
    assert len(house.pool) == 1, "it is not tried with each request"
    house.clock.now += LAST_DELAY
    house.pool.submit()
    assert (len(house.pool), house.pool.complete) == (3, True)
    assert house.begun(2) == [1, 2]
    for _ in range(3):
        house.calls.go_on.put(True)


def test_a_pool_without_any_thread_says_that_one_serves(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    house = make(2, room=0)
    assert len(house.pool) == 0
    assert "requests are served by one thread" in capfd.readouterr().err
