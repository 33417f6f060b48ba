"""Which clients are cut off that do not take their answers, when the spool or a thread runs short."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from forkserver.config import settings as table
from forkserver.config.values.numbers import KIB, MIB
from forkserver.server.buffers.spool import Spool
from forkserver.server.connection.states import CALLING, CLOSED, DRAINING
from forkserver.server.connection.timeouts import Timeouts
from forkserver.server.pressure.slow_readers import FAIR_RATE, GRACE_SECONDS, RETRY_SECONDS, SLOW_RATE, SlowReaders
from harness.fakes import FakeClock

SIZE = MIB  # of each answer in the spool


class Reader:
    """A client that takes ``rate`` bytes a second of an answer, of which ``spooled`` bytes are in the spool."""

    def __init__(self, name: str, house: House, rate: float, spooled: int) -> None:
        self.name, self.state = name, DRAINING
        self._house, self._spooled = house, spooled
        house.spool.used += spooled
        house.spool.answers += spooled
        pace = SimpleNamespace(began=house.clock.now, rate=lambda _now: rate, taken=lambda: 123 * KIB)
        out = SimpleNamespace(spooled=spooled, exceeds_share=lambda size: size > SIZE)
        self.transport: Any = SimpleNamespace(pace=pace, out=out)

    def described(self) -> str:
        return f'"GET /{self.name}"'

    def reset(self) -> None:
        self.state = CLOSED
        self._house.timeouts.answers.fresh.discard(self)
        self._house.spool.used -= self._spooled
        self._house.spool.answers -= self._spooled
        self._house.cut.append(self.name)


class House:
    """The readers of a worker, whose spool holds 8 MiB."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.timeouts = Timeouts(table.defaults(), self.clock)
        self.spool = Spool("/nowhere", 8 * SIZE)
        self.cut: list[str] = []
        self.told: list[tuple[Any, ...]] = []
        self.others_since: float | None = None
        notices: Any = self
        self.readers = SlowReaders(self.timeouts, self.spool, notices, self.others_wait)

    def others_wait(self, since: float) -> bool:
        return self.others_since is not None and self.others_since <= since

    def cut_readers(self, *what: Any) -> None:
        self.told.append(what)

    cut_waiting = cut_readers

    def add(self, name: str, rate: float, spooled: int = SIZE) -> Reader:
        made = Reader(name, self, rate, spooled)
        self.timeouts.put(self.timeouts.answers.fresh, made)
        return made

    def waiting(self, name: str, rate: float) -> Any:
        """A reader for which its call waits."""
        made: Any = self.add(name, rate)
        made.state = CALLING
        self.readers.waiting.add(made)
        return made


@pytest.fixture
def house() -> House:
    return House()


def test_the_slowest_give_way_until_there_is_room_and_the_log_says_so_once(house: House) -> None:
    for name, rate in (("b", 200.0), ("a", 100.0), ("c", 300.0)):
        house.add(name, rate)
    house.clock.now += GRACE_SECONDS
    house.spool.used = 8 * SIZE
    assert house.readers.make_room(2 * SIZE)
    assert house.cut == ["a", "b"]
    ((count, rate, spooled, why),) = house.told
    assert (count, rate, spooled) == (2, 200.0, "8 MiB")
    assert "max_spool" in why


def test_answers_have_their_part_of_the_spool_although_there_is_room(house: House) -> None:
    for name in "abc":
        house.add(name, 0.0)
    house.clock.now += GRACE_SECONDS
    assert house.readers.make_room(1)
    assert house.cut == ["a"], "two are no more than a quarter"
    assert not house.readers.make_room(1)


@pytest.mark.parametrize("rate", [SLOW_RATE, float("inf")])
def test_a_reader_that_goes_on_is_not_cut_off(house: House, rate: float) -> None:
    house.add("reader", rate)
    house.clock.now += 60
    house.spool.used = 8 * SIZE
    assert not house.readers.make_room(SIZE)
    assert not house.told


def test_a_new_reader_has_a_moment(house: House) -> None:
    house.add("new", 0.0)
    house.spool.used = 8 * SIZE
    assert not house.readers.make_room(SIZE)
    house.clock.now += GRACE_SECONDS
    assert house.readers.make_room(SIZE)


def test_answers_in_memory_are_no_help_and_hide_none_in_the_spool(house: House) -> None:
    """A crowd that asks for less than is spooled, and comes first, must not shield those that fill the spool."""
    for number in range(100):
        house.add(f"small {number}", 0.0, spooled=0)
    house.add("hog", 1.0)
    house.clock.now += GRACE_SECONDS
    house.spool.used = 8 * SIZE
    assert house.readers.make_room(SIZE)
    assert house.cut == ["hog"]


def test_what_another_thread_has_in_hand_is_left_alone_unless_it_waits(house: House) -> None:
    called: Any = house.add("called", 0.0)
    called.state = CALLING
    house.clock.now += GRACE_SECONDS
    house.spool.used = 8 * SIZE
    assert not house.readers.make_room(SIZE)
    house.clock.now += RETRY_SECONDS
    house.readers.waiting.add(called)
    assert house.readers.make_room(SIZE)


def test_a_look_that_found_nothing_is_not_repeated_at_once(house: House) -> None:
    """Each block of each answer asks, thousands a second."""
    house.spool.used = 8 * SIZE
    assert not house.readers.make_room(SIZE)
    house.add("slow", 0.0)
    house.timeouts.answers.fresh.first().transport.pace.began = 0.0
    assert not house.readers.make_room(SIZE)
    house.clock.now += RETRY_SECONDS
    assert house.readers.make_room(SIZE)


def test_a_call_waits_for_its_client_while_no_other_wants_the_thread(house: House) -> None:
    slow = house.waiting("slow", 0.0)
    house.clock.now += 60
    assert not house.readers.must_yield(slow, 2 * SIZE)
    house.others_since = house.clock.now
    assert not house.readers.must_yield(slow, 2 * SIZE), "they have not waited"
    house.clock.now += 1.0
    assert house.readers.must_yield(slow, 2 * SIZE)
    ((request, taken, rate, share),) = house.told
    assert (request, taken, rate, share) == ('"GET /slow"', "123 KiB", 0.0, "1 MiB")


def test_only_the_slowest_of_those_that_wait_yields(house: House) -> None:
    slowest, slow, fair = (house.waiting(name, rate) for name, rate in (("a", 1.0), ("b", 2.0), ("c", FAIR_RATE)))
    house.clock.now += 60
    house.others_since = 0.0
    yielded = [house.readers.must_yield(each, 2 * SIZE) for each in (fair, slow, slowest)]
    assert yielded == [False, False, True]


def test_a_call_within_its_share_yields_only_where_no_slow_reader_can_make_room(house: House) -> None:
    slow = house.waiting("slow", 100.0)
    house.add("other", 0.0)
    house.clock.now += 60
    house.others_since, house.spool.used = 0.0, 8 * SIZE
    assert not house.readers.must_yield(slow, SIZE)
    assert house.cut == ["other"]
