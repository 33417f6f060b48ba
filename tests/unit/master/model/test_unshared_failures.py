"""Imports that are not shared: after a reload that failed, no worker is replaced that need not be."""

from __future__ import annotations

import math

import pytest

from forkserver.master.model.events import EventKind, Failure
from forkserver.master.model.generation import Purpose
from forkserver.master.model.plan import (
    SpawnWorker,
)
from forkserver.master.model.transitions import STACKS_SECONDS
from harness.model import TIMES
from harness.unshared import Service


@pytest.mark.parametrize("ready", [0, 1, 2, 3])
def test_a_new_worker_that_fails_takes_back_the_others_and_touches_no_old_one(service: Service, ready: int) -> None:
    before = service.fleet.serving()
    service.reload()
    for _ in range(ready):
        service.become_ready(service.begin_imports()[0])
    service.fail(service.begin_imports()[0])
    spawned = len([step for step in service.steps if isinstance(step, SpawnWorker)])
    service.begin_imports()
    service.leave()
    assert service.fleet.serving() == before
    assert service.news() == [(EventKind.FILES_CHANGED, 1), (EventKind.WENT_BACK, 2)]
    assert len([step for step in service.steps if isinstance(step, SpawnWorker)]) == spawned, "nothing is respawned"
    assert service.wake_at(service.now) == math.inf


@pytest.mark.parametrize("watched", [False, True])
def test_where_files_are_watched_a_reload_that_fails_is_told_by_its_end_alone(service: Service, watched: bool) -> None:
    """Also while workers of it that served are still to retire."""
    service.reload()
    service.become_ready(service.begin_imports()[0])
    service.fail(service.begin_imports()[0])
    assert service.rollout.going_back is not None
    why = service.rollout.going_back[1]
    assert service.rollout.told_next(why, watched) == watched
    service.leave()
    assert (EventKind.WENT_BACK, 2, why) in service.rollout.pending_events
    assert service.rollout.told_next(why, watched) == watched
    assert not service.rollout.told_next(Failure("another reason"), watched)


@pytest.mark.parametrize("failing", [0, 1])
def test_of_two_that_begin_a_reload_one_that_fails_takes_back_the_other(service: Service, failing: int) -> None:
    before = service.fleet.serving()
    service.reload()
    service.fleet.generations[2].at_first = 2
    begun = service.begin_imports()
    assert len(begun) == 2
    service.fail(begun[failing])
    assert service.begin_imports() == []
    service.leave()
    assert service.fleet.serving() == before
    assert service.news() == [(EventKind.FILES_CHANGED, 1), (EventKind.WENT_BACK, 2)]


def test_a_new_worker_that_is_not_ready_in_time_fails_the_reload(service: Service) -> None:
    service.reload()
    service.become_ready(service.begin_imports()[0])
    service.begin_imports()
    service.now += TIMES.boot
    service.act()
    service.now += STACKS_SECONDS
    service.act()
    service.leave()
    service.leave()
    assert service.serving() == {1: 4}
    assert (EventKind.WENT_BACK, 2) in service.news()


def test_new_workers_that_are_ready_and_die_at_once_fail_the_reload(service: Service) -> None:
    """They would be started again for ever, and `reload --wait` would hang."""
    service.reload()
    for _ in range(2):
        gate = service.begin_imports()[0]
        service.become_ready(gate)
        service.transitions.worker_exited(gate, "killed by SIGSEGV", service.now)
        service.act()
    service.begin_imports()
    service.leave()
    assert service.serving() == {1: 4}
    assert (EventKind.WENT_BACK, 2) in service.news()


def test_a_new_worker_in_place_of_a_dead_one_stays_when_the_others_go(service: Service) -> None:
    """There is no old one for its place, and one that is started now would load the same files."""
    service.reload()
    for _ in range(2):
        service.become_ready(service.begin_imports()[0])
    service.kill(3)
    other, in_place = sorted(service.begin_imports(), key=lambda each: each.slot)
    assert in_place.slot == 3
    service.fail(other)
    assert service.news() == [(EventKind.MIXED, 2), (EventKind.FILES_CHANGED, 1)]
    service.become_ready(in_place)
    service.leave()
    assert service.serving() == {1: 3, 2: 1}
    assert service.news() == []


def refused(service: Service) -> None:
    """A reload that has failed, and nothing of it is left."""
    service.reload()
    service.fail(service.begin_imports()[0])
    service.leave()
    service.news()


def test_after_a_reload_that_failed_nothing_is_recycled(service: Service) -> None:
    """A successor would load the files that were refused."""
    refused(service)
    for worker in service.fleet.serving():
        service.transitions.worker_due(worker, "it has served 1000 requests", service.now)
    service.act()
    assert service.imports() == []
    service.reload()
    service.boot_all()
    assert service.serving() == {3: 4}
    assert not service.rollout.files_changed
    service.transitions.worker_due(service.fleet.serving()[0], "it has served 1000 requests", service.now)
    service.act()
    assert len(service.imports()) == 1


def test_a_crash_is_replaced_although_it_loads_the_files_on_disk(service: Service) -> None:
    """One worker less would be worse, and the status has said so."""
    refused(service)
    service.kill(2)
    assert service.imports() == [(2, 1)]


def test_settings_that_are_refused_leave_the_same_doubt(service: Service) -> None:
    """The deploy that asked for the reload has changed the files."""
    service.rollout.want_reload()
    service.rollout.reload_refused()
    assert service.news() == [(EventKind.FILES_CHANGED, 1)]
    service.rollout.reload_refused()
    assert service.news() == [], "once"


def test_shared_code_leaves_no_doubt() -> None:
    service = Service()
    service.fleet.generations[1].shares = True
    service.boot_all()
    service.shares = True
    service.news()
    service.rollout.reload_refused()
    assert service.news() == []
    assert not service.rollout.files_changed


def test_what_replaces_a_dead_template_does_not_end_the_doubt(service: Service) -> None:
    refused(service)
    (template,) = service.fleet.templates
    service.transitions.template_exited(template, "killed by SIGKILL", service.now)
    service.act()
    assert service.rollout.files_changed
    assert service.fleet.template(service.rollout.current) is not None


def fail_every_start(service: Service) -> list[tuple[EventKind, int]]:
    """No worker is left, and none that is started loads; returns what is told meanwhile."""
    for slot in range(4):
        service.kill(slot)
    told = []
    for _ in range(5):
        for worker in service.begin_imports():
            service.fail(worker)
        service.leave()
        told += service.news()
        service.now += 1.0
    return told


def test_a_last_worker_that_cannot_be_replaced_after_a_failed_reload_is_told(service: Service) -> None:
    """Each new one would load the files that do not load: where they are waited for, something else is to answer."""
    refused(service)
    told = fail_every_start(service)
    assert told
    assert set(told) == {(EventKind.NONE_LEFT, 1)}


def test_without_a_failed_reload_workers_that_do_not_load_are_only_tried_again(service: Service) -> None:
    """What they lack may be no file: a database that is away for a moment."""
    assert fail_every_start(service) == []


def wait_for_files(service: Service) -> None:
    """What waits serves in place of code that is not there any more, as the master has it (broken_code.py)."""
    refused(service)
    fail_every_start(service)
    service.rollout.waiting_generation = service.rollout.begin(Purpose.START, 4, TIMES, shares=False)
    for worker in service.begin_imports():
        if worker.generation == 1:
            service.fail(worker)
    service.leave()
    service.now += 5.0
    service.boot_all()


def test_what_waits_for_files_is_no_service_and_a_crash_of_it_loads_none(service: Service) -> None:
    wait_for_files(service)
    assert service.rollout.broken
    assert not service.rollout.files_changed
    refused(service)
    assert service.rollout.broken
    assert not service.rollout.files_changed


def test_what_waits_in_place_of_a_dead_template_is_no_service_either(service: Service) -> None:
    """It has the same code: status and /readyz said that the service serves while every request was answered 503."""
    wait_for_files(service)
    waiting = service.rollout.current
    for _ in range(2):
        (template,) = service.fleet.templates
        service.transitions.template_exited(template, "killed by SIGKILL", service.now)
        service.act()
        assert service.rollout.broken
        service.boot_all()
        service.kill(0)
        service.boot_all()
        assert service.rollout.broken, "workers of both serve"
        for slot in range(1, 4):
            service.kill(slot)
        service.boot_all()
        assert service.rollout.broken
        assert service.rollout.serving_generation == service.rollout.current > waiting
        service.now += 60.0
    refused(service)
    assert not service.rollout.files_changed
    service.reload()
    service.boot_all()
    assert not service.rollout.waiting


def test_a_service_is_whole_again_with_the_first_worker_that_has_loaded_the_files(service: Service) -> None:
    wait_for_files(service)
    service.reload()
    assert service.rollout.broken
    service.become_ready(service.begin_imports()[0])
    assert not service.rollout.broken
    service.boot_all()
    assert not service.rollout.waiting
