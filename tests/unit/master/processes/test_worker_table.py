"""Rows are leased and given back, and what a worker runs by is what its own generation was begun with."""

from __future__ import annotations

from forkserver.ipc import scoreboard
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import NEVER, State
from forkserver.master.processes.worker_table import WorkerTable
from harness.master import Service


def table_of(service: Service) -> WorkerTable:
    return service.master._dispatch._table


def test_the_scoreboard_shows_pid_state_and_slot_of_each_worker(service: Service) -> None:
    table = table_of(service)
    for slot, worker in enumerate(service.fleet.workers):
        row = table[worker]
        shown = [row.figure(word) for word in (scoreboard.PID, scoreboard.SLOT, scoreboard.GENERATION)]
        assert shown == [worker.pid, slot, 1]
        assert row.figure(scoreboard.STATE) == scoreboard.SERVING
    assert service.resources.board.serving == 2


def test_a_worker_on_its_way_out_is_shown_as_draining(service: Service) -> None:
    worker = service.fleet.workers[0]
    worker.state = State.LEAVING
    table_of(service).show(worker)
    assert table_of(service)[worker].figure(scoreboard.STATE) == scoreboard.DRAINING


def test_the_row_of_a_worker_that_has_ended_is_free_again(service: Service) -> None:
    table, worker = table_of(service), service.fleet.workers[0]
    row = table[worker]
    table.release(worker)
    assert row.figure(scoreboard.STATE) == scoreboard.FREE
    leased = table.lease(7, 1)
    assert leased is not None
    assert (leased.index, leased.figure(scoreboard.SLOT)) == (row.index, 7)
    table.put(worker, leased)


def test_without_a_free_row_none_is_leased(service: Service) -> None:
    table = table_of(service)
    leased = list(iter(lambda: table.lease(0, 1), None))
    assert len(leased) == service.resources.board.rows - 2
    for row in leased:
        table.give_back(1, row)
    assert table.lease(0, 1) is not None


def test_a_reload_that_is_under_way_changes_nothing_for_those_that_serve(service: Service) -> None:
    table, worker = table_of(service), service.fleet.workers[0]
    service.configure(timeout="5", max_workers="9")
    service.resources.reload()
    service.master._actions._launcher.begin(Purpose.RELOAD, service.resources.settings)
    assert table.settings_of(worker).timeout != 5
    assert table.in_force is table.settings_of(worker)
    assert table.config(2).settings.timeout == 5


def test_after_a_reload_there_may_be_as_many_workers_as_its_settings_say(service: Service) -> None:
    """The scoreboard of before, which has less room, counts while its generation lives and no longer."""
    table, before = table_of(service), table_of(service).most_workers
    service.configure(workers="10")
    service.reload()
    service.until(lambda: len(service.fleet.serving()) == 10 and list(service.fleet.generations) == [2])
    assert table.most_workers == 2 * 10 + 16 > before


def test_only_those_that_may_be_in_a_call_are_watched(service: Service) -> None:
    table, (first, second) = table_of(service), service.fleet.workers
    first.state = State.LEAVING
    assert [(worker, limit) for worker, _, limit in table.watched_calls()] == [(second, table.in_force.timeout)]
    assert [worker for worker, _ in table.watched_sizes(service.now)] == [second]
    second.recycle_at = service.now
    assert table.watched_sizes(service.now) == [], "it is replaced already"
    second.recycle_at = NEVER
