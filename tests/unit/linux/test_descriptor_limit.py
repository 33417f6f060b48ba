"""A worker has the descriptors that its connections need, and leaves the low numbers to the application."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from forkserver.linux import descriptor_limit
from forkserver.linux.descriptor_limit import (
    NOFILE_AUTO,
    NOFILE_KEEP,
    SELECT_LIMIT,
    Headroom,
    move_up,
    raise_soft,
    restore,
    soft,
)
from harness import limits


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    """The usual soft limit for this test."""
    with limits.usual_open_files():
        yield


@pytest.mark.parametrize(("nofile", "wanted"), [(NOFILE_AUTO, 1424), (NOFILE_KEEP, 1024), (2000, 2000), (500, 1024)])
def test_the_limit_is_raised_to_what_is_needed_and_never_lowered(nofile: int, wanted: int) -> None:
    assert raise_soft(nofile, 200) == 1024
    assert soft() == wanted
    restore(1024)
    assert soft() == 1024


def test_the_limit_is_not_raised_above_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    raise_soft(2**30, 1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 2**30), hard)


def test_a_connection_moves_to_a_number_that_select_does_not_know() -> None:
    """The application's own files have the low numbers then."""
    number = os.open("/dev/null", os.O_RDONLY)
    assert move_up(number) == number, "there is no higher one yet"
    raise_soft(2048, 1)
    moved = move_up(number)
    assert moved >= SELECT_LIMIT
    assert move_up(moved) == moved
    assert not os.get_inheritable(moved)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    os.close(moved)


def test_some_numbers_are_left_to_the_application() -> None:
    assert descriptor_limit.crowded_from() == 1024 - 64


def test_the_next_number_is_the_lowest_that_is_free_or_the_limit() -> None:
    number = os.open("/dev/null", os.O_RDONLY)
    os.close(number)
    assert descriptor_limit.next_number() == descriptor_limit.next_number() == number
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    assert descriptor_limit.next_number() == number == soft()


def test_a_parent_of_many_has_room_beside_the_application_but_not_while_it_forks() -> None:
    headroom = Headroom.beside(600, NOFILE_AUTO)
    headroom.take()
    assert soft() == 1624
    headroom.give_back()
    assert soft() == 1024


@pytest.mark.parametrize(("count", "nofile"), [(100, NOFILE_AUTO), (600, NOFILE_KEEP)])
def test_for_a_few_children_or_where_it_is_to_be_kept_the_limit_stays(count: int, nofile: int) -> None:
    Headroom.beside(count, nofile).take()
    assert soft() == 1024
