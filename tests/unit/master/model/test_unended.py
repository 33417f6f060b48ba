"""Processes that SIGKILL does not end: a debugger holds them, or a thread of theirs sleeps in the kernel."""

from __future__ import annotations

import pytest

from forkserver.master.model import transitions
from forkserver.master.model.events import EventKind
from forkserver.master.model.lifecycle import State, Worker
from forkserver.master.model.plan import GiveUp, KillWorker
from harness.model import GRACE, House, Model, again


def killed(house: House, slot: int) -> Worker:
    """The worker of ``slot`` has closed its channel, was killed, and does not end."""
    (worker,) = [each for each in house.fleet.serving() if each.slot == slot]
    house.transitions.worker_unreachable(worker, house.now)
    house.now += transitions.LEAVE_SECONDS
    assert KillWorker(worker) in house.act()
    return worker


def test_a_killed_worker_that_does_not_end_is_given_up_once(house: House) -> None:
    worker = killed(house, 2)
    assert house.wake_at(house.now) <= house.now + transitions.UNENDED_SECONDS
    house.now += transitions.UNENDED_SECONDS
    assert [step for step in house.act() if isinstance(step, GiveUp)] == [GiveUp(worker)]
    assert house.fleet.unended == {worker.pid: str(worker)}
    house.now += 1000
    assert not [step for step in house.act() if isinstance(step, GiveUp)]


def test_its_slot_is_filled_and_stays_so_when_it_ends_at_last(house: House) -> None:
    worker = killed(house, 2)
    house.boot_all()
    house.now += transitions.UNENDED_SECONDS
    house.act()
    assert house.rollout.whole()
    assert house.transitions.ended_late(worker.pid) == str(worker)
    assert house.transitions.ended_late(worker.pid) == "", "a number that another process has next"
    assert house.act() == []
    assert house.rollout.whole()


def test_a_stop_ends_without_it(house: House) -> None:
    house.rollout.stop(house.now, house.now)
    house.act()
    held, *others = house.fleet.workers
    for worker in others:
        house.transitions.worker_exited(worker, "exit status 0", house.now)
    house.now += GRACE
    assert house.act() == [KillWorker(held)]
    house.end_templates()
    house.now += transitions.UNENDED_SECONDS
    house.act()
    house.end_templates()
    assert house.fleet.finished
    assert list(house.fleet.unended) == [held.pid]


def test_a_reload_ends_without_it(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    held = house.fleet.serving()[0]
    while house.ordered():
        house.become_ready(house.ordered()[0])
        for worker in [each for each in house.fleet.workers if each.state is State.DRAINING and each is not held]:
            house.transitions.worker_exited(worker, "exit status 0", house.now)
        house.act()
    assert (EventKind.SERVES, 2) not in house.news(), "an answer of before may still come"
    house.now += GRACE
    assert KillWorker(held) in house.act()
    house.now += transitions.UNENDED_SECONDS
    house.act()
    assert house.news() == [(EventKind.SERVES, 2)]
    house.end_templates()
    assert list(house.fleet.generations) == [2]


def test_a_template_that_does_not_end_keeps_no_stop(house: House) -> None:
    house.rollout.stop_quickly(house.now)
    house.act()
    house.leave(State.LEAVING)
    (template,) = house.fleet.templates
    house.now = template.deadline
    house.act()
    assert not house.fleet.finished
    house.now += transitions.UNENDED_SECONDS
    assert house.act() == [GiveUp(template)]
    assert house.fleet.finished


@pytest.mark.parametrize("given_up", [False, True])
def test_an_upgrade_hands_it_on(house: House, given_up: bool) -> None:
    worker = killed(house, 2)
    if given_up:
        house.now += transitions.UNENDED_SECONDS
        house.act()
    handed_on = Model(again(house.rollout))
    assert handed_on.fleet.unended == ({worker.pid: str(worker)} if given_up else {})
    later = house.now + transitions.UNENDED_SECONDS
    assert any(isinstance(step, GiveUp) for step in handed_on.plan(later)) is not given_up
