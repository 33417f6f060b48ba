"""How long a call may last: the deadline that its thread asks for, and that each block of an answer renews."""

from __future__ import annotations

import math
import sys
import threading
from time import monotonic_ns

import pytest

from forkserver.ipc.scoreboard import Row
from forkserver.server.threads.request_deadline import RENEWAL_SECONDS, RequestDeadline
from harness import BOUND

TIMEOUT = 30.0
NANO = 1_000_000_000


@pytest.fixture
def row() -> Row:
    """Of a worker with two application threads, the second of which is in a call."""
    made = Row(memoryview(bytearray(4096)), 0, 2)
    made.begin(b"GET /", 1)
    return made


def deadline_of(row: Row | None, timeout: float = TIMEOUT) -> RequestDeadline:
    """The deadlines of ``row``, asked for in its second application thread."""
    made = RequestDeadline(row, timeout)
    made.enlist(1)
    return made


def lasts(row: Row) -> float:
    """Seconds that the call may last; 0 where nothing but ``timeout`` says so."""
    busy = row.busy(1)
    assert busy is not None
    assert row.busy(0) is None
    return (busy.deadline - busy.since) / NANO if busy.deadline else 0.0


def in_another_thread(do: object) -> list[BaseException]:
    """What ``do`` raises in another thread."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            do()  # type: ignore[operator]
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(BOUND)
    return raised


def test_a_request_gets_the_time_that_it_asks_for_and_no_less_by_asking_again(row: Row) -> None:
    deadline = deadline_of(row)
    deadline.extend(100)
    first = lasts(row)
    assert 100 <= first < 100 + BOUND
    deadline.extend(50)
    assert lasts(row) == first


def test_asking_for_less_time_takes_none_away(row: Row) -> None:
    """``extend_deadline(5)`` says that five seconds from now will do, not that ``timeout`` is too much."""
    deadline_of(row).extend(5)
    assert lasts(row) == TIMEOUT


def test_without_a_timeout_asking_for_time_sets_none(row: Row) -> None:
    deadline = deadline_of(row, math.inf)
    deadline.extend(5)
    deadline.renew()
    deadline.await_client(False, 1, 5.0)
    assert lasts(row) == 0


@pytest.mark.parametrize("seconds", [sys.maxsize, 1e300])
def test_a_request_may_ask_for_more_time_than_the_scoreboard_can_hold(row: Row, seconds: float) -> None:
    deadline_of(row).extend(seconds)
    assert lasts(row) > 9 * 365 * 86400


@pytest.mark.parametrize("seconds", [0, -1, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("master", [True, False])
def test_what_is_no_time_is_refused(row: Row, seconds: float, master: bool) -> None:
    """In a script too, or the mistake would show under a master only."""
    with pytest.raises(ValueError, match="seconds from now"):
        deadline_of(row if master else None).extend(seconds)
    assert lasts(row) == 0


def test_another_thread_cannot_ask_for_more_time(row: Row) -> None:
    """No one could tell which request it means."""
    deadline = deadline_of(row)
    (raised,) = in_another_thread(lambda: deadline.extend(5))
    assert "not the thread that serves this request" in str(raised)
    assert not in_another_thread(deadline.renew)
    assert lasts(row) == 0


def test_a_call_in_a_thread_of_other_origin_lasts_as_long_as_it_likes(row: Row) -> None:
    """As ThreadingMixIn's: no master ends it."""
    deadline = deadline_of(row)
    assert deadline.here() == deadline.extend
    assert not in_another_thread(lambda: deadline.here()(5))
    assert lasts(row) == 0


def test_a_script_has_no_master_that_ends_a_call() -> None:
    deadline = deadline_of(None)
    deadline.extend(5)
    deadline.renew()
    deadline.await_client(True, 0)
    deadline.await_client(False, 0, 5.0)


def test_a_call_that_is_over_gets_no_time(row: Row) -> None:
    row.end(1)
    deadline = deadline_of(row)
    deadline.extend(100)
    deadline.await_client(False, 1, 5.0)
    row.begin(b"GET /next", 1)
    assert lasts(row) == 0


def test_a_renewal_lasts_until_the_one_after_next(row: Row) -> None:
    """Not each of a thousand blocks a second renews the time; what the last one is given must do for all."""
    before = monotonic_ns()
    deadline_of(row).renew()
    busy = row.busy(1)
    assert busy is not None
    assert busy.deadline >= before + (TIMEOUT + RENEWAL_SECONDS) * NANO


def test_the_time_that_a_call_waits_for_its_client_does_not_count(row: Row) -> None:
    deadline = deadline_of(row)
    deadline.await_client(True, 1)
    busy = row.busy(1)
    assert busy is not None
    assert busy.awaits_client
    assert lasts(row) == 0, "the master does not look at its time meanwhile"
    for waited in (35, 70):
        deadline.await_client(False, 1, 35.0)
        assert lasts(row) == TIMEOUT + waited
    busy = row.busy(1)
    assert busy is not None
    assert not busy.awaits_client


@pytest.mark.parametrize("timeout", [TIMEOUT, math.inf])
def test_a_block_and_the_end_of_a_wait_for_the_client_are_progress(row: Row, timeout: float) -> None:
    """Also where no call is ended: the slow log counts from there."""
    deadline = deadline_of(row, timeout)
    busy = row.busy(1)
    assert busy is not None
    assert busy.progress == 0
    for step in (deadline.renew, lambda: deadline.await_client(False, 1, 0.1)):
        before = monotonic_ns()
        step()
        busy = row.busy(1)
        assert busy is not None
        assert before <= busy.progress <= monotonic_ns()
        assert busy.seconds_without_progress(monotonic_ns() / NANO) <= busy.seconds(monotonic_ns() / NANO)
    row.end(1)
    row.begin(b"GET /next", 1)
    busy = row.busy(1)
    assert busy is not None
    assert busy.progress == 0, "that was the call before"


def test_the_thread_of_a_number_is_the_one_that_has_it_last(row: Row) -> None:
    """One that has ended is started anew."""
    deadline = RequestDeadline(row, TIMEOUT)
    assert deadline.thread_of(1) is None
    in_another_thread(lambda: deadline.enlist(1))
    deadline.enlist(1)
    assert deadline.thread_of(1) == threading.get_ident()
