"""What is closed where accept(2) finds no descriptor, and what connections leave to the application."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from forkserver.linux import descriptor_limit
from forkserver.server.loop.descriptor_reserve import RETRY_SECONDS, DescriptorReserve
from forkserver.server.pressure.eviction import Shortage
from harness.fakes import FakeLoop

OF_THE_MACHINE = [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS]
WAITS = 1 << 20  # a client seems to wait: poll(2) tells of a number that is no descriptor


class House:
    """A reserve in a loop of fakes that has ``count`` connections, all of which can be closed."""

    def __init__(self, count: int = 10) -> None:
        self.loop = FakeLoop()
        loop: Any = self.loop
        loop.evict, loop.evict_resting = self.evict, self.evict_resting
        loop.seconds_left = lambda: None
        self.loop.connections = set(range(count))
        self.asked: list[tuple[int, Shortage]] = []
        self.resting = 0
        self.closable = 100
        self.reserve = DescriptorReserve(loop)
        self.reserve.crowded_from = 1000

    def evict(self, count: int, shortage: Shortage) -> int:
        self.asked.append((count, shortage))
        closed = min(count, self.closable)
        self.closable -= closed
        for _ in range(closed):
            self.loop.connections.pop()
        return closed

    def evict_resting(self) -> bool:
        self.resting += 1
        return True

    def make_room(self, number: int, fd: int = WAITS, count: int = 1) -> bool:
        return self.reserve.make_room(OSError(number, os.strerror(number)), fd, count)


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def quiet() -> Iterator[int]:
    """A descriptor at which no client waits."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def test_each_client_takes_the_place_of_one_where_the_workers_own_limit_is_reached(house: House) -> None:
    for count in (1, 2):
        assert house.make_room(errno.EMFILE, count=count)
    assert house.asked == [(1, Shortage.DESCRIPTORS), (2, Shortage.DESCRIPTORS)]
    house.closable = 0
    assert not house.make_room(errno.EMFILE)


@pytest.mark.parametrize("number", OF_THE_MACHINE)
def test_what_the_machine_has_run_short_of_costs_one_idle_client_a_second(house: House, number: int) -> None:
    """What one of ours had, another process may have taken before we get it."""
    assert [house.make_room(number) for _ in range(3)] == [True, False, False]
    house.loop.timeouts.now += RETRY_SECONDS
    assert house.make_room(number)
    assert (house.resting, house.asked) == (2, [])


def test_each_client_takes_the_place_of_one_while_that_helps(house: House) -> None:
    for _ in range(3):
        assert house.make_room(errno.ENFILE)
        house.reserve.note_success()
    assert house.resting == 3


@pytest.mark.parametrize("number", [errno.EMFILE, *OF_THE_MACHINE])
def test_nothing_is_closed_for_a_client_that_a_sibling_has(house: House, quiet: int, number: int) -> None:
    """The kernel looks for a descriptor before it looks whether a client waits (accept(2))."""
    with pytest.raises(BlockingIOError):
        house.make_room(number, quiet)
    assert (house.asked, house.resting) == ([], 0)


def test_another_error_is_no_shortage(house: House) -> None:
    assert not house.make_room(errno.ECONNABORTED)
    assert (house.asked, house.resting) == ([], 0)


def test_a_low_number_leaves_the_application_its_descriptors(house: House) -> None:
    assert house.reserve.keep(999)
    assert house.asked == []


def test_connections_leave_the_last_descriptors_to_the_application(house: House) -> None:
    """Its own open() must not be what fails first."""
    assert house.reserve.keep(1000)
    assert house.asked == [(1, Shortage.DESCRIPTORS)]


def test_connections_that_have_taken_the_last_descriptors_give_them_back(house: House) -> None:
    """A crowd may come faster than any of it can be closed: each that is accepted costs one more."""
    house.make_room(errno.EMFILE)
    house.reserve.crowded_from = descriptor_limit.soft() - 4
    house.make_room(errno.EMFILE)
    house.asked.clear()
    for _ in range(3):
        house.loop.connections.add(object())
        house.reserve.keep(5)
    assert [count for count, _ in house.asked] == [2, 2, 2]


def test_a_crowd_that_is_gone_is_forgotten(house: House) -> None:
    house.make_room(errno.EMFILE)
    house.loop.connections = set(range(2))
    house.reserve.crowded_from = descriptor_limit.soft() - 4
    house.make_room(errno.EMFILE)
    house.loop.connections = set()
    assert house.reserve.keep(5)
    house.asked.clear()
    house.loop.connections = set(range(50))
    assert house.reserve.keep(5)
    assert house.asked == []


class Numbered:
    """A connection with descriptor ``fd``."""

    def __init__(self, fd: int) -> None:
        self.fd = fd


@pytest.fixture
def full(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Ten connections, of which none can be closed; the latest has the first of the last four descriptors."""
    house.closable = 0
    house.reserve.crowded_from = first = descriptor_limit.soft() - 4
    monkeypatch.setattr(descriptor_limit, "next_number", lambda: first)
    house.loop.connections = {Numbered(first - each) for each in range(10)}
    assert house.reserve.has_room()
    assert not house.reserve.keep(first)
    return house


def test_where_none_may_be_closed_there_is_no_room_until_one_has_closed(full: House) -> None:
    assert not full.reserve.has_room()
    full.loop.connections.pop()
    assert full.reserve.has_room()


def test_where_none_may_be_closed_it_looks_again_after_a_while(full: House) -> None:
    """The application may have let go of files, of which no event tells."""
    assert full.reserve.seconds_left() == RETRY_SECONDS
    full.loop.connections.pop()
    assert full.reserve.has_room()
    assert full.reserve.seconds_left() is None


@pytest.mark.parametrize(("high", "room"), [(1, True), (2, True), (3, False)])
def test_files_that_the_application_has_closed_make_room_while_it_has_half_of_the_last(
    full: House, monkeypatch: pytest.MonkeyPatch, high: int, room: bool
) -> None:
    first = full.reserve.crowded_from
    full.loop.connections = {Numbered(first + (each if each < high else -each)) for each in range(12)}
    monkeypatch.setattr(descriptor_limit, "next_number", lambda: first - 1)
    assert full.reserve.has_room() is room


def test_connections_are_accepted_where_it_is_the_application_that_has_taken_all(full: House) -> None:
    full.loop.connections = {Numbered(1) for _ in range(3)}
    assert full.reserve.keep(full.reserve.crowded_from + 3)
    assert full.reserve.has_room()
