"""Fleet and rollout written down and read again: the next program decides as this one would have."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from forkserver.ipc.serialization import dump
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import State
from forkserver.master.model.plan import (
    Reload,
)
from harness.model import BROKEN, TIMES, House, again


def happen(house: House, what: int, who: int) -> None:
    """One of the things that may happen, to one of those it may happen to."""
    loading = [each for each in house.fleet.templates if each.state is State.LOADING]
    loaded = [each for each in house.fleet.templates if each.state is State.LOADED]
    serving, ordered = house.fleet.serving(), house.ordered()
    if what == 0 and loading:
        house.transitions.template_loaded(loading[0], house.now)
    elif what == 1 and loading:
        house.transitions.template_failed(loading[0], BROKEN, house.now)
    elif what == 2 and loaded:
        house.transitions.template_exited(loaded[who % len(loaded)], "killed by SIGKILL", house.now)
    elif what == 3 and ordered:
        house.announce(ordered[who % len(ordered)])
    elif what == 4 and ordered:
        house.become_ready(ordered[who % len(ordered)])
    elif what == 5 and house.fleet.workers:
        worker = house.fleet.workers[who % len(house.fleet.workers)]
        if worker.state is not State.ORDERED:
            house.transitions.worker_exited(worker, "killed by SIGKILL", house.now)
    elif what == 6 and serving:
        house.transitions.worker_hung(serving[who % len(serving)], house.now)
    elif what == 7 and serving:
        house.transitions.worker_due(serving[who % len(serving)], "its age", house.now)
    elif what == 8:
        house.rollout.want_reload()
    elif what == 9:
        house.rollout.want_workers(1 if who % 2 else -1)
    elif what == 10:
        house.now += who
    elif what == 11:
        house.end_templates()
    elif what == 12 and who > 250:
        house.rollout.stop(house.now, house.now)
    house.act()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255)), max_size=60))
def test_a_master_that_is_another_program_each_time_decides_as_one_that_never_is(events: list[tuple[int, int]]) -> None:
    """Whatever state an upgrade meets, the next program does what this one would have done, and tells the same."""
    one, other = House(2), House(2)
    for what, who in [(0, 0), (4, 0), (4, 0), *events]:
        other.use(again(other.rollout))
        happen(one, what, who)
        happen(other, what, who)
        assert dump(other.rollout) == dump(one.rollout)
    assert list(map(type, other.steps)) == list(map(type, one.steps))
    assert other.rollout.take_events() == one.rollout.take_events()


def test_no_generation_begins_while_the_next_program_is_tried(house: House) -> None:
    """It is to load the next one; what was asked for meanwhile is kept."""
    house.rollout.upgrading = True
    house.rollout.want_reload()
    (template,) = house.fleet.templates
    house.transitions.template_exited(template, "killed by SIGKILL", house.now)
    assert house.act() == []
    house.rollout.upgrading = False
    assert house.act()[:1] == [Reload()]


def test_an_upgrade_waits_until_the_first_start_and_every_reload_are_over() -> None:
    house = House()
    assert not house.rollout.settled
    house.load()
    assert not house.rollout.settled
    house.boot_all()
    assert house.rollout.settled
    house.rollout.want_reload()
    house.load()
    assert not house.rollout.settled
    house.boot_all()
    assert house.rollout.settled


def test_a_template_that_has_failed_is_ended_whatever_it_says_then(house: House) -> None:
    """An application may write to its channel: it would put its end off for ever."""
    house.rollout.begin(Purpose.RELOAD, 1, TIMES, shares=True)
    template = house.transitions.template_started(house.rollout.coming or 0, 4711, house.now)
    house.transitions.template_failed(template, BROKEN, house.now)
    last = template.deadline
    for _ in range(3):
        house.transitions.template_loaded(template, house.now)
        house.transitions.template_failed(template, BROKEN, house.now + 3.0)
    assert template.deadline == last
    house.transitions.template_overdue(template, last)
    given_up = template.deadline
    house.transitions.template_failed(template, BROKEN, last + 3.0)
    assert template.deadline == given_up
