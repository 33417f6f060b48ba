"""A reload: the new generation takes over the slots, or gives them back."""

from __future__ import annotations

import pytest

from forkserver.master.model import rollout, transitions
from forkserver.master.model.events import EventKind
from forkserver.master.model.lifecycle import State, Worker
from forkserver.master.model.plan import (
    AskForStacks,
    EndTemplate,
    KillTemplate,
)
from harness.model import BROKEN, TIMES, House, retired, spawned


def test_a_new_worker_is_ready_before_an_old_one_retires(house: House) -> None:
    """Start before stop, one slot after the other."""
    house.rollout.want_reload()
    house.load()
    for slot in range(4):
        (worker,) = house.ordered()
        assert (worker.slot, worker.generation) == (slot, 2)
        house.announce(worker)
        house.transitions.worker_loaded(worker)
        assert house.act() == []
        house.transitions.worker_ready(worker, house.now)
        assert retired(house.act()) == [(slot, 1)]
    assert house.serving() == {slot: [2] for slot in range(4)}


def test_a_generation_serves_when_the_last_of_the_old_is_gone(house: House) -> None:
    """Before, an answer of the old code may still come on a kept-alive connection."""
    house.rollout.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    draining = [worker for worker in house.fleet.workers if worker.state is State.DRAINING]
    assert len(draining) == 4
    for worker in draining:
        assert house.news() == []
        house.transitions.worker_exited(worker, "exit status 0", house.now)
    assert house.news() == [(EventKind.SERVES, 2)]


def test_the_old_template_ends_with_its_last_worker(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    old = house.fleet.templates[0]
    house.boot_all()
    assert EndTemplate(old) in house.steps
    assert [template.generation for template in house.fleet.templates] == [2]


def test_the_roll_does_not_wait_for_who_drains(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    for _ in range(4):
        house.become_ready(house.ordered()[0])
    assert house.serving() == {slot: [2] for slot in range(4)}


def test_the_surplus_is_bounded(house: House) -> None:
    """Clients that hold the old workers for long must not make each reload add four more."""
    for _ in range(5):
        house.rollout.want_reload()
        house.load()
        while house.ordered():
            house.become_ready(house.ordered()[0])
        if house.rollout.rolling is not None:
            break
    assert len(house.fleet.workers) <= 9


def test_code_that_does_not_load_touches_nothing_that_serves(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    house.transitions.template_failed(house.loading(), BROKEN, house.now)
    house.act()
    house.end_templates()
    assert [(news.kind, news.why) for news in house.rollout.take_events()] == [(EventKind.REFUSED, BROKEN)]
    assert house.serving() == {slot: [1] for slot in range(4)}
    assert house.act() == []


def test_an_import_that_hangs_shows_its_stacks_and_is_refused(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    template = house.loading()
    house.now += TIMES.boot
    assert house.act() == [AskForStacks(template)]
    (news,) = house.rollout.take_events()
    assert news.kind == EventKind.REFUSED
    assert "boot_timeout" in news.why.reason
    house.now += transitions.STACKS_SECONDS
    assert house.act() == [KillTemplate(template)]


def test_a_worker_that_fails_stops_the_roll_and_the_rolled_slots_go_back(house: House) -> None:
    """Half of the answers from new code that does not start would be worse than none."""
    house.rollout.want_reload()
    house.load()
    for _ in range(2):
        house.become_ready(house.ordered()[0])
        house.leave(State.DRAINING)
    third = house.ordered()[0]
    house.announce(third)
    house.transitions.worker_exited(third, "exit status 9", house.now)
    house.act()
    for slot in (0, 1):
        (worker,) = house.ordered()
        assert (worker.slot, worker.generation) == (slot, 1)
        assert house.serving()[slot] == [2], "the new one serves until the old one is back"
        house.become_ready(worker)
    assert house.news() == [(EventKind.GOING_BACK, 2)], "what still drains may answer"
    house.leave(State.DRAINING)
    assert house.news() == [(EventKind.WENT_BACK, 2)]
    house.end_templates()
    assert house.serving() == {slot: [1] for slot in range(4)}
    assert [template.generation for template in house.fleet.templates] == [1]


def killed_for_memory(house: House, worker: Worker) -> None:
    house.transitions.worker_exited(worker, "killed by SIGKILL, sent by the kernel: out of memory", house.now)
    house.rollout.killed_for_memory(str(worker), house.now)
    house.act()


def test_a_reload_that_costs_a_worker_its_memory_is_refused_while_it_loads(house: House) -> None:
    """Two generations do not fit; it would go on, and return success."""
    house.rollout.want_reload()
    house.act()
    loading, victim = house.loading(), house.fleet.serving()[0]
    killed_for_memory(house, victim)
    (news,) = house.rollout.take_events()
    assert (news.kind, news.generation) == (EventKind.REFUSED, 2)
    assert news.why.reason.startswith(f"out of memory: the kernel killed {victim} while two generations were there; ")
    assert EndTemplate(loading) in house.steps
    assert [worker.generation for worker in house.ordered()] == [1], "it is replaced by the code that serves"


def test_a_reload_that_costs_a_worker_its_memory_is_taken_back_while_it_rolls(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.leave(State.DRAINING)
    killed_for_memory(house, next(each for each in house.fleet.serving() if each.generation == 1))
    assert house.news() == [(EventKind.GOING_BACK, 2)]
    house.boot_all()
    assert house.news() == [(EventKind.WENT_BACK, 2)]
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_worker_killed_for_memory_when_all_slots_are_taken_over_is_told(house: House) -> None:
    """Nothing is left to go back to; who waits for the reload must hear of it all the same."""
    house.rollout.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    killed_for_memory(house, next(each for each in house.fleet.workers if each.state is State.DRAINING))
    assert house.news() == [(EventKind.COSTLY, 2)]
    house.leave(State.DRAINING)
    assert house.news() == [(EventKind.SERVES, 2)]


def test_a_worker_killed_for_memory_without_a_reload_fails_none(house: House) -> None:
    killed_for_memory(house, house.fleet.serving()[0])
    assert house.news() == []


def test_a_template_that_dies_during_its_roll_stops_it(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.leave(State.DRAINING)
    template = house.fleet.template(2)
    assert template is not None
    for worker in house.ordered():
        house.transitions.worker_exited(worker, "it was never forked", house.now)
    house.transitions.template_exited(template, "killed by SIGKILL", house.now)
    house.act()
    house.boot_all()
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_template_that_closes_its_channel_during_its_roll_stops_it(house: House) -> None:
    """An import may close every descriptor it finds: such a template is of no use, and no roll may wait on it."""
    house.rollout.want_reload()
    house.load()
    template = house.fleet.template(2)
    assert template is not None
    house.transitions.template_unreachable(template, house.now)
    house.now += rollout.END_SECONDS
    assert house.act() == [KillTemplate(template)]
    house.transitions.template_exited(template, "killed by SIGKILL", house.now)
    house.boot_all()
    assert (EventKind.WENT_BACK, 2) in house.news()
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_the_end_of_a_killed_templates_channel_changes_nothing(house: House) -> None:
    """It comes before its exit is known, and a debugger may hold that back."""
    template = house.fleet.template(1)
    assert template is not None
    house.transitions.template_overdue(template, house.now)
    house.transitions.template_unreachable(template, house.now)
    house.now += transitions.UNENDED_SECONDS - 1
    assert KillTemplate(template) not in house.act()
    assert template.state is State.KILLED


@pytest.mark.parametrize("seconds", [0.0, rollout.END_SECONDS])
def test_an_import_that_cannot_be_shared_may_say_so_while_it_is_ended(seconds: float) -> None:
    """The report crosses the order of a stop; that is no fault of the template's."""
    house = House()
    house.act()
    template = house.loading()
    house.rollout.stop(house.now, house.now)
    house.act()
    house.now += seconds
    house.act()
    deadline = template.deadline
    house.transitions.template_cannot_share(template, house.now)
    assert template.deadline == deadline


def test_a_hup_during_a_reload_is_remembered(house: House) -> None:
    """The files may have changed again after the first one read them."""
    house.rollout.want_reload()
    house.load()
    house.rollout.want_reload()
    assert house.act() == []
    house.boot_all()
    house.load()
    house.boot_all()
    assert house.news() == [(EventKind.SERVES, 2), (EventKind.SERVES, 3)]


def test_a_hup_after_a_refused_reload_loads_what_was_mended(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    house.transitions.template_failed(house.loading(), BROKEN, house.now)
    house.rollout.want_reload()
    house.load()
    house.boot_all()
    assert house.serving() == {slot: [3] for slot in range(4)}


def test_a_worker_that_dies_during_a_roll_comes_back_from_code_known_to_serve(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    last = next(worker for worker in house.fleet.serving() if worker.slot == 3)
    house.transitions.worker_exited(last, "killed by SIGKILL", house.now)
    assert spawned(house.act()) == [(3, 1)]
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(4)}


@pytest.mark.parametrize("storm", [True, False], ids=["requests kill any code", "only the new code crashes"])
def test_a_reload_fails_for_crashes_that_only_its_own_workers_have(house: House, storm: bool) -> None:
    """A request that kills its worker must not keep an operator from a reload, which may well bring the remedy."""
    house.rollout.want_reload()
    house.load()
    for _ in range(2):
        house.become_ready(house.ordered()[0])
        if storm:
            old = next(worker for worker in house.fleet.serving() if worker.generation == 1 and not worker.leaving)
            house.transitions.worker_exited(old, "killed by SIGSEGV", house.now)
        new = next(worker for worker in house.fleet.serving() if worker.generation == 2)
        house.transitions.worker_exited(new, "killed by SIGSEGV", house.now)
        house.act()
    assert house.rollout.rolling == (2 if storm else None)
    if not storm:
        house.leave(State.DRAINING)
        (event,) = house.rollout.take_events()[-1:]
        assert event.why.reason.startswith("2 of its workers that had been ready ended within 5 s, the last: killed by")
        assert "with the requests that it was serving" in event.why.reason, "where an operator finds the cause"


def test_a_reload_mends_a_start_whose_workers_never_serve() -> None:
    house = House(2)
    house.load()
    for worker in house.ordered():
        house.transitions.worker_exited(worker, "killed by SIGSEGV", house.now)
    house.rollout.want_reload()
    house.load()
    assert spawned(house.steps)[-2:] == [(0, 2), (1, 2)], "at once, and not after the delay of the old code"
    house.boot_all()
    assert house.news() == [(EventKind.READY, 2)]


def test_a_reload_with_more_workers_adds_slots(house: House) -> None:
    house.wanted_after_reload = 6
    house.rollout.want_reload()
    house.load()
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(6)}


def test_a_reload_with_fewer_workers_takes_slots_away(house: House) -> None:
    house.wanted_after_reload = 1
    house.rollout.want_reload()
    house.load()
    house.boot_all()
    house.leave(State.DRAINING)
    assert house.serving() == {0: [2]}


def test_a_slot_that_goes_away_gets_no_new_worker(house: House) -> None:
    """It would be started, counted and retired; and its old one serves until the others are there."""
    house.wanted_after_reload = 2
    house.rollout.want_reload()
    house.load()
    house.kill(3)
    assert house.act() == [], "not even where it is empty"
    house.become_ready(house.ordered()[0])
    assert sorted(house.serving()) == [0, 1, 2]
    house.become_ready(house.ordered()[0])
    assert spawned(house.steps)[-2:] == [(0, 2), (1, 2)]
    assert house.serving() == {0: [2], 1: [2]}
    house.leave(State.DRAINING)
    assert house.news() == [(EventKind.SERVES, 2)]


def test_a_roll_that_fails_at_its_first_worker_is_told_at_once(house: House) -> None:
    """Nothing of it has served, so there is nothing to wait for."""
    house.rollout.want_reload()
    house.load()
    house.fail()
    assert house.news() == [(EventKind.WENT_BACK, 2)]


def test_a_next_reload_does_not_swallow_the_news_of_the_failed_one(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.fail()
    house.rollout.want_reload()
    house.load()
    assert house.news() == [(EventKind.GOING_BACK, 2), (EventKind.WENT_BACK, 2)]
    house.boot_all()
    house.leave(State.DRAINING)
    house.end_templates()
    assert house.serving() == {slot: [3] for slot in range(4)}


def test_a_roll_for_which_there_is_no_room_goes_back(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    house.transitions.worker_exited(house.ordered()[0], "it was never forked", house.now)
    house.act()
    house.rollout.want_reload()
    house.act()
    house.transitions.template_loaded(house.loading(), house.now)
    assert spawned(house.plan(house.now)) == [(0, 3)]
    house.transitions.spawn_failed(0, 3, "every row is taken", house.now)
    house.act()
    house.end_templates()
    assert house.serving() == {slot: [1] for slot in range(4)}
