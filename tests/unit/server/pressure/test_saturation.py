"""All threads taken for long are spoken of once; ordinary load is not."""

from __future__ import annotations

import pytest

from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS, THREAD_WORDS, Row
from forkserver.server.pressure.saturation import QUIET_SECONDS, Saturation, taken_for_long

NOW = 5000.0
NEVER = float("inf")


@pytest.fixture
def row() -> Row:
    return Row(memoryview(bytearray(4096)), 0, threads=3)


def busy(row: Row, thread: int, since: float, line: bytes = b"GET /events") -> None:
    row.begin(line, thread)
    row.words[ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE] = int(since * 1e9)


def take_all(row: Row, *since: float) -> None:
    for thread, each in enumerate(since):
        busy(row, thread, each)


def test_it_is_said_with_the_figures_and_the_way_out(row: Row) -> None:
    take_all(row, NOW - 312, NOW - 20, NOW - 10)
    said = Saturation(row, NEVER).look(NOW, "7 requests wait", streams=2, way_out=", or set queue_timeout")
    assert said == (
        "all 3 threads of this worker have been busy for 10 s (2 streams, the longest GET /events for 312 s); "
        "7 requests wait; raise --threads or --workers, or set queue_timeout; see docs/streams.md"
    )


def test_one_thread_is_called_the_only_one() -> None:
    row = Row(memoryview(bytearray(4096)), 0, threads=1)
    busy(row, 0, NOW - 6, b"GET /report")
    said = Saturation(row, NEVER).look(NOW, "1 request waits", streams=1)
    assert said is not None
    assert said.startswith("the only thread of this worker has been busy for 6 s (1 stream, the longest GET /report ")


def test_a_free_thread_is_no_saturation(row: Row) -> None:
    busy(row, 0, NOW - 300)
    busy(row, 1, NOW - 300)
    assert Saturation(row, NEVER).look(NOW, "1 request waits", 2) is None


def test_threads_that_change_from_call_to_call_are_load(row: Row) -> None:
    """Requests wait there, too, and more threads may be no help at all."""
    take_all(row, NOW - 300, NOW - 300, NOW - 4.9)
    assert taken_for_long(row, NOW) is None
    assert Saturation(row, NEVER).look(NOW, "90 requests wait", 2) is None


def test_nobody_is_told_where_nothing_waits(row: Row) -> None:
    take_all(row, *[NOW - 300] * 3)
    assert Saturation(row, NEVER).look(NOW, "", 3) is None


def test_the_same_calls_are_told_of_once(row: Row) -> None:
    take_all(row, *[NOW - 300] * 3)
    saturation = Saturation(row, NEVER)
    assert saturation.look(NOW, "1 request waits", 3)
    for later in (5.0, 2 * QUIET_SECONDS):
        assert saturation.look(NOW + later, "1 request waits", 3) is None


def test_other_calls_are_told_of_again_after_a_while(row: Row) -> None:
    """A service that is always at its limit says so, and does not fill the log."""
    take_all(row, *[NOW - 300] * 3)
    saturation = Saturation(row, NEVER)
    saturation.look(NOW, "1 request waits", 3)
    busy(row, 1, NOW + 10)
    assert saturation.look(NOW + 20, "1 request waits", 3) is None
    assert saturation.look(NOW + QUIET_SECONDS, "1 request waits", 3)


def test_it_looks_when_requests_have_waited_and_at_intervals(row: Row) -> None:
    saturation = Saturation(row, NEVER)
    assert saturation.due(NOW) == NOW + 5
    saturation.look(NOW + 5, "1 request waits", 0)
    assert saturation.due(NOW) == NOW + 10
    assert saturation.due(NOW + 8) == NOW + 13


def test_requests_that_are_turned_down_sooner_are_looked_at_before(row: Row) -> None:
    """With a short queue_timeout none waits for long; it is answered 503, and the log must say why."""
    assert Saturation(row, 2.0).due(NOW) == NOW + 2
