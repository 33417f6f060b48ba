"""A stop: at once, gracefully, or after a delay."""

from __future__ import annotations

import math

from forkserver.master.model import transitions
from forkserver.master.model.lifecycle import State, Worker
from forkserver.master.model.plan import (
    AskForStacks,
    EndTemplate,
    KeepConnections,
    KillWorker,
    QuitWorker,
    RetireWorker,
    SpawnWorker,
)
from harness.model import GRACE, TIMES, House, retired, spawned


def test_a_stop_waits_for_the_queue_then_everyone_retires(house: House) -> None:
    house.rollout.stop(house.now, house.now + 0.05)
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + 0.05
    house.now += 0.05
    assert len(retired(house.act())) == 4
    assert not house.fleet.finished
    house.leave(State.DRAINING)
    house.end_templates()
    assert house.fleet.finished


def test_who_does_not_leave_within_the_grace_is_killed(house: House) -> None:
    house.rollout.stop(house.now, house.now)
    house.act()
    house.now += GRACE
    assert len([step for step in house.act() if isinstance(step, KillWorker)]) == 4


def test_a_stop_spawns_nobody(house: House) -> None:
    house.transitions.worker_exited(house.fleet.serving()[0], "killed by SIGKILL", house.now)
    house.rollout.stop(house.now, house.now)
    assert spawned(house.act()) == []
    house.leave(State.DRAINING)
    assert house.fleet.workers == []


def test_a_stop_during_a_reload_ends_the_import(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    importing = house.loading()
    house.rollout.stop(house.now, house.now)
    assert EndTemplate(importing) in house.act()


def test_a_worker_that_says_ready_after_it_was_told_to_retire_drains_on(house: House) -> None:
    """The two crossed."""
    house.rollout.want_workers(1)
    house.act()
    (worker,) = house.ordered()
    house.announce(worker)
    house.rollout.stop(house.now, house.now)
    house.act()
    house.transitions.worker_ready(worker, house.now)
    assert worker.state is State.DRAINING
    assert worker.deadline < math.inf


def test_a_quick_stop_tells_everyone_to_leave_and_kills_soon(house: House) -> None:
    house.rollout.stop_quickly(house.now)
    assert len([step for step in house.act() if isinstance(step, QuitWorker)]) == 4
    house.now += transitions.LEAVE_SECONDS
    assert len([step for step in house.act() if isinstance(step, KillWorker)]) == 4


def test_a_quick_stop_overtakes_a_graceful_one(house: House) -> None:
    house.rollout.stop(house.now, house.now)
    house.act()
    house.rollout.stop_quickly(house.now)
    assert len([step for step in house.act() if isinstance(step, QuitWorker)]) == 4


def test_whose_time_is_over_at_the_moment_of_a_stop_is_only_killed(house: House) -> None:
    """A machine that stood still has both at once; an order to one that is killed would end the master."""
    worker = house.fleet.serving()[0]
    house.transitions.worker_stopped(worker, house.now + 30)
    house.now += 30
    house.rollout.stop(house.now, house.now)
    steps = house.act()
    assert steps[:1] == [KillWorker(worker)]
    assert len(retired(steps)) == 3


def test_a_second_stop_at_the_moment_the_grace_is_over_kills(house: House) -> None:
    house.rollout.stop(house.now, house.now)
    house.act()
    house.now += GRACE
    house.rollout.stop_quickly(house.now)
    assert {type(step) for step in house.act()} == {KillWorker}


def test_a_start_that_takes_too_long_in_a_slot_just_taken_away_ends_once(house: House) -> None:
    house.rollout.want_workers(1)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.now += TIMES.boot
    house.rollout.want_workers(-1)
    assert house.act() == [AskForStacks(worker)]


def test_at_a_stop_nobody_hands_on_to_nobody(house: House) -> None:
    """Those that retired before, and still drain, hear it too."""
    house.rollout.want_workers(-1)
    (retiring,) = [step.worker for step in house.act() if isinstance(step, RetireWorker)]
    assert retiring.hands_on
    deadline = retiring.deadline
    house.now += 3
    house.rollout.stop(house.now, house.now)
    steps = house.act()
    assert steps[:1] == [KeepConnections(retiring)]
    assert (retiring.hands_on, retiring.deadline) == (False, deadline), "it has no more time than before"
    assert len(retired(steps)) == 3
    assert not any(worker.hands_on for worker in house.fleet.workers)
    assert house.act() == []


def hung() -> tuple[House, Worker]:
    """The only worker, which has heard that its call has lasted too long."""
    house = House(1)
    house.load()
    house.boot_all()
    (worker,) = house.fleet.serving()
    house.transitions.worker_hung(worker, house.now)
    house.transitions.worker_expiring(worker, house.now)
    return house, worker


def test_a_worker_that_hung_hands_on_to_the_one_that_starts_in_its_place() -> None:
    house, worker = hung()
    house.transitions.worker_retiring(worker, house.now)
    assert worker.hands_on


def test_where_none_is_to_start_in_its_place_it_keeps_what_it_has() -> None:
    house, worker = hung()
    house.rollout.stop(house.now, house.now)
    house.transitions.worker_retiring(worker, house.now)
    assert not worker.hands_on


def test_the_last_worker_that_serves_has_nobody_to_hand_on_to() -> None:
    house = House(1)
    house.load()
    house.boot_all()
    (worker,) = house.fleet.serving()
    (worker,) = house.fleet.serving()
    house.transitions.worker_retiring(worker, house.now)
    assert not worker.hands_on


def test_until_the_delay_is_over_all_goes_on(house: House) -> None:
    house.rollout.drain(house.now + 10)
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + 10
    house.kill(0)
    assert house.act() == [SpawnWorker(0, 1)], "who dies is replaced"
    house.boot_all()
    assert len(house.fleet.serving()) == 4


def test_nothing_new_begins_while_a_stop_is_near(house: House) -> None:
    house.rollout.drain(house.now + 10)
    house.rollout.want_reload()
    house.transitions.worker_due(house.fleet.serving()[0], "old", house.now)
    assert house.act() == []


def test_a_reload_that_loads_is_given_up_when_a_stop_is_near(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    importing = house.loading()
    house.rollout.drain(house.now + 10)
    assert house.act() == [EndTemplate(importing)]
    house.transitions.template_exited(importing, "killed by SIGTERM", house.now)
    assert house.news() == []
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_roll_stands_still_when_a_stop_is_near(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.rollout.drain(house.now + 10)
    house.become_ready(house.ordered()[0])
    assert house.ordered() == []
    assert house.serving() == {0: [2], 1: [2], 2: [1], 3: [1]}


def test_after_the_delay_the_stop_is_as_always(house: House) -> None:
    house.rollout.drain(house.now + 10)
    house.now += 10
    house.rollout.stop(house.now, house.now)
    assert len(retired(house.act())) == 4
    assert house.fleet.stop_at == math.inf
