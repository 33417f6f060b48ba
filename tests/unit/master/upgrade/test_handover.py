"""What a master writes down, another goes on with: the same workers, pids, channels and figures."""

from __future__ import annotations

import json
import os
import signal

import pytest

from forkserver.ipc import messages, scoreboard
from forkserver.ipc.serialization import dump, load
from forkserver.master.model.lifecycle import State
from forkserver.master.upgrade.snapshot import Snapshot
from harness.master import MakeService, Service


def written(service: Service) -> Snapshot:
    """The state of ``service`` as the next program reads it, with descriptors of its own."""
    snapshot = service.master._upgrade._write("forkserver 2")
    read = load(Snapshot, json.loads(json.dumps(dump(snapshot))))
    boards = {each.board: os.dup(each.board) for each in read.generation_configs}
    return read._replace(
        handoff=(os.dup(read.handoff[0]), os.dup(read.handoff[1])),
        generation_configs=[each._replace(board=boards[each.board]) for each in read.generation_configs],
        channels=[number if number < 0 else os.dup(number) for number in read.channels],
        reports=[each and each._replace(memory=os.dup(each.memory), bell=os.dup(each.bell)) for each in read.reports],
    )


def go_on(make_service: MakeService, service: Service) -> Service:
    """The next program; the children of ``service`` are its own."""
    after = make_service(written(service))
    after.templates, after.workers = service.templates, service.workers
    service.templates, service.workers = [], []
    return after


def test_the_next_program_serves_on_with_the_same_workers_and_asks_for_a_reload(
    service: Service, make_service: MakeService
) -> None:
    before = service.pids()
    after = go_on(make_service, service)
    assert after.pids() == before
    assert [worker.state for worker in after.fleet.workers] == [State.SERVING] * 2
    assert [after.children.pids[worker] for worker in after.fleet.workers] == before
    assert after.rollout.reload_wanted
    assert not after.rollout.upgrading
    assert "upgraded to forkserver 2; a reload brings the workers to it" in after.said()


def test_the_reload_brings_every_slot_to_the_next_program(service: Service, make_service: MakeService) -> None:
    after = go_on(make_service, service)
    old = after.pids()
    after.until(lambda: len(after.templates) == 2)
    after.templates[1].report(messages.Loaded())
    after.until(lambda: after.rollout.settled and not set(after.pids()) & set(old))
    assert [worker.generation for worker in after.fleet.workers] == [2, 2]


def test_reports_on_their_way_are_read_by_the_next_program(service: Service, make_service: MakeService) -> None:
    service.workers[0].report(messages.RecyclingDue("its age"))
    after = go_on(make_service, service)
    after.turn()
    assert [worker.recycle_why for worker in after.fleet.workers][:2] == ["its age", ""]


def test_a_worker_writes_in_the_row_that_the_next_program_reads(service: Service, make_service: MakeService) -> None:
    row = service.master._dispatch._table[service.fleet.workers[0]]
    row.words[scoreboard.REQUESTS] = 7
    after = go_on(make_service, service)
    assert after.master._monitoring.statistics.requests == 7
    row.words[scoreboard.REQUESTS] = 8
    assert after.master._monitoring.statistics.requests == 8


def test_a_call_that_was_named_as_too_long_is_not_named_again(service: Service, make_service: MakeService) -> None:
    service.obedient = False
    service.busy(service.workers[0], b"GET /slow", 0.0)
    service.now += 1000
    service.turn()
    assert "GET /slow" in service.said()
    after = go_on(make_service, service)
    after.obedient, after.now = False, service.now
    after.turn()
    assert "GET /slow" not in after.said()


def test_a_child_that_cannot_be_held_any_more_is_told(service: Service, make_service: MakeService) -> None:
    """It has ended between the trial and the exec, or no descriptor is left."""
    snapshot = written(service)
    for process in snapshot.rollout.fleet.workers:
        assert process.pid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.master.PlayedChildren.hold", _refuse)
        after = make_service(snapshot)
    assert after.said().count("gets no signals any more: no such process") == 3


def _refuse(*_: object) -> None:
    raise OSError("no such process")


def test_an_end_before_the_name_is_carried(service: Service, make_service: MakeService) -> None:
    service.obedient = False
    service.end(service.workers[0], signal.SIGSEGV)
    service.until(lambda: len(service.workers) == 3)
    unnamed = service.workers[2]
    service.children.changed.append((unnamed.pid, 256))
    service.turn()
    assert written_strangers(service) == {unnamed.pid: 256}


def written_strangers(service: Service) -> dict[int, int]:
    return service.master._upgrade._write("forkserver 2").strangers


def test_the_list_of_slow_requests_goes_on(make_service: MakeService) -> None:
    service = make_service(slow_log="2s")
    service.serve()
    service.busy(service.workers[0], b"GET /slow", 0.0)
    service.now += 3
    service.turn()
    before = service.master._monitoring.slow_requests(service.now)
    after = go_on(make_service, service)
    assert before
    assert after.master._monitoring.slow_requests(service.now) == before
