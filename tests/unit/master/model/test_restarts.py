"""When a worker or template that failed or crashed is started again."""

from __future__ import annotations

from forkserver.master.model import backoff
from forkserver.master.model.events import EventKind
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import State
from forkserver.master.model.plan import (
    SpawnWorker,
    StartTemplate,
)
from harness.model import BROKEN, House, spawned


def serve_and_crash(house: House) -> int:
    """Every worker that is ordered becomes ready; all crash 10 ms later. Returns how many became ready."""
    starts = 0
    while ordered := house.ordered():
        house.become_ready(ordered[0])
        starts += 1
    house.now += 0.01
    for worker in house.fleet.serving():
        house.transitions.worker_exited(worker, "killed by SIGSEGV, a crash", house.now)
    return starts


def test_a_worker_that_dies_is_replaced_at_once(house: House) -> None:
    victim = house.fleet.serving()[2]
    house.transitions.worker_exited(victim, "killed by SIGKILL", house.now)
    assert house.act() == [SpawnWorker(2, 1)]


def test_workers_that_never_serve_are_tried_again_with_a_growing_delay(house: House) -> None:
    """A bad deploy must not spin the processor."""
    house.transitions.worker_exited(house.fleet.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    waits = []
    for _ in range(9):
        house.transitions.worker_exited(house.ordered()[0], "exit status 1", house.now)
        assert house.act() == []
        waits.append(house.wake_at(house.now) - house.now)
        house.now += waits[-1]
        assert house.act() == [SpawnWorker(0, 1)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_slots_that_fail_together_wait_no_longer_than_one(house: House) -> None:
    """Or with many workers one bad moment would mean half a minute without any."""
    for slot in range(4):
        house.kill(slot)
    house.act()
    for _ in range(4):
        house.fail()
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + 0.5
    house.now += 0.5
    assert spawned(house.act()) == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_a_slot_in_a_crash_loop_leaves_the_others_alone(house: House) -> None:
    """What fails in one slot (a core that is broken, a lock that is taken) says nothing of the next."""
    house.kill(0)
    house.act()
    for _ in range(6):
        house.fail()
        house.now = house.wake_at(house.now)
        house.act()
    house.fail()
    house.kill(2)
    assert house.act() == [SpawnWorker(2, 1)]


def test_a_worker_that_crashes_after_it_was_ready_is_replaced_at_once_each_time(house: House) -> None:
    """A request that kills comes again; a delay would leave the other clients without a worker."""
    for crash in range(40):
        house.kill(crash % 4)
        assert house.act() == [SpawnWorker(crash % 4, 1)]
        house.become_ready(house.ordered()[0])
        house.now += 1
    assert len(house.serving()) == 4


def test_crashes_right_after_ready_are_no_fork_bomb_and_leave_no_pause(house: House) -> None:
    """A thread that crashes 10 ms after the start: a bounded number of starts per second, each within 0.1 s."""
    began, starts, longest = house.now, 0, 0.0
    for worker in house.fleet.serving():
        house.transitions.worker_exited(worker, "killed by SIGSEGV, a crash", house.now)
    while house.now < began + 20:
        pause = house.now
        while not house.act():
            house.now = house.wake_at(house.now)
        longest = max(longest, house.now - pause)
        starts += serve_and_crash(house)
    assert starts <= 20 * backoff.RESTARTS_PER_SECOND + max(backoff.RESTARTS_AT_ONCE, 2 * 4)
    assert longest <= 1 / backoff.RESTARTS_PER_SECOND + 1e-6


def test_a_whole_service_that_is_killed_at_once_is_started_at_once() -> None:
    """The kernel, short of memory, may end many workers in one moment."""
    made = House(wanted=64)
    made.load()
    made.boot_all()
    for worker in made.fleet.serving():
        made.transitions.worker_exited(worker, "killed by SIGKILL", made.now)
    assert len(spawned(made.act())) == 64


def test_crashes_are_no_failures_to_start(house: House) -> None:
    """The delay that a failure has brought is over with the worker that becomes ready."""
    house.kill(0)
    house.act()
    house.fail()
    house.now += 0.5
    house.act()
    house.become_ready(house.ordered()[0])
    house.kill(0)
    assert house.act() == [SpawnWorker(0, 1)]
    house.fail()
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + 0.5


def test_the_first_worker_after_a_time_without_any_ends_the_delay_of_the_others(house: House) -> None:
    """What every import needed is back, so no slot waits for the rest of its half minute."""
    for slot in range(4):
        house.kill(slot)
    house.act()
    for _ in range(4):
        for _ in house.ordered():
            house.fail()
        house.now = house.wake_at(house.now)
        house.act()
    for _ in range(3):
        house.fail()
    house.act()
    house.become_ready(house.ordered()[0])
    assert len(house.ordered()) == 3


def test_a_worker_that_was_well_for_a_while_ends_the_delay(house: House) -> None:
    house.kill(0)
    house.act()
    for _ in range(3):
        house.fail()
        house.now = house.wake_at(house.now)
        house.act()
    house.become_ready(house.ordered()[0])
    house.now += backoff.HEALTHY_SECONDS
    house.kill(0)
    assert house.act() == [SpawnWorker(0, 1)]


def test_things_are_well_again_when_a_new_worker_has_served_for_a_while(house: House) -> None:
    """Then a reason that was stated is forgotten, and stated again if it comes back."""
    house.now += 100
    house.kill(0)
    failed_at = house.now
    house.act()
    assert not house.fleet.recovered(failed_at, house.now), "the other slots have been well all the time"
    house.now += 1
    house.become_ready(house.ordered()[0])
    house.now += backoff.HEALTHY_SECONDS - 0.1
    assert not house.fleet.recovered(failed_at, house.now)
    house.now += 0.2
    assert house.fleet.recovered(failed_at, house.now)
    house.kill(0)
    assert house.fleet.recovered(failed_at, house.now), "its death does not undo that"


def test_a_template_that_dies_after_each_import_is_replaced_ever_later(house: House) -> None:
    """The first death may be a kill -9; an import whose thread ends the process would burn a processor."""
    waits = []
    for _ in range(6):
        (template,) = [each for each in house.fleet.templates if each.state is State.LOADED]
        house.now += 1
        house.transitions.template_exited(template, "exit status 0", house.now)
        died = house.now
        while not any(isinstance(step, StartTemplate) for step in house.act()):
            house.now = house.wake_at(house.now)
        waits.append(house.now - died)
        house.transitions.template_loaded(house.loading(), house.now)
        house.act()
    assert waits == [0, 0.5, 1, 2, 4, 8]
    house.now += backoff.HEALTHY_SECONDS
    house.transitions.template_exited(house.fleet.templates[-1], "killed by SIGKILL", house.now)
    assert any(isinstance(step, StartTemplate) for step in house.act())


def die_after_each_import(house: House, times: int) -> None:
    """The next template is loaded ever later."""
    for _ in range(times):
        while not any(each.state is State.LOADING for each in house.fleet.templates):
            house.now = house.wake_at(house.now)
            house.act()
        house.transitions.template_loaded(house.loading(), house.now)
        house.act()
        house.transitions.template_exited(house.fleet.templates[-1], "killed by SIGKILL", house.now)
        house.act()


def test_a_worker_that_crashes_does_not_wait_for_the_rest_of_a_dead_templates_delay(house: House) -> None:
    """Templates are killed for their memory, then requests crash the workers: without a template none comes back."""
    house.transitions.template_exited(house.fleet.templates[0], "killed by SIGKILL", house.now)
    house.act()
    die_after_each_import(house, 8)
    assert house.wake_at(house.now) == house.now + backoff.LAST_DELAY
    house.kill(0)
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + backoff.URGENT_DELAY
    house.now += backoff.URGENT_DELAY
    assert any(isinstance(step, StartTemplate) for step in house.act())


def test_a_reload_that_takes_over_ends_the_delay_of_templates(house: House) -> None:
    house.transitions.template_exited(house.fleet.templates[0], "killed by SIGKILL", house.now)
    house.act()
    die_after_each_import(house, 8)
    house.rollout.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    house.transitions.template_exited(house.fleet.templates[-1], "killed by SIGKILL", house.now)
    assert any(isinstance(step, StartTemplate) for step in house.act())


def test_while_no_worker_serves_no_delay_is_longer_than_a_second(house: House) -> None:
    """A database comes back after ten minutes: a second later there is a service again, not half a minute."""
    for slot in range(4):
        house.kill(slot)
    house.act()
    for _ in range(8):
        while house.ordered():
            house.fail()
        house.act()
        assert house.wake_at(house.now) <= house.now + backoff.URGENT_DELAY
        house.now = house.wake_at(house.now)
        assert spawned(house.act()) == [(slot, house.rollout.current) for slot in range(4)]


def test_the_last_worker_that_ends_ends_long_delays(house: House) -> None:
    """Neither a slot that has failed for long nor a template whose files are broken waits for half a minute then."""
    house.transitions.template_exited(house.fleet.templates[0], "killed by SIGKILL", house.now)
    house.act()
    house.transitions.template_failed(house.loading(), BROKEN, house.now)
    house.end_templates()
    house.kill(0)
    for _ in range(7):
        while not any(each.state is State.LOADING for each in house.fleet.templates):
            house.now = max(house.now, house.wake_at(house.now))
            house.act()
        house.transitions.template_failed(house.loading(), BROKEN, house.now)
        house.end_templates()
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + backoff.LAST_DELAY
    for slot in (1, 2, 3):
        house.kill(slot)
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + backoff.URGENT_DELAY


def test_a_fork_that_fails_is_waited_out_and_no_fault_of_the_code(house: House) -> None:
    house.kill(0)
    house.kill(1)
    house.act()
    waits = []
    for _ in range(3):
        for worker in house.ordered():
            house.transitions.worker_not_forked(worker, "no room", house.now)
        assert house.act() == []
        waits.append(house.wake_at(house.now) - house.now)
        house.now += waits[-1]
        assert spawned(house.act()) == [(0, 1), (1, 1)]
    assert waits == [0.5, 1, 2], "two that fail in one try count once"
    assert house.fleet.backoffs.of(0).failures == 0


def test_a_reload_that_gets_no_process_ends_with_the_reason(house: House) -> None:
    """Who waits for its end is not left waiting for room that may never come."""
    house.rollout.want_reload()
    house.plan(house.now)
    began = house.begin(Purpose.RELOAD)
    while house.rollout.coming is not None:
        house.rollout.no_process("no room", house.now)
        house.now += 4
    (news,) = house.rollout.take_events()
    assert (news.kind, news.generation) == (EventKind.REFUSED, began)
    assert news.why.reason == "the system has given no process for boot_timeout (60 s): no room"
    assert len(house.serving()) == 4


def test_a_roll_that_gets_no_further_process_goes_back(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    while house.rollout.rolling is not None:
        for worker in house.ordered():
            house.transitions.worker_not_forked(worker, "no room", house.now)
        house.now += 4
        house.act()
    assert house.news() == [(EventKind.WENT_BACK, 2)]
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_first_start_waits_for_processes_as_long_as_it_takes() -> None:
    made = House()
    for _ in range(100):
        made.rollout.no_process("no room", made.now)
        made.now += 10
    assert made.news() == []
    assert made.act() == [StartTemplate(1, shares=True)]


def test_the_first_process_that_is_had_ends_that_wait(house: House) -> None:
    house.kill(0)
    house.act()
    house.transitions.worker_not_forked(house.ordered()[0], "no room", house.now)
    house.now += 0.5
    house.act()
    house.transitions.worker_forked(house.ordered()[0], 4711)
    house.kill(1)
    assert house.act() == [SpawnWorker(1, 1)]


def test_a_roll_waits_for_processes_and_goes_on(house: House) -> None:
    house.rollout.want_reload()
    house.load()
    house.transitions.worker_not_forked(house.ordered()[0], "no room", house.now)
    assert house.act() == []
    assert house.news() == []
    house.now += 0.5
    assert house.act() == [SpawnWorker(0, 2)]
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(4)}


def test_a_start_waits_for_processes() -> None:
    house = House(1)
    assert house.plan(house.now) == [StartTemplate(1, shares=True)]
    house.rollout.no_process("no room", house.now)
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + 0.5
    house.now += 0.5
    house.load()
    house.transitions.worker_not_forked(house.ordered()[0], "no room", house.now)
    house.now += 0.5
    house.act()
    house.boot_all()
    assert house.news() == [(EventKind.READY, 1)]


def test_a_start_is_ready_where_the_kernel_refuses_some_workers_for_good() -> None:
    """A service manager would wait for it until it gives up, and end those that serve."""
    house = House(2)
    house.load()
    house.become_ready(house.ordered()[0])
    for tries in range(2):
        assert house.news() == [], tries
        house.transitions.worker_not_forked(house.ordered()[0], "no room", house.now)
        house.now += 4
        house.act()
    assert house.news() == [(EventKind.READY, 1)]


def test_an_order_that_cannot_be_given_is_waited_out(house: House) -> None:
    """No descriptors, or a template that is busy: neither says anything about the code."""
    house.kill(0)
    assert house.plan(house.now) == [SpawnWorker(0, 1)]
    house.rollout.no_process("no room", house.now)
    assert house.act() == []
    house.now += 0.5
    assert house.act() == [SpawnWorker(0, 1)]


def test_a_storm_of_crashes_while_a_generation_rolls_is_no_fork_bomb_and_leaves_no_pause(house: House) -> None:
    """A stranger's request kills workers of the old code and of the new; when it stops, no client waits for long."""
    house.begin(Purpose.RELOAD)
    house.load()
    began, starts = house.now, 0
    while house.now < began + 20:
        starts += serve_and_crash(house)
        house.act()
    assert starts <= 20 * backoff.RESTARTS_PER_SECOND + max(backoff.RESTARTS_AT_ONCE, 2 * 4) + 4
    over = house.now
    while not house.ordered():
        assert not house.act()
        house.now = house.wake_at(house.now)
        house.act()
    assert house.now - over <= 1 / backoff.RESTARTS_PER_SECOND + 1e-6
