"""How many of many like events are admitted, by a clock that the test sets."""

from __future__ import annotations

from math import inf

import pytest

from forkserver.logs.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_all_clients_together_get_a_burst_and_then_one_in_a_while(clock: Clock) -> None:
    limit = RateLimit(burst=3, seconds=10, pause=0, clock=clock)
    assert [limit.admit(f"10.0.0.{number}") is not None for number in range(5)] == [True] * 3 + [False] * 2
    clock.now = 9.0
    assert limit.admit("10.0.0.9") is None
    clock.now = 10.0
    assert limit.admit("10.0.0.9") == 3
    assert limit.admit("10.0.0.8") is None


def test_no_more_than_a_burst_is_saved_up(clock: Clock) -> None:
    limit = RateLimit(burst=3, seconds=10, pause=0, clock=clock)
    clock.now = 1e6
    assert [limit.admit(str(number)) is not None for number in range(5)] == [True] * 3 + [False] * 2


def test_one_client_gets_one_in_its_pause_and_takes_nothing_of_the_others(clock: Clock) -> None:
    limit = RateLimit(burst=2, seconds=1000, pause=5, clock=clock)
    assert limit.admit("10.0.0.1") == 0
    assert [limit.admit("10.0.0.1") for _ in range(100)] == [None] * 100
    clock.now = 5.0
    assert limit.admit("10.0.0.1") == 100
    assert limit.admit("10.0.0.2") is None, "the bucket is empty"


def test_a_client_is_told_of_once_where_its_pause_has_no_end(clock: Clock) -> None:
    limit = RateLimit(burst=2, seconds=1, pause=inf, clock=clock)
    assert limit.admit("10.0.0.1") == 0
    clock.now = 1e9
    assert limit.admit("10.0.0.1") is None
    assert limit.admit("10.0.0.2") == 1


def test_what_is_remembered_of_clients_is_bounded(clock: Clock) -> None:
    """A crowd of addresses, each used once, must not make a worker grow; who came last is known longest."""
    limit = RateLimit(burst=1, seconds=1, pause=inf, keys=3, clock=clock)
    for number in range(10):
        clock.now += 1
        assert limit.admit(str(number)) == 0
    assert list(limit._admitted_at) == ["7", "8", "9"]
    clock.now += 1
    assert limit.admit("9") is None
    assert limit.admit("6") == 1
