"""Calls that last too long are found in time, each once, and nobody wakes to find none."""

from __future__ import annotations

import math

import pytest

from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS, THREAD_WORDS, Row
from forkserver.master.model.lifecycle import State, Worker
from forkserver.master.monitoring.request_timeouts import RequestTimeouts

NOW = 5000.0


@pytest.fixture
def row() -> Row:
    return Row(memoryview(bytearray(4096)), 0, threads=2)


@pytest.fixture
def worker() -> Worker:
    return Worker(slot=0, generation=1, row=0, deadline=math.inf, state=State.SERVING)


def busy(row: Row, since: float, line: bytes = b"GET /slow", thread: int = 0) -> None:
    row.begin(line, thread)
    row.words[ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE] = int(since * 1e9)


def test_with_nobody_busy_the_next_look_is_when_a_call_could_be_too_long(worker: Worker, row: Row) -> None:
    """A call that begins right after this look is too long exactly then."""
    calls = RequestTimeouts()
    assert calls.look([(worker, row, 30.0)], NOW) == []
    assert calls.next_look == NOW + 30


def test_the_next_look_is_when_the_oldest_call_becomes_too_long(worker: Worker, row: Row) -> None:
    busy(row, NOW - 10)
    calls = RequestTimeouts()
    assert calls.look([(worker, row, 30.0)], NOW) == []
    assert calls.next_look == NOW + 20


def test_a_call_that_is_too_long_is_named_with_thread_begin_and_age(worker: Worker, row: Row) -> None:
    """By these the worker knows which of its calls is meant, and the operator which request."""
    busy(row, NOW - 31, b"GET /other", thread=1)
    (found,) = RequestTimeouts().look([(worker, row, 30.0)], NOW)
    assert (found.worker, found.thread, found.since, found.request) == (worker, 1, int((NOW - 31) * 1e9), "GET /other")
    assert found.seconds == pytest.approx(31)


def test_a_call_is_named_once(worker: Worker, row: Row) -> None:
    """Its worker has the order; what becomes of that is for the model to say."""
    busy(row, NOW - 31)
    calls = RequestTimeouts()
    assert len(calls.look([(worker, row, 30.0)], NOW)) == 1
    assert calls.look([(worker, row, 30.0)], NOW + 1) == []
    assert calls.look([(worker, row, 30.0)], NOW + 500) == []
    assert calls.next_look == NOW + 530


def test_the_next_call_of_the_same_thread_is_named_again(worker: Worker, row: Row) -> None:
    calls = RequestTimeouts()
    busy(row, NOW - 31)
    calls.look([(worker, row, 30.0)], NOW)
    busy(row, NOW + 1)
    assert calls.look([(worker, row, 30.0)], NOW + 30) == []
    assert len(calls.look([(worker, row, 30.0)], NOW + 31)) == 1


def test_every_thread_is_watched(worker: Worker, row: Row) -> None:
    busy(row, NOW - 40, b"GET /a", thread=0)
    busy(row, NOW - 35, b"GET /b", thread=1)
    assert [each.request for each in RequestTimeouts().look([(worker, row, 30.0)], NOW)] == ["GET /a", "GET /b"]


def test_a_hook_of_the_loops_own_is_watched_too(worker: Worker, row: Row) -> None:
    busy(row, NOW - 31, b"hook verify_request", thread=row.loop)
    assert [each.request for each in RequestTimeouts().look([(worker, row, 30.0)], NOW)] == ["hook verify_request"]


def test_a_call_that_asked_for_more_time_has_it(worker: Worker, row: Row) -> None:
    busy(row, NOW - 31)
    row.extend(int((NOW + 60) * 1e9))
    calls = RequestTimeouts()
    assert calls.look([(worker, row, 30.0)], NOW) == []
    assert calls.next_look == NOW + 30, "by then another call may be too long"
    assert len(calls.look([(worker, row, 30.0)], NOW + 60)) == 1


def test_a_deadline_of_its_own_wakes_in_time(worker: Worker, row: Row) -> None:
    busy(row, NOW - 29)
    row.extend(int((NOW + 7) * 1e9))
    calls = RequestTimeouts()
    calls.look([(worker, row, 30.0)], NOW)
    assert calls.next_look == NOW + 7


def test_the_deadline_of_a_call_before_counts_for_nothing(worker: Worker, row: Row) -> None:
    busy(row, NOW - 100)
    row.extend(int((NOW + 600) * 1e9))
    row.end()
    busy(row, NOW - 31)
    assert len(RequestTimeouts().look([(worker, row, 30.0)], NOW)) == 1


def test_without_a_timeout_nobody_looks(worker: Worker, row: Row) -> None:
    busy(row, 1.0)
    calls = RequestTimeouts()
    assert calls.look([(worker, row, math.inf)], NOW) == []
    assert calls.next_look == math.inf


def test_a_websocket_is_no_hang(worker: Worker, row: Row) -> None:
    """It lasts as long as its client likes; the thread's next call is watched again."""
    busy(row, NOW - 31)
    row.upgrade()
    calls = RequestTimeouts()
    assert calls.look([(worker, row, 30.0)], NOW) == []
    assert calls.next_look == NOW + 30
    assert calls.look([(worker, row, math.inf)], NOW) == []
    assert calls.next_look == math.inf
    row.end()
    busy(row, NOW - 32)
    assert len(calls.look([(worker, row, 30.0)], NOW)) == 1


def test_a_call_that_waits_for_its_client_is_never_too_long(worker: Worker, row: Row) -> None:
    """It may go on at any moment, so it is looked at again soon."""
    busy(row, NOW - 500)
    row.await_client(True)
    calls = RequestTimeouts()
    assert calls.look([(worker, row, 30.0)], NOW) == []
    assert calls.next_look == NOW + 1
    row.await_client(False)
    assert len(calls.look([(worker, row, 30.0)], NOW + 1)) == 1
