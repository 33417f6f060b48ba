"""Imports that are not shared: where memory holds some of the new workers only, or slots do not go back."""

from __future__ import annotations

import math

from forkserver.master.model.events import EventKind
from forkserver.master.model.generation import MARGIN_SECONDS
from harness.model import TIMES
from harness.unshared import Service


def test_where_memory_forbids_the_roll_goes_in_batches(service: Service) -> None:
    service.reload()
    (gate,) = service.begin_imports()
    service.rollout.limit_surplus(2, 1)
    service.become_ready(gate)
    assert service.serving() == {1: 3, 2: 1}
    assert service.imports() == [], "the old one still drains"
    service.leave()
    assert service.imports() == [(1, 2)]
    most = 0
    while importing := service.begin_imports():
        most = max(most, len(service.fleet.workers))
        service.become_ready(importing[0])
        service.leave()
    assert most == 5
    assert service.serving() == {2: 4}
    assert (EventKind.SERVES, 2) in service.news()


def test_a_worker_that_was_being_recycled_does_not_take_the_room_of_a_batch(service: Service) -> None:
    """Both of its slot are outdated once the reload takes over; the older one is not needed beside the other."""
    service.transitions.worker_due(service.fleet.serving()[1], "its age", service.now)
    (recycled,) = service.begin_imports()
    service.reload()
    gate = next(each for each in service.begin_imports() if each is not recycled)
    service.rollout.limit_surplus(2, 1)
    service.become_ready(gate)
    service.become_ready(recycled)
    service.leave()
    service.boot_all()
    assert service.serving() == {2: 4}
    assert (EventKind.SERVES, 2) in service.news()


def test_a_failure_after_a_batch_says_that_both_serve(service: Service) -> None:
    """What has retired cannot come back; more imports of these files would not be better than those that serve."""
    service.reload()
    (gate,) = service.begin_imports()
    service.rollout.limit_surplus(2, 1)
    service.become_ready(gate)
    service.leave()
    service.fail(service.begin_imports()[0])
    service.leave()
    assert service.serving() == {1: 3, 2: 1}
    assert service.news() == [(EventKind.MIXED, 2), (EventKind.FILES_CHANGED, 1)]
    assert service.imports() == []
    service.reload()
    service.boot_all()
    service.leave()
    assert service.serving() == {3: 4}
    assert (EventKind.SERVES, 3) in service.news()


def test_a_batch_goes_back_where_the_old_code_was_shared(service: Service) -> None:
    service.fleet.generations[1].shares = True
    service.reload()
    (gate,) = service.begin_imports()
    service.rollout.limit_surplus(2, 1)
    service.become_ready(gate)
    service.leave()
    service.fail(service.begin_imports()[0])
    service.boot_all()
    service.leave()
    assert service.serving() == {1: 4}
    assert service.news() == [(EventKind.GOING_BACK, 2), (EventKind.WENT_BACK, 2)]


def test_who_waits_for_the_way_back_is_told_when_that_takes_too_long() -> None:
    """The old code may not start either; `reload --wait` must end all the same."""
    service = Service(2)
    service.fleet.generations[1].shares = service.shares = True
    service.boot_all()
    service.news()
    service.reload()
    service.become_ready(service.begin_imports()[0])
    service.leave()
    service.fail(service.begin_imports()[0])
    assert service.news() == [(EventKind.GOING_BACK, 2)]
    late = service.now + sum(TIMES) + MARGIN_SECONDS
    assert service.rollout.back_by == late
    while service.now < late:
        for worker in service.begin_imports():
            service.fail(worker)
        service.leave()
        service.now = service.wake_at(service.now)
    service.act()
    assert service.news() == [(EventKind.MIXED, 2)]
    assert service.rollout.back_by == math.inf


def test_a_slot_that_never_comes_does_not_hold_the_end_of_a_reload(service: Service) -> None:
    """It is more than there were before, and fails for a reason of its own; the others have the new code."""
    service.wanted_after_reload = 5
    service.reload()
    for _ in range(4):
        service.become_ready(service.begin_imports()[0])
    service.leave()
    (fifth,) = service.begin_imports()
    assert service.news() == []
    service.fail(fifth)
    assert service.news() == [(EventKind.SERVES, 2)]
