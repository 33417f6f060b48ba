"""The plan: which steps close the gap between the workers wanted and the workers alive."""

from __future__ import annotations

import math

import pytest

from forkserver.master.model.events import EventKind
from forkserver.master.model.lifecycle import State
from forkserver.master.model.plan import (
    Recycle,
    Reload,
    SpawnWorker,
    StartTemplate,
    Step,
)
from harness.model import BROKEN, House, retired, spawned


def test_nobody_is_ordered_before_the_application_is_loaded() -> None:
    house = House()
    assert house.act() == [StartTemplate(1, shares=True)]


def test_ready_is_told_when_every_worker_is() -> None:
    """READY=1 with one of four workers would let a deploy go on too early."""
    made = House(2)
    made.load()
    first, second = made.ordered()
    made.become_ready(first)
    assert made.news() == []
    made.become_ready(second)
    assert made.news() == [(EventKind.READY, 1)]


def test_a_first_start_that_does_not_load_is_told_and_not_repeated() -> None:
    house = House()
    house.act()
    house.transitions.template_failed(house.loading(), BROKEN, house.now)
    assert [(news.kind, news.why) for news in house.rollout.take_events()] == [(EventKind.NEVER_STARTED, BROKEN)]
    assert not [step for step in house.act() if isinstance(step, StartTemplate)]


def test_a_template_killed_while_it_imports_is_a_start_that_failed() -> None:
    """os.abort, or memory that ran out."""
    house = House()
    house.act()
    house.transitions.template_exited(house.loading(), "killed by SIGABRT", house.now)
    (news,) = house.rollout.take_events()
    assert news.kind == EventKind.NEVER_STARTED
    assert "SIGABRT" in news.why.reason


def test_workers_that_import_for_themselves_and_fail_end_a_first_start() -> None:
    """Each is tried once: what one of them says may hold for that one alone."""
    house = House(2)
    house.load()
    for worker in house.ordered():
        assert house.rollout.take_events() == []
        house.announce(worker)
        house.transitions.worker_load_failed(worker, BROKEN, house.now)
    assert [(news.kind, news.why) for news in house.rollout.take_events()] == [(EventKind.NEVER_STARTED, BROKEN)]


def test_an_import_that_a_fork_would_break_is_done_again_by_the_workers() -> None:
    house = House()
    house.act()
    house.transitions.template_cannot_share(house.loading(), house.now)
    assert house.act() == [StartTemplate(1, shares=False)]


def test_a_slot_is_added_and_taken_away(house: House) -> None:
    house.rollout.want_workers(1)
    assert house.act() == [SpawnWorker(4, 1)]
    house.boot_all()
    house.rollout.want_workers(-1)
    assert retired(house.act()) == [(4, 1)]


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("loaded", [True, False])
def test_a_slot_that_is_added_or_taken_away_during_a_reload_stays_so(house: House, more: int, loaded: bool) -> None:
    """The settings were read before: what the operator says after it is the later word, and the log confirms it."""
    house.rollout.want_reload()
    house.act()
    if not loaded:
        house.rollout.want_workers(more)
    house.load()
    if loaded:
        house.rollout.want_workers(more)
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(4 + more)}


def test_one_worker_always_stays(house: House) -> None:
    house.rollout.want_workers(-10)
    assert house.fleet.wanted == 1


def recycled(steps: list[Step]) -> list[int]:
    return [step.worker.slot for step in steps if isinstance(step, Recycle)]


def spend(house: House, *slots: int) -> None:
    for worker in house.fleet.serving():
        if worker.slot in slots:
            house.transitions.worker_due(worker, "it has served 1000 requests", house.now)


def test_a_spent_worker_retires_when_its_successor_is_ready(house: House) -> None:
    """Start before stop."""
    spend(house, 2)
    assert recycled(house.act()) == [2]
    new_program = house.ordered()[0]
    house.announce(new_program)
    house.transitions.worker_loaded(new_program)
    assert house.act() == []
    house.transitions.worker_ready(new_program, house.now)
    assert retired(house.act()) == [(2, 1)]
    assert house.fleet.keeper(2) is new_program
    assert house.news() == []


def test_one_in_four_is_recycled_at_a_time(house: House) -> None:
    """All workers of one start reach their limits together."""
    spend(house, 0, 1, 2, 3)
    assert len(recycled(house.act())) == 1
    house.announce(house.ordered()[0])
    assert recycled(house.act()) == []
    house.transitions.worker_ready(house.fleet.workers[-1], house.now)
    assert len(recycled(house.act())) == 1


def test_a_slow_download_in_a_worker_that_leaves_keeps_no_other_from_being_replaced(house: House) -> None:
    spend(house, 0, 1)
    (slot,) = recycled(house.act())
    house.become_ready(house.ordered()[0])
    assert [each.slot for each in house.fleet.workers if each.state is State.DRAINING] == [slot]
    assert len(house.ordered()) == 1, "the other one"


@pytest.mark.parametrize("wanted", [1, 4, 8])
def test_recycling_adds_few_workers_while_those_before_drain(wanted: int) -> None:
    """Each has its memory, and a reload needs room for its own."""
    house = House(wanted)
    house.load()
    house.boot_all()
    for _ in range(9):
        spend(house, *range(wanted))
        house.act()
        for worker in house.ordered():
            house.become_ready(worker)
    most = max(2, wanted // 2)
    assert len(house.fleet.workers) == wanted + most
    assert sum(each.state is State.DRAINING for each in house.fleet.workers) == most
    house.leave(State.DRAINING)
    assert house.ordered(), "they have left"


def test_one_that_leaves_and_has_no_newer_worker_counts(house: House) -> None:
    """Its slot would be empty, and so would another one be that is replaced meanwhile."""
    spend(house, 0, 1)
    (slot,) = recycled(house.act())
    house.become_ready(house.ordered()[0])
    house.leave(State.ORDERED)
    house.kill(slot)
    assert spawned(house.act()) == [(slot, 1)]
    assert recycled(house.act()) == []


def test_of_many_workers_a_quarter_is_recycled_at_a_time() -> None:
    house = House(9)
    house.load()
    house.boot_all()
    spend(house, *range(9))
    assert len(recycled(house.act())) == 2


def test_a_single_worker_is_recycled_too() -> None:
    house = House(1)
    house.load()
    house.boot_all()
    spend(house, 0)
    assert recycled(house.act()) == [0]


def test_a_lifetime_ends_when_its_time_has_come(house: House) -> None:
    worker = house.fleet.serving()[3]
    house.transitions.worker_due(worker, "its age", house.now + 3600)
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + 3600
    house.now += 3600
    assert recycled(house.act()) == [3]


def test_what_spends_a_worker_first_is_what_is_told(house: House) -> None:
    worker = house.fleet.serving()[3]
    house.transitions.worker_due(worker, "its age", house.now + 3600)
    house.transitions.worker_due(worker, "its memory", house.now)
    house.transitions.worker_due(worker, "it has served 1000 requests", house.now)
    assert worker.recycle_why == "its memory"


def test_nothing_is_recycled_during_a_reload(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    spend(house, 0)
    assert house.act() == []
    house.transitions.template_loaded(house.loading(), house.now)
    house.act()
    while house.rollout.rolling is not None:
        spend(house, *range(4))
        house.become_ready(house.ordered()[0])
        assert recycled(house.steps) == []


def test_nothing_is_recycled_while_a_slot_is_empty(house: House) -> None:
    """Half of them could be on their way out, and the rest dead."""
    house.kill(0)
    spend(house, 1)
    assert house.act() == [SpawnWorker(0, 1)]
    house.become_ready(house.ordered()[0])
    assert recycled(house.steps) == [1]


def test_a_successor_that_fails_is_tried_again_with_a_delay(house: House) -> None:
    """The spent one serves on meanwhile."""
    spend(house, 2)
    house.act()
    house.fail()
    assert house.act() == []
    assert sorted(house.serving()) == [0, 1, 2, 3]
    house.now += 0.5
    assert recycled(house.act()) == [2]


def test_a_stop_recycles_nobody(house: House) -> None:
    spend(house, 2)
    house.rollout.stop(house.now, house.now + 0.05)
    assert house.act() == []


def test_the_plan_changes_nothing(house: House) -> None:
    """The master asks it whether there is anything to do before it sleeps."""
    house.rollout.want_reload()
    assert house.plan(house.now) == house.plan(house.now)


def test_a_day_of_idling_wakes_nobody(house: House) -> None:
    assert house.wake_at(house.now) == math.inf


def test_a_reload_waits_until_no_debugger_is_in_use(house: House) -> None:
    """The code of the call that a person looks at stays what it is; one that dies there holds nothing up."""
    first, second, *_ = house.fleet.workers
    house.transitions.worker_in_debugger(first, True, house.now)
    house.transitions.worker_in_debugger(second, True, house.now)
    house.rollout.want_reload()
    assert house.plan(house.now) == []
    house.transitions.worker_in_debugger(first, False, house.now)
    assert house.plan(house.now) == []
    house.transitions.worker_exited(second, "killed by SIGKILL", house.now)
    assert Reload() in house.plan(house.now)
