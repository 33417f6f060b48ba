"""Figures between two readings: of the master's clock, never negative, begun anew with the service."""

from __future__ import annotations

import math
from typing import Any

import pytest

from forkserver.cli.top.rates import percentile
from harness.statuses import buckets, call_of, readings_of, status_of, worker_of


def test_a_rate_is_the_difference_of_two_sums_by_the_masters_clock() -> None:
    readings = readings_of(
        status_of(10.0, answers={"2xx": 100}, figures={"answer_bytes": 0}),
        status_of(12.0, answers={"2xx": 120, "5xx": 4}, figures={"answer_bytes": 4096}),
    )
    last = readings.last
    assert last is not None
    assert (last.seconds, last.total, last.answers["5xx"], last.answer_bytes) == (2.0, 12.0, 2.0, 2048.0)


def test_without_a_second_reading_there_are_no_rates() -> None:
    readings = readings_of(status_of(10.0), status_of(10.0))
    assert readings.last is readings.minute is None
    assert [rates.busy for _, rates in readings.workers()] == [None, None]


def test_the_minute_is_a_minute_however_often_it_looks() -> None:
    readings = readings_of(*(status_of(at / 2, answers={"2xx": at}) for at in range(400)))
    assert readings.minute is not None
    assert readings.minute.seconds == 60.0
    assert readings.minute.total == 2.0
    assert readings.last is not None
    assert readings.last.seconds == 0.5


def test_a_service_that_was_started_anew_begins_anew() -> None:
    readings = readings_of(status_of(100.0, answers={"2xx": 1000}), status_of(1.0, answers={"2xx": 10}))
    assert readings.last is None
    readings = readings_of(status_of(100.0), status_of(1.0), status_of(2.0, answers={"2xx": 3}))
    assert readings.last is not None
    assert readings.last.total == 3.0


def test_other_bounds_of_another_version_are_no_percentiles() -> None:
    other = {"sum": 0.0, "count": 2, "buckets": [1, 1]}
    figures = {"bounds": [1.0], "application_seconds": other, "waiting_seconds": other}
    readings = readings_of(status_of(1.0), status_of(2.0, figures=figures))
    assert readings.last is not None
    assert readings.last.application == (None, None, None)


@pytest.mark.parametrize(
    ("share", "counts", "seconds"),
    [
        (0.5, [10, 0, 0], 0.5),
        (0.5, [0, 10, 0], 1.5),
        (0.95, [95, 5, 0], 1.0),
        (0.99, [0, 0, 1], math.inf),
        (0.5, [0, 0, 0], None),
    ],
)
def test_percentiles_are_those_that_prometheus_reckons(share: float, counts: list[int], seconds: float | None) -> None:
    assert percentile(share, counts, [1.0, 2.0]) == seconds


def test_percentiles_are_of_the_interval_alone() -> None:
    readings = readings_of(
        status_of(1.0, application=buckets(b0=1000)), status_of(2.0, application=buckets(b0=1000, b25=10))
    )
    assert readings.last is not None
    assert readings.last.application[0] == readings.last.application[2] == math.inf


def share(before: dict[str, Any], now: dict[str, Any], threads: int = 2) -> float | None:
    readings = readings_of(
        status_of(10.0, threads=threads, workers=[worker_of(1, **before)]),
        status_of(12.0, threads=threads, workers=[worker_of(1, **now)]),
    )
    return readings.workers()[0][1].busy


def test_the_busy_share_counts_calls_that_ended_and_those_in_hand() -> None:
    idle: dict[str, Any] = {"application_seconds": 5.0}
    assert share(idle, idle) == 0.0
    assert share(idle, {"application_seconds": 6.0}) == 0.25
    assert share(idle, {"application_seconds": 5.0, "busy": [call_of("GET /", 1.0)]}) == 0.25
    begun: dict[str, Any] = {"application_seconds": 5.0, "busy": [call_of("GET /", 30.0)]}
    assert share(begun, {"application_seconds": 5.0, "busy": [call_of("GET /", 32.0)]}) == 0.5
    assert share(begun, {"application_seconds": 36.0}) == 0.25


def test_a_websocket_keeps_its_thread_busy() -> None:
    """Its end adds nothing to the time of calls, and takes nothing from the share of the others."""
    socket: dict[str, Any] = {"application_seconds": 5.0, "busy": [call_of("GET /ws", 30.0, websocket=True)]}
    assert share(socket, socket) == 0.5
    assert share(socket, {"application_seconds": 6.0}) == 0.25


def test_of_an_older_master_the_calls_of_now_are_the_share() -> None:
    readings = readings_of(
        *(
            status_of(at, workers=[worker_of(1, application_seconds=None, busy=[call_of("GET /", 1.0)])])
            for at in (1.0, 2.0)
        )
    )
    assert readings.workers()[0][1].busy == 0.5


def test_a_worker_in_the_place_of_another_has_no_rates_yet() -> None:
    readings = readings_of(
        status_of(1.0, workers=[worker_of(1, requests=1000)]),
        status_of(2.0, workers=[worker_of(1, pid=999, requests=3)]),
    )
    assert readings.workers()[0][1] == (None, None)
