"""Calls that last too long are found in time, and nobody wakes to find none."""

from __future__ import annotations

import math

import pytest

from forkserver.scoreboard import BUSY_SINCE, ROW_WORDS, Row
from forkserver.supervision.calls import Calls
from forkserver.supervision.lives import State, Worker
from forkserver.supervision.roster import STACKS_SECONDS

NOW = 5000.0


@pytest.fixture
def row() -> Row:
    return Row(memoryview(bytearray(4096)), 0, threads=1)


@pytest.fixture
def worker() -> Worker:
    return Worker(slot=0, generation=1, row=0, deadline=math.inf, state=State.SERVING)


def busy(row: Row, since: float, line: bytes = b"GET /slow") -> None:
    row.begin(line)
    row.words[ROW_WORDS + BUSY_SINCE] = int(since * 1e9)


def test_with_nobody_busy_the_next_look_is_when_a_call_could_be_too_long(worker: Worker, row: Row) -> None:
    """A call that begins right after this look is too long exactly then."""
    calls = Calls()
    assert calls.look([(worker, row, 30.0)], NOW) == []
    assert calls.next_look == NOW + 30


def test_the_next_look_is_when_the_oldest_call_becomes_too_long(worker: Worker, row: Row) -> None:
    busy(row, NOW - 10)
    calls = Calls()
    assert calls.look([(worker, row, 30.0)], NOW) == []
    assert calls.next_look == pytest.approx(NOW + 20)


def test_a_call_too_long_is_a_suspect_first_then_condemned(worker: Worker, row: Row) -> None:
    """Between the two its stacks are written."""
    busy(row, NOW - 31)
    calls = Calls()
    (found,) = calls.look([(worker, row, 30.0)], NOW)
    assert (found.worker, found.line, found.condemned) == (worker, "GET /slow", False)
    assert found.seconds == pytest.approx(31)
    assert calls.next_look == NOW + STACKS_SECONDS
    (again,) = calls.look([(worker, row, 30.0)], NOW + STACKS_SECONDS)
    assert again.condemned


def test_a_suspect_is_named_once(worker: Worker, row: Row) -> None:
    busy(row, NOW - 31)
    calls = Calls()
    calls.look([(worker, row, 30.0)], NOW)
    assert calls.look([(worker, row, 30.0)], NOW + STACKS_SECONDS / 2) == []


def test_a_call_that_ends_meanwhile_is_spared(worker: Worker, row: Row) -> None:
    busy(row, NOW - 31)
    calls = Calls()
    calls.look([(worker, row, 30.0)], NOW)
    row.end()
    busy(row, NOW + 0.5, b"GET /quick")
    assert calls.look([(worker, row, 30.0)], NOW + STACKS_SECONDS) == []


def test_without_a_limit_nobody_looks_again(worker: Worker, row: Row) -> None:
    busy(row, NOW - 4000)
    calls = Calls()
    assert calls.look([(worker, row, math.inf)], NOW) == []
    assert calls.next_look == math.inf
