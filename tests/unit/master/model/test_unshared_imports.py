"""Imports that are not shared: a start, and a reload that goes well."""

from __future__ import annotations

from forkserver.master.model.backoff import HEALTHY_SECONDS
from forkserver.master.model.events import EventKind
from forkserver.master.model.lifecycle import State, Worker
from forkserver.master.model.plan import (
    AskForStacks,
)
from forkserver.master.model.transitions import STACKS_SECONDS
from harness.model import TIMES
from harness.unshared import Service


def test_no_more_workers_import_at_once_than_there_are_processors() -> None:
    """Eight at once on two processors would each take four times as long, and none be ready within boot_timeout."""
    service = Service(8, processors=2)
    most = 0
    while importing := service.begin_imports():
        most = max(most, len(importing))
        service.become_ready(importing[0])
    assert most == 2
    assert service.serving() == {1: 8}


def test_boot_timeout_counts_from_the_beginning_of_an_import(service: Service) -> None:
    """A worker that waits to be forked has not begun."""
    service.kill(0)
    service.now += TIMES.boot - 1
    (worker,) = service.begin_imports()
    assert worker.deadline == service.now + TIMES.boot


def test_after_an_import_that_took_too_long_the_next_ones_are_alone() -> None:
    """On a busy machine those that import at the same time wait for each other."""
    service = Service(4, processors=4)
    assert len(service.begin_imports()) == 4
    service.now += TIMES.boot
    service.act()
    service.now += STACKS_SECONDS
    service.act()
    service.leave()
    service.now += 1
    service.act()
    assert len(service.imports()) == 1
    while service.fleet.serving() != service.fleet.workers or len(service.fleet.workers) < 4:
        (alone,) = service.begin_imports()
        service.become_ready(alone)
    service.now += HEALTHY_SECONDS
    service.kill(0)
    service.kill(1)
    assert len(service.imports()) == 2, "every worker has served meanwhile"


def test_one_worker_of_a_generation_shows_where_it_hangs() -> None:
    """The others hang for the same cause, and their stacks would hide the one that says it."""
    service = Service(4, processors=4)
    workers = service.begin_imports()
    service.now += TIMES.boot
    service.act()
    asked = [step.process for step in service.steps if isinstance(step, AskForStacks)]
    first, rest = asked[0], asked[1:]
    assert isinstance(first, Worker)
    assert first.deadline == service.now + STACKS_SECONDS
    assert [each.state for each in rest if isinstance(each, Worker)] == [State.KILLED] * 3
    assert len(workers) == 4


def test_ready_is_told_when_each_worker_is_ready_or_has_failed_once() -> None:
    """Three of four serve better than none, and the status says which one does not."""
    service = Service(3, processors=3)
    first, second, third = service.begin_imports()
    service.become_ready(first)
    service.fail(second)
    assert service.news() == [], "the third may still come"
    service.become_ready(third)
    assert service.news() == [(EventKind.READY, 1)]
    assert not service.rollout.whole()


def test_a_start_fails_only_where_no_worker_serves() -> None:
    service = Service(3, processors=2)
    service.fail(service.begin_imports()[0])
    service.fail(service.begin_imports()[0])
    assert service.news() == []
    service.fail(next(each for each in service.begin_imports() if each.slot == 2))
    assert service.news() == [(EventKind.NEVER_STARTED, 1)]


def test_each_slot_is_tried_before_one_is_tried_again() -> None:
    service = Service(3, processors=1)
    tried = []
    for _ in range(3):
        (worker,) = service.begin_imports()
        tried.append(worker.slot)
        service.fail(worker)
        service.leave()
        service.now += 1
    assert tried == [0, 1, 2]


def test_a_worker_that_failed_in_the_start_and_comes_later_is_no_news_of_readiness() -> None:
    service = Service(2, processors=2)
    first, second = service.begin_imports()
    service.fail(first)
    service.become_ready(second)
    assert service.news() == [(EventKind.READY, 1)]
    service.leave()
    service.now += 1
    service.boot_all()
    assert service.news() == []
    assert service.rollout.whole()


def test_one_new_worker_is_the_gate_and_the_others_follow_in_parallel(service: Service) -> None:
    service.reload()
    assert service.imports() == [(0, 2)]
    (gate,) = service.begin_imports()
    service.become_ready(gate)
    assert service.imports() == [(1, 2), (2, 2)]


def test_old_workers_retire_only_when_every_new_one_is_ready(service: Service) -> None:
    service.reload()
    for ready in range(1, 4):
        service.become_ready(service.begin_imports()[0])
        assert service.serving() == {1: 4, 2: ready}
    service.become_ready(service.begin_imports()[0])
    assert service.serving() == {2: 4}
    service.leave()
    assert service.news() == [(EventKind.SERVES, 2)]


def test_a_single_worker_is_replaced_by_its_gate() -> None:
    service = Service(1)
    service.boot_all()
    service.reload()
    service.boot_all()
    assert service.serving() == {2: 1}


def test_a_reload_with_more_and_with_fewer_workers(service: Service) -> None:
    for wanted in (6, 2):
        service.wanted_after_reload = wanted
        service.reload()
        service.boot_all()
        service.leave()
        assert list(service.serving().values()) == [wanted]


def test_a_shared_generation_replaces_one_that_was_not(service: Service) -> None:
    """What has retired could not come back, so the old ones stay although the new ones are cheap."""
    service.shares = True
    service.reload()
    service.become_ready(service.begin_imports()[0])
    assert service.serving() == {1: 4, 2: 1}
    service.boot_all()
    service.leave()
    assert service.serving() == {2: 4}


def test_a_worker_that_dies_during_a_roll_comes_back_as_a_new_one(service: Service) -> None:
    """One of the old generation would load the same files, and be called what it is not."""
    service.reload()
    service.become_ready(service.begin_imports()[0])
    for worker in service.begin_imports():
        service.become_ready(worker)
    service.kill(3)
    assert all(generation == 2 for _, generation in service.imports())
    service.boot_all()
    assert service.serving() == {2: 4}


def test_a_slot_that_is_empty_waits_for_the_gate(service: Service) -> None:
    service.reload()
    service.kill(3)
    assert service.imports() == [(0, 2)]
