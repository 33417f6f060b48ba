"""Workers of new code that die as the last of them is ready: the reload has taken over, and must come to its end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkserver.master.model.events import EventKind
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import BOOTING, State, Worker
from forkserver.master.model.transitions import STACKS_SECONDS
from harness.model import TIMES
from harness.unshared import Service


def one_moment(service: Service, ready: list[Worker], dead: list[Worker]) -> None:
    """The master hears all of this before it plans anew."""
    for worker in ready:
        service.transitions.worker_loaded(worker)
        service.transitions.worker_ready(worker, service.now)
    for worker in dead:
        service.transitions.worker_exited(worker, "killed by SIGSEGV", service.now)
    service.act()


def rolling(workers: int, ready: int) -> tuple[Service, list[Worker]]:
    """A reload of so many ``workers``, of which so many are ``ready``; returns the new ones, those last."""
    service = Service(workers, processors=workers)
    service.boot_all()
    service.news()
    service.reload()
    service.fleet.generations[2].at_first = workers
    new = service.begin_imports()
    assert len(new) == workers
    for worker in new[:ready]:
        service.become_ready(worker)
    return service, new


def all_goes_well(service: Service) -> None:
    """From now on no worker fails or dies."""
    for _ in range(5):
        service.boot_all()
        service.leave()
        service.now += TIMES.boot
        service.act()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("dead", [1, 2, 4])
def test_new_workers_that_die_as_the_last_is_ready_are_started_again(workers: int, dead: int) -> None:
    """A worker of before that still served the place of a dead one stayed for ever, and the reload had no end."""
    for ready in range(workers):
        service, new = rolling(workers, ready)
        one_moment(service, new[ready:], new[:dead])
        all_goes_well(service)
        assert service.serving() == {2: workers}
        assert service.rollout.whole()
        assert service.news() == [(EventKind.SERVES, 2)]


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("kept", [False, True])
def test_a_reload_that_lost_all_its_workers_fails_when_no_other_starts(workers: int, kept: bool) -> None:
    """Once, although they are tried again; `reload --wait` would not answer as long as they do not start."""
    service, new = rolling(workers, 0)
    one_moment(service, new, new if kept else [])
    if not kept:
        for worker in new:
            service.transitions.worker_exited(worker, "killed by SIGSEGV", service.now)
        service.act()
        service.leave()
    assert service.serving() == ({1: workers} if kept else {})
    for _ in range(4):
        for worker in service.begin_imports():
            service.fail(worker)
        service.leave()
        service.now += TIMES.boot
    assert service.news() == [(EventKind.MIXED, 2)]
    all_goes_well(service)
    assert service.serving() == {2: workers}
    assert service.news() == [(EventKind.SERVES, 2)]


def test_a_reload_whose_workers_hang_after_it_took_over_fails_at_their_time_limit() -> None:
    service, new = rolling(2, 1)
    one_moment(service, new[1:], new)
    service.begin_imports()
    for seconds in (TIMES.boot, STACKS_SECONDS):
        service.now += seconds
        service.act()
    service.leave()
    assert service.news() == [(EventKind.MIXED, 2)]


def test_a_later_reload_that_fails_ends_the_wait_for_one_that_lost_a_worker() -> None:
    """From then on no worker is replaced, so the code before both serves on."""
    service, new = rolling(2, 1)
    one_moment(service, new[1:], new[:1])
    assert service.serving() == {1: 1, 2: 1}
    service.rollout.want_reload()
    service.rollout.reload_refused()
    service.act()
    assert service.news() == [(EventKind.FILES_CHANGED, 1), (EventKind.MIXED, 2)]


@pytest.mark.parametrize("shares", [False, True])
def test_a_reload_ends_when_the_slot_it_waits_for_is_not_wanted_any_more(shares: bool) -> None:
    service = Service(2)
    service.shares = service.fleet.generations[1].shares = shares
    service.boot_all()
    service.news()
    service.reload()
    service.become_ready(service.begin_imports()[0])
    service.rollout.want_workers(-1)
    service.act()
    service.leave()
    assert service.serving() == {2: 1}
    assert service.news() == [(EventKind.SERVES, 2)]


def happen(service: Service, what: int, which: int) -> None:
    """One of the things that may happen to workers, of which the master hears before it plans anew."""
    events, now = service.transitions, service.now
    booting, serving = [list(group) for group in (service.fleet.index.booting, service.fleet.index.serving)]
    if what <= 4 and booting:
        worker = booting[which % len(booting)]
        if worker.state is not State.STARTING:
            events.worker_announced(worker, 1, now)
        elif what <= 3:
            events.worker_ready(worker, now)
        else:
            events.worker_exited(worker, "exit status 1", now)
    elif what in (5, 6) and serving:
        events.worker_exited(serving[which % len(serving)], "killed by SIGSEGV", now)
    elif what == 7 and serving:
        events.worker_due(serving[which % len(serving)], "its age", now)
    elif what == 8:
        service.rollout.want_reload()
    elif what == 9:
        service.rollout.want_workers(1 if which % 2 else -1)
    elif what == 10:
        service.leave()
        service.now += which / 8


MOMENTS = st.lists(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 63)), max_size=4), max_size=40)
FAILURES = (EventKind.REFUSED, EventKind.WENT_BACK, EventKind.MIXED)
NOT_OVER = (*BOOTING, State.STALLED, State.DRAINING, State.LEAVING, State.KILLED)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.booleans(), MOMENTS)
def test_in_any_order_of_events_a_roll_goes_on_or_ends(
    workers: int, shares: bool, moments: list[list[tuple[int, int]]]
) -> None:
    """And once workers stop dying, all that are wanted serve, and each reload has been told to serve or to fail."""
    service = Service(workers)
    service.shares = service.fleet.generations[1].shares = shares
    service.boot_all()
    told, reloads = service.news(), set[int]()
    for moment in moments:
        for what, which in moment:
            happen(service, what, which)
        service.act()
        reloads |= {each.number for each in service.fleet.generations.values() if each.purpose is Purpose.RELOAD}
        under_way = any(each.state in NOT_OVER for each in service.fleet.workers)
        goes_on = under_way or service.wake_at(service.now) < math.inf
        assert goes_on or service.rollout.whole() or service.rollout.files_changed
    all_goes_well(service)
    told += service.news()
    assert service.fleet.serving_count == service.fleet.wanted
    assert service.rollout.whole() or service.rollout.files_changed
    newest = max(number for kind, number in told if kind in (EventKind.READY, EventKind.SERVES))
    failed = {number for kind, number in told if kind in FAILURES}
    assert all(number <= newest or number in failed for number in reloads), (reloads, told)
