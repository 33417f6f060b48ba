"""The background driver: when it turns the loop, when it sleeps, and how it interrupts a call.

The slow call is the test itself: it runs in the main thread, as the application does.
"""

from __future__ import annotations

import select
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from forkserver.errors import RequestTimeout
from forkserver.ipc.scoreboard import Row
from forkserver.logs.error_log import ErrorLog
from forkserver.server.threads.background_driver import INTERRUPT, BackgroundDriver
from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.threads.wakeup import Wakeup
from harness import BOUND
from harness.worker import wait_until


class Loop:
    """A loop that notes its turns; ``seconds`` is what each says of the next."""

    def __init__(self) -> None:
        self.dozing = self.tended = False
        self.loop_lock = LoopLock()
        self.log = ErrorLog("-", "info", "worker=1 gen=1")
        self.events = Wakeup()
        self.fileno = self.events.fileno
        self.seconds: float | None = None
        self.turns: list[str] = []  # the thread of each
        self.turned = threading.Semaphore(0)
        self.fault: BaseException | None = None
        self.driver: BackgroundDriver | None = None

    def begin_tending(self) -> None:
        self.tended = True

    def end_tending(self) -> None:
        self.tended = False
        if self.driver is not None:
            self.driver.stand_back()

    def tend(self) -> float | None:
        self.events.clear()
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        self.turns.append(threading.current_thread().name)
        self.turned.release()
        return self.seconds


class House:
    """A driver, its loop, and the row that shows the call of the main thread."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.row = Row(memoryview(bytearray(4096)), 0, 1)
        self.driver = self.loop.driver = BackgroundDriver(self.loop, self.row)

    def call(self, application: Callable[[], object]) -> None:
        """Call ``application`` as the loop does."""
        with self.loop.loop_lock.mutex:
            self.row.begin(b"GET /slow")
            if self.loop.dozing:
                self.driver.rouse()
            try:
                self.loop.loop_lock.lend(application)
            finally:
                self.row.end()
                if self.loop.tended:
                    self.loop.end_tending()

    def turned(self) -> None:
        """Wait for the driver's next turn."""
        assert self.loop.turned.acquire(timeout=BOUND)


@pytest.fixture
def house() -> Iterator[House]:
    before = signal.getsignal(INTERRUPT)
    made = House()
    yield made
    made.driver.close()
    made.loop.events.close()
    signal.signal(INTERRUPT, before)


def test_it_turns_the_loop_while_a_call_lasts_and_then_no_more(house: House) -> None:
    house.call(house.turned)
    assert set(house.loop.turns) == {"background-driver"}
    assert not house.loop.tended
    turns = len(house.loop.turns)
    house.loop.events.notify()
    wait_until(lambda: house.loop.dozing)
    assert len(house.loop.turns) == turns


def test_without_a_call_it_sleeps_until_the_next(house: House) -> None:
    """An idle worker does not wake."""
    wait_until(lambda: house.loop.dozing)
    house.call(house.turned)
    wait_until(lambda: house.loop.dozing)


def test_an_event_or_a_deadline_is_a_turn(house: House) -> None:
    def application() -> None:
        house.turned()
        house.loop.events.notify()
        house.turned()
        house.loop.seconds = 0.001
        house.loop.events.notify()
        for _ in range(5):
            house.turned()

    house.call(application)


def test_it_has_the_lock_for_each_turn_and_none_between(house: House) -> None:
    def application() -> None:
        house.turned()
        with house.loop.loop_lock.mutex:
            house.loop.events.notify()
            seen.append(house.loop.turned.acquire(timeout=0.02))
        house.turned()

    seen: list[bool] = []
    house.call(application)
    assert seen == [False]


@pytest.mark.parametrize("fault", [ValueError("on purpose"), SystemExit("on purpose")])
def test_a_fault_in_a_turn_is_told_and_does_not_end_it(
    house: House, fault: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker without its second driver would be worse."""
    house.loop.fault = fault
    house.call(house.turned)
    said = capfd.readouterr().err
    assert "a fault in the background driver" in said
    assert f"{type(fault).__name__}: on purpose" in said


def test_a_call_is_interrupted_where_the_application_runs(house: House) -> None:
    def application() -> None:
        house.turned()
        busy = house.row.busy()
        assert busy is not None
        house.driver.interrupt(busy.since)
        select.select([], [], [], BOUND)  # ends with the signal

    with pytest.raises(RequestTimeout):
        house.call(application)


def test_a_call_is_not_interrupted_in_the_servers_own_code(house: House) -> None:
    """What is half done there would stay so; the driver signals again until it hits the application."""
    done = []

    def send() -> None:
        busy = house.row.busy()
        assert busy is not None
        house.driver.interrupt(busy.since)
        signal.raise_signal(INTERRUPT)
        done.append(True)

    def application() -> None:
        house.turned()
        house.loop.loop_lock.borrow(send)
        select.select([], [], [], BOUND)

    with pytest.raises(RequestTimeout):
        house.call(application)
    assert done


def test_the_next_call_does_not_pay_for_one_that_is_over(house: House) -> None:
    """The order to end it may cross its answer."""

    def first() -> None:
        house.turned()
        busy = house.row.busy()
        assert busy is not None
        since.append(busy.since)

    since: list[int] = []
    house.call(first)
    house.driver.interrupt(since[0])
    house.call(lambda: signal.raise_signal(INTERRUPT))


def test_a_forked_child_leaves_nothing_of_it(house: House) -> None:
    house.driver.close()  # a child has no such thread
    house.driver.forget()
    assert signal.getsignal(INTERRUPT) == signal.SIG_DFL
    house.driver.rouse()


def test_a_handler_of_the_applications_own_stays_in_a_child(house: House) -> None:
    signal.signal(INTERRUPT, signal.SIG_IGN)
    house.driver.close()
    house.driver.forget()
    assert signal.getsignal(INTERRUPT) == signal.SIG_IGN
