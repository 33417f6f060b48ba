"""What a worker counts for as long as it lives."""

from __future__ import annotations

import pytest

from forkserver.ipc import figures, scoreboard
from forkserver.ipc.scoreboard import Row, Shape

THREADS = 2


@pytest.fixture
def row() -> Row:
    return Row(memoryview(bytearray(Shape(1, THREADS).row_bytes)), 0, THREADS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time in ns; the test changes it."""
    now = [10**12]
    monkeypatch.setattr(scoreboard, "monotonic_ns", lambda: now[0])
    return now


def histogram(row: Row, at: int) -> tuple[int, dict[int, int]]:
    """The sum, and the buckets that are not empty."""
    buckets = row.words[at + 1 : at + 1 + figures.BUCKETS]
    return row.words[at], {number: count for number, count in enumerate(buckets) if count}


def test_bounds_go_from_a_tenth_of_a_millisecond_to_a_hundred_seconds_four_for_each_power_of_ten() -> None:
    assert figures.BOUNDS[:5] == (100_000, 180_000, 320_000, 560_000, 1_000_000)
    assert figures.BOUNDS[-1] == 100 * 10**9
    assert len(figures.BOUNDS) == 25
    assert figures.END <= scoreboard.ROW_WORDS


@pytest.mark.parametrize(
    ("duration", "bucket"), [(0, 0), (100_000, 0), (100_001, 1), (10**11, 24), (10**11 + 1, 25), (10**15, 25)]
)
def test_a_call_is_in_the_bucket_of_the_first_bound_that_it_does_not_pass(
    row: Row, clock: list[int], duration: int, bucket: int
) -> None:
    row.begin(b"GET /", thread=1)
    clock[0] += duration
    row.end(thread=1)
    assert histogram(row, figures.LASTED) == (duration, {bucket: 1})


def test_a_request_has_waited_from_when_it_was_whole_until_it_is_served(row: Row, clock: list[int]) -> None:
    since = clock[0] / 1e9
    clock[0] += 2_000_000
    with row.hook(b"hook", thread=1):
        clock[0] += 1_000_000
    row.begin(b"GET /", thread=1, since=since)
    row.end(thread=1)
    assert histogram(row, figures.WAITED) == (3_000_000, {6: 1})


def test_what_lies_in_the_future_has_not_waited(row: Row, clock: list[int]) -> None:
    row.begin(b"GET /", since=clock[0] / 1e9 + 5)
    assert histogram(row, figures.WAITED) == (0, {0: 1})


def test_a_websocket_is_no_call_that_took_long(row: Row, clock: list[int]) -> None:
    row.begin(b"GET /")
    row.upgrade()
    clock[0] += 10**12
    row.end()
    assert histogram(row, figures.LASTED) == (0, {})
    assert row.words[scoreboard.REQUESTS] == 1


@pytest.mark.parametrize(("status", "place"), [(200, 2), (101, 1), (599, 5), (99, 0), (600, 0), (999, 0)])
def test_answers_are_counted_by_the_first_digit_of_a_status_that_has_a_meaning(
    row: Row, status: int, place: int
) -> None:
    row.answer(status, 7, 3)
    assert list(row.words[figures.ANSWERS : figures.ANSWERS + 6]) == [int(each == place) for each in range(6)]
    assert (row.words[figures.ANSWER_BYTES], row.words[figures.REQUEST_BYTES]) == (7, 3)
