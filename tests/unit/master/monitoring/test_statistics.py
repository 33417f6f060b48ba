"""Figures of living and ended workers: totals only grow, and an end has its reason."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from forkserver.ipc import figures, scoreboard
from forkserver.ipc.scoreboard import Row
from forkserver.ipc.serialization import dump, load
from forkserver.linux import process_info, syscalls
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import NEVER, State, Worker
from forkserver.master.monitoring.memory import LOOK_SECONDS
from forkserver.master.monitoring.statistics import MOST_DEATHS, Statistics, StatisticsSnapshot

NOW = 1000.0


class Counted:
    """Statistics of a fleet of two slots, with rows of plain memory; ``measured`` are pids that were looked at."""

    def __init__(self, snapshot: StatisticsSnapshot | None = None) -> None:
        self.fleet = Fleet(2)
        self.rows: dict[Worker, Row] = {}
        self.measured: list[int] = []
        for slot in (0, 1):
            self.worker(slot)
        self.statistics = Statistics(self.fleet, self.rows.__getitem__, self.size, snapshot)

    def worker(self, slot: int, generation: int = 1) -> Worker:
        worker = Worker(slot, generation, slot, NEVER, State.SERVING, pid=101 + len(self.rows), ready_at=NOW)
        self.rows[worker] = Row(memoryview(bytearray(4096)), slot, threads=1)
        self.fleet.add(worker)
        return worker

    def size(self, pid: int) -> int:
        self.measured.append(pid)
        return pid

    def end(
        self, worker: Worker, cause: str = "killed by SIGSEGV, a crash", ordered: bool = False, remains: str = ""
    ) -> None:
        self.statistics.ended(worker, worker.state, cause, ordered, remains)
        self.fleet.workers.remove(worker)


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.mark.parametrize(
    ("word", "figure"),
    [
        (scoreboard.REQUESTS, lambda statistics: statistics.requests),
        (scoreboard.LOST_LINES, lambda statistics: statistics.lost_lines),
    ],
)
def test_what_an_ended_worker_has_counted_stays_counted(
    counted: Counted, word: int, figure: Callable[[Statistics], int]
) -> None:
    for worker, count in zip(counted.fleet.workers, (5, 7), strict=True):
        counted.rows[worker].words[word] = count
    assert figure(counted.statistics) == 12
    counted.end(counted.fleet.workers[0])
    assert figure(counted.statistics) == 12


def test_all_are_busy_where_no_worker_that_serves_has_a_free_thread(counted: Counted) -> None:
    first, second = counted.rows.values()
    first.words[scoreboard.STATE] = second.words[scoreboard.STATE] = scoreboard.SERVING
    first.begin(b"GET /")
    assert not counted.statistics.all_busy
    second.begin(b"GET /")
    assert counted.statistics.all_busy
    first.end()
    assert not counted.statistics.all_busy


def test_lines_that_the_master_has_lost_count_too(counted: Counted) -> None:
    counted.statistics.lose_lines(3)
    assert counted.statistics.lost_lines == 3


@pytest.mark.parametrize(
    ("cause", "state", "reason"),
    [
        ("killed by SIGSEGV, a crash", State.SERVING, "killed by SIGSEGV (a crash)"),
        (
            "killed by SIGKILL, sent by the master: too late",
            State.SERVING,
            "killed by SIGKILL (sent by the master)",
        ),
        ("exit status 1, by itself", State.STARTING, "not ready"),
    ],
)
def test_an_end_without_an_order_is_counted_by_its_cause(
    counted: Counted, cause: str, state: State, reason: str
) -> None:
    worker = counted.fleet.workers[0]
    worker.state = state
    counted.end(worker, cause)
    assert counted.statistics.ends == {reason: 1}


def test_the_last_deaths_are_told_with_what_was_lost(counted: Counted) -> None:
    """An end that was ordered is none, unless a call of that worker has taken too long."""
    crashed, hung = counted.fleet.workers
    counted.statistics.hung(hung)
    counted.end(crashed, remains="it was serving GET /pay (2.0 s)")
    counted.end(hung, "exit status 0, as it was told", ordered=True)
    counted.end(counted.worker(slot=0), ordered=True)
    hung_up, crash = counted.statistics.deaths(syscalls.clock() + 5)
    assert (hung_up["worker"], hung_up["cause"]) == (2, "exit status 0, as it was told")
    assert (crash["worker"], crash["pid"], crash["generation"]) == (1, 101, 1)
    assert (crash["cause"], crash["remains"]) == ("killed by SIGSEGV, a crash", "it was serving GET /pay (2.0 s)")
    assert crash["seconds"] >= 5


def test_of_deaths_only_so_many_are_kept_and_an_upgrade_hands_them_on(counted: Counted) -> None:
    for number in range(MOST_DEATHS + 1):
        counted.end(counted.worker(slot=0), f"exit status {number}, by itself", remains="x" * 100_000)
    handed_on = load(StatisticsSnapshot, dump(counted.statistics.snapshot()))
    after = Statistics(Fleet(2), counted.rows.__getitem__, snapshot=handed_on)
    causes = [death["cause"] for death in after.deaths(NOW)]
    assert causes == [f"exit status {number}, by itself" for number in range(MOST_DEATHS, 0, -1)]
    assert len(str(after.deaths(NOW))) < 20_000


def test_it_is_told_how_long_the_calls_of_a_worker_took(counted: Counted) -> None:
    counted.rows[counted.fleet.workers[1]].words[figures.LASTED] = 2_500_000_000
    assert [each["application_seconds"] for each in counted.statistics.workers(NOW)] == [0.0, 2.5]


def test_an_end_as_ordered_is_counted_by_what_it_was_ordered_for(counted: Counted) -> None:
    reloaded, recycled = counted.fleet.workers
    recycled.recycle_why = "its age"
    counted.end(recycled, ordered=True)
    counted.end(reloaded, ordered=True)
    counted.end(counted.worker(slot=5), ordered=True)
    assert counted.statistics.ends == {"recycled": 1, "reload": 1, "fewer workers": 1}


def test_a_worker_that_was_due_and_is_outdated_counts_as_reloaded(counted: Counted) -> None:
    worker = counted.fleet.workers[0]
    worker.recycle_why = "its age"
    counted.fleet.replace(frozenset({1}))
    counted.end(worker, ordered=True)
    assert counted.statistics.ends == {"reload": 1}


def test_a_worker_that_hung_ends_for_that_however_it_ends(counted: Counted) -> None:
    first, second = counted.fleet.workers
    counted.statistics.hung(first)
    counted.end(first, ordered=True)
    counted.end(second, ordered=True)
    assert counted.statistics.ends == {"timeout": 1, "reload": 1}


def test_the_ends_of_a_stop_are_not_counted(counted: Counted) -> None:
    counted.fleet.stopping = True
    counted.end(counted.fleet.workers[0])
    assert counted.statistics.ends == {}


def test_the_next_program_counts_on(counted: Counted) -> None:
    counted.statistics.hung(counted.fleet.workers[1])
    counted.rows[counted.fleet.workers[0]].words[scoreboard.REQUESTS] = 4
    counted.end(counted.fleet.workers[0])
    after = Counted(counted.statistics.snapshot())
    assert (after.statistics.requests, after.statistics.since) == (4, counted.statistics.since)
    after.end(next(each for each in after.fleet.workers if each.pid == 102), ordered=True)
    assert after.statistics.ends == {"killed by SIGSEGV (a crash)": 1, "timeout": 1}


def test_calls_that_go_on_are_busy(counted: Counted) -> None:
    row = counted.rows[counted.fleet.workers[0]]
    row.begin(b"GET /slow?secret")
    assert counted.statistics.busy == 1
    shown = counted.statistics.workers(NOW)[0]
    assert [each["request"] for each in shown["busy"]] == ["GET /slow"]
    row.end()
    assert counted.statistics.busy == 0


def test_memory_is_measured_once_however_often_it_is_asked_for(counted: Counted) -> None:
    for later in (0.0, 0.1):
        assert [each["memory"] for each in counted.statistics.workers(NOW + later)] == [101, 102]
    assert counted.measured == [os.getpid(), 101, 102]
    counted.statistics.workers(NOW + LOOK_SECONDS)
    assert len(counted.measured) == 6
    assert counted.statistics.memory_of_master() == os.getpid()


def test_a_worker_that_began_after_the_last_look_is_measured_at_once(counted: Counted) -> None:
    """Behind a reload the status is asked for at once, and no worker has no memory."""
    counted.statistics.workers(NOW)
    counted.worker(slot=0, generation=2)
    for later in (0.1, 0.2):
        assert [each["memory"] for each in counted.statistics.workers(NOW + later)] == [101, 103, 102]
    assert counted.measured == [os.getpid(), 101, 102, 103]


def test_workers_are_shown_by_slot_and_age_in_the_words_of_the_log(counted: Counted) -> None:
    first, second = counted.fleet.workers
    counted.worker(slot=0, generation=2)
    first.state, second.deadline = State.DRAINING, NOW + 5
    shown = counted.statistics.workers(NOW + 2)
    assert [(each["worker"], each["generation"], each["state"]) for each in shown] == [
        (1, 1, "draining"),
        (1, 2, "serving"),
        (2, 1, "stopped"),
    ]
    assert shown[0]["seconds"] == 2.0


def test_a_worker_that_stands_still_is_not_shown_as_serving(counted: Counted) -> None:
    """A debugger holds it, or its main thread has ended; one that drains is shown so."""
    first, second = counted.fleet.workers
    known = {first.pid: process_info.STOPPED, second.pid: process_info.ENDING}
    counted.statistics = Statistics(counted.fleet, counted.rows.__getitem__, counted.size, standing=known.__getitem__)
    assert [each["state"] for each in counted.statistics.workers(NOW)] == ["stopped", "killed"]
    second.state = State.DRAINING
    assert [each["state"] for each in counted.statistics.workers(NOW)] == ["stopped", "draining"]
