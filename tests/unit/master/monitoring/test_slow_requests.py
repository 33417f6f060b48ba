"""Calls that pass slow_log are named while they run, at each doubling; what their workers say of them is bounded."""

from __future__ import annotations

import math

import pytest

from forkserver.ipc.scoreboard import BUSY_SINCE, PROGRESS, ROW_WORDS, THREAD_WORDS, Row
from forkserver.master.model.lifecycle import NEVER, State, Worker
from forkserver.master.monitoring.slow_requests import (
    ANSWER_SECONDS,
    ASKED_AT_ONCE,
    KEPT,
    SUMMARY_SECONDS,
    SlowRequests,
)

NOW = 5000.0
WALL = 1_800_000_000.0


@pytest.fixture
def row() -> Row:
    return Row(memoryview(bytearray(4096)), 0, threads=2)


@pytest.fixture
def worker() -> Worker:
    return Worker(slot=0, generation=1, row=0, deadline=math.inf, state=State.SERVING, pid=4711)


@pytest.fixture
def slow() -> SlowRequests:
    return SlowRequests(clock=lambda: WALL)


def busy(row: Row, since: float, line: bytes = b"GET /slow", thread: int = 0) -> int:
    row.begin(line, thread, "an-id")
    row.words[ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE] = begun = int(since * 1e9)
    return begun


def test_a_call_is_named_when_it_has_passed_the_limit_and_at_each_doubling(
    slow: SlowRequests, worker: Worker, row: Row
) -> None:
    key = worker, 0, busy(row, NOW)
    named = []
    for tenths in range(200):
        now = NOW + tenths / 10
        if slow.look([(worker, row, 2.0)], now):
            named.append(now - NOW)
            slow.shown(*key, "", "")
    assert named == [pytest.approx(seconds, abs=0.11) for seconds in (2, 4, 8, 16)]


def test_it_is_looked_for_when_a_call_could_pass_the_limit_and_not_before(
    slow: SlowRequests, worker: Worker, row: Row
) -> None:
    assert slow.look([(worker, row, 2.0)], NOW) == []
    assert slow.next_look == NOW + 2
    busy(row, NOW - 1.5)
    slow.look([(worker, row, 2.0)], NOW)
    assert slow.next_look == NOW + 0.5


def test_where_it_is_off_no_row_is_read_and_the_master_does_not_wake(slow: SlowRequests, worker: Worker) -> None:
    unread: Row = None  # type: ignore[assignment]
    assert slow.look([(worker, unread, 0.0)], NOW) == []
    assert slow.next_look == NEVER


def test_a_call_that_waits_for_its_client_and_a_websocket_are_not_slow(
    slow: SlowRequests, worker: Worker, row: Row
) -> None:
    busy(row, NOW - 60)
    row.await_client(True)
    busy(row, NOW - 60, thread=1)
    row.upgrade(1)
    assert slow.look([(worker, row, 2.0)], NOW) == []
    assert slow.listed(NOW) == []
    assert slow.next_look == NOW + 1, (
        "it may go on at any time, and the master does not wake ten times a second for that"
    )


def test_a_call_in_which_a_person_uses_a_debugger_is_not_slow(slow: SlowRequests, worker: Worker, row: Row) -> None:
    key = worker, 0, busy(row, NOW - 60)
    worker.in_debugger = True
    assert slow.look([(worker, row, 2.0)], NOW) == []
    assert slow.next_look == NOW + 1
    worker.in_debugger = False
    assert slow.look([(worker, row, 2.0)], NOW + 1) == [key]


def test_time_counts_anew_from_what_a_stream_has_given_its_client(slow: SlowRequests, worker: Worker, row: Row) -> None:
    """And a stream that has been slow is told again only where it is slower than before."""
    key = worker, 0, busy(row, NOW - 60)
    row.words[ROW_WORDS + PROGRESS] = int((NOW - 1) * 1e9)
    assert slow.look([(worker, row, 2.0)], NOW) == []
    assert slow.look([(worker, row, 2.0)], NOW + 1) == [key]
    slow.shown(*key, "", "")
    row.words[ROW_WORDS + PROGRESS] = int((NOW + 2) * 1e9)
    assert slow.look([(worker, row, 2.0)], NOW + 5) == []
    assert slow.look([(worker, row, 2.0)], NOW + 6) == [key]


def test_the_list_says_when_it_began_how_long_it_takes_and_what_the_worker_tells(
    slow: SlowRequests, worker: Worker, row: Row
) -> None:
    since = busy(row, NOW - 3)
    slow.look([(worker, row, 2.0)], NOW)
    slow.shown(worker, 0, since, "192.0.2.7", "/srv/views.py:7 in report")
    assert slow.listed(NOW + 1) == [
        {
            "time": WALL - 3, "seconds": 4.0, "running": True, "worker": 1, "pid": 4711, "generation": 1,
            "request": "GET /slow", "request_id": "an-id", "client": "192.0.2.7", "place": "/srv/views.py:7 in report",
        }
    ]  # fmt: skip


def test_a_call_that_has_ended_is_listed_with_the_time_it_took(slow: SlowRequests, worker: Worker, row: Row) -> None:
    """Slow calls are looked at often enough to tell that to a sixteenth."""
    busy(row, NOW)
    slow.look([(worker, row, 2.0)], NOW + 2)
    now = NOW + 2.0
    while now < NOW + 10:
        slow.unseen(list, now)
        slow.look([(worker, row, 2.0)], now)
        assert slow.next_look > now
        now = slow.next_look
    row.end()
    slow.settle([(worker, row, 2.0)])
    (listed,) = slow.listed(NOW + 500)
    assert listed["running"] is False
    assert 10 * 15 / 16 <= listed["seconds"] <= 10


def test_a_worker_that_has_ended_leaves_no_call_running(slow: SlowRequests, worker: Worker, row: Row) -> None:
    busy(row, NOW - 3)
    slow.look([(worker, row, 2.0)], NOW)
    slow.look([], NOW + 1)
    assert slow.listed(NOW + 1)[0]["running"] is False
    busy(row, NOW)
    slow.look([(worker, row, 2.0)], NOW + 3)
    slow.settle([])
    assert slow.listed(NOW + 3)[0]["running"] is False


def test_the_newest_stands_first_and_fifty_are_kept(slow: SlowRequests, worker: Worker, row: Row) -> None:
    for number in range(KEPT + 3):
        busy(row, NOW + number - 3, b"GET /%d" % number)
        slow.look([(worker, row, 2.0)], NOW + number)
        row.end()
    listed = slow.listed(NOW + 100)
    assert [each["request"] for each in listed] == [f"GET /{number}" for number in reversed(range(3, KEPT + 3))]


def test_a_worker_that_does_not_show_a_call_is_named_once(slow: SlowRequests, worker: Worker, row: Row) -> None:
    busy(row, NOW - 2)
    slow.look([(worker, row, 2.0)], NOW)
    assert slow.unseen(lambda: [(worker, row, 2.0)], NOW + ANSWER_SECONDS - 0.1) == []
    (call,) = slow.unseen(lambda: [(worker, row, 2.0)], NOW + ANSWER_SECONDS)
    assert (call.request, call.running) == ("GET /slow", True)
    assert slow.unseen(lambda: [(worker, row, 2.0)], NOW + 100) == []


def test_a_worker_is_not_asked_again_before_it_has_answered(slow: SlowRequests, worker: Worker, row: Row) -> None:
    key = worker, 0, busy(row, NOW - 0.125)
    assert slow.look([(worker, row, 0.125)], NOW) == [key]
    assert slow.look([(worker, row, 0.125)], NOW + 1) == []
    assert slow.unseen(lambda: [(worker, row, 2.0)], NOW + ANSWER_SECONDS)
    assert slow.look([(worker, row, 0.125)], NOW + ANSWER_SECONDS) == [key]


def test_a_worker_in_which_a_call_hangs_is_not_asked(slow: SlowRequests, worker: Worker, row: Row) -> None:
    """It was told to write all of its stacks, or does not hear."""
    worker.state = State.HUNG
    busy(row, NOW - 3)
    assert slow.look([(worker, row, 2.0)], NOW) == []


def test_what_no_worker_was_asked_for_is_not_heard(slow: SlowRequests, worker: Worker, row: Row) -> None:
    since = busy(row, NOW - 3)
    slow.shown(worker, 0, since, "192.0.2.7", "too early")
    slow.look([(worker, row, 2.0)], NOW)
    slow.shown(worker, 1, since, "192.0.2.7", "another thread")
    slow.shown(worker, 0, since + 1, "192.0.2.7", "another call")
    assert slow.listed(NOW)[0]["place"] == ""
    slow.shown(worker, 0, since, "192.0.2.7", "asked")
    slow.shown(worker, 0, since, "192.0.2.7", "said twice")
    assert slow.listed(NOW)[0]["place"] == "asked"


def test_what_a_worker_says_is_escaped_and_cut(slow: SlowRequests, worker: Worker, row: Row) -> None:
    """The application may write whatever it likes into the worker's reports."""
    since = busy(row, NOW - 3, b"GET /\x1b[2J\n")
    slow.look([(worker, row, 2.0)], NOW)
    slow.shown(worker, 0, since, "\x1b[2J\n" * 1000, "\u202e" * 40_000)
    (listed,) = slow.listed(NOW)
    assert listed["request"] == "GET /\\x1b[2J\\x0a"
    assert listed["client"].startswith("\\x1b[2J\\n")
    assert (len(listed["client"]), len(listed["place"])) == (64, 300)
    assert all(text.isprintable() for text in (listed["request"], listed["client"], listed["place"]))


def test_too_many_slow_calls_are_counted_and_not_logged_each(slow: SlowRequests, worker: Worker, row: Row) -> None:
    """A database that is down makes every call slow; and a worker can write that it is in ever new calls."""
    asked = 0
    for number in range(100):
        busy(row, NOW - 3 - number / 1000)
        asked += len(slow.look([(worker, row, 2.0)], NOW + number / 100))
        row.end()
    assert asked == ASKED_AT_ONCE
    assert slow.left_out(NOW + 1) == 0
    assert slow.next_look <= NOW + 1.2 + SUMMARY_SECONDS
    assert slow.left_out(NOW + 1.2 + SUMMARY_SECONDS) == 100 - ASKED_AT_ONCE
    assert slow.left_out(NOW + 500) == 0
    assert len(slow.listed(NOW)) == KEPT


def test_the_next_program_goes_on_with_the_list_and_the_calls_that_run(
    slow: SlowRequests, worker: Worker, row: Row
) -> None:
    busy(row, NOW - 9, b"GET /over")
    slow.look([(worker, row, 2.0)], NOW - 5)
    row.end()
    key = worker, 0, busy(row, NOW - 3)
    slow.look([(worker, row, 2.0)], NOW)
    after = SlowRequests()
    after.restore(slow.snapshot({worker: 0}), [worker])
    assert after.listed(NOW) == slow.listed(NOW)
    assert after.look([(worker, row, 2.0)], NOW + 0.5) == [], "it was named already"
    assert after.look([(worker, row, 2.0)], NOW + 1.5) == [key]
