"""Sums of what workers count."""

from __future__ import annotations

import pytest

from forkserver.ipc import figures, scoreboard
from forkserver.ipc.scoreboard import MOST, Row, Shape
from forkserver.master.monitoring.figure_totals import FigureTotals


def row() -> Row:
    return Row(memoryview(bytearray(Shape(1, 1).row_bytes)), 0, 1)


@pytest.fixture
def rows() -> list[Row]:
    return [row(), row()]


@pytest.fixture
def totals(rows: list[Row]) -> FigureTotals:
    return FigureTotals(lambda: rows, {})


def test_what_an_ended_worker_has_counted_goes_on_in_the_sum(rows: list[Row], totals: FigureTotals) -> None:
    for each in rows:
        each.answer(204, 0)
        each.answer(500, 100, 10)
    ended = rows.pop()
    totals.ended(ended)
    ended.clear()
    rows.append(row())
    shown = totals.shown()
    assert shown["answers"] == {"other": 0, "1xx": 0, "2xx": 2, "3xx": 0, "4xx": 0, "5xx": 2}
    assert (shown["answer_bytes"], shown["request_bytes"]) == (200, 20)
    assert FigureTotals(lambda: rows, totals.of_ended()).shown() == {**shown, **_of_living(rows, totals)}


def _of_living(rows: list[Row], totals: FigureTotals) -> dict[str, object]:
    """The next program has the sums of ended workers, and the same rows."""
    return FigureTotals(lambda: rows, totals.of_ended()).shown()


def test_no_sum_falls_where_a_worker_makes_a_figure_smaller(rows: list[Row], totals: FigureTotals) -> None:
    rows[0].words[scoreboard.REQUESTS] = 9
    assert totals[scoreboard.REQUESTS] == 9
    rows[0].words[scoreboard.REQUESTS] = 2
    assert totals[scoreboard.REQUESTS] == 9


def test_no_sum_is_more_than_a_reader_of_json_has_exactly(rows: list[Row], totals: FigureTotals) -> None:
    for each in rows:
        each.words[figures.ANSWER_BYTES] = 2**64 - 1
    assert totals.shown()["answer_bytes"] == MOST


def test_a_histogram_has_a_bucket_for_each_bound_and_one_behind_them(rows: list[Row], totals: FigureTotals) -> None:
    words = rows[0].words
    words[figures.LASTED] = 1_500_000_000
    words[figures.LASTED + 1] = 4
    words[figures.LASTED + figures.BUCKETS] = 1
    shown = totals.shown()
    found = shown["application_seconds"]
    assert (found["sum"], found["count"]) == (1.5, 5)
    assert len(found["buckets"]) == len(shown["bounds"]) + 1
    assert (found["buckets"][0], found["buckets"][-1]) == (4, 1)
    assert shown["bounds"][0] == 0.0001
