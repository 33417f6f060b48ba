"""Application threads: each serves when it is free, and those that the kernel refuses are started later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from forkserver.logs.error_log import ErrorLog
from forkserver.server.threads.thread_pool import Pool
from forkserver.server.threads.thread_starter import LAST_DELAY, NO_THREAD, ThreadStarter
from harness import BOUND
from harness.fakes import FakeClock


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

    def serve_next(self, number: int) -> bool:
        self.begun.put(number)
        return self.go_on.get(timeout=BOUND)


class House:
    """A pool of ``threads``, of which the kernel gives ``room`` at first."""

    def __init__(self, threads: int, room: int) -> None:
        self.starter, self.clock, self.calls = LimitedStarter(room), FakeClock(), Calls()
        self.pool = Pool(threads, self.starter, self.clock, self.calls.enlisted.put, self.calls.serve_next)

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
