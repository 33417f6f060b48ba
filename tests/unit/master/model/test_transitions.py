"""What events in the life of a worker change: starts that fail, calls that hang."""

from __future__ import annotations

from forkserver.master.model import transitions
from forkserver.master.model.events import EventKind
from forkserver.master.model.lifecycle import NEVER, State
from forkserver.master.model.plan import (
    AbandonWorker,
    AskForLastWords,
    AskForStacks,
    KillTemplate,
    KillWorker,
    Replace,
    SpawnWorker,
    StartTemplate,
)
from harness.model import BROKEN, GRACE, TIMES, House, Model, again, retired


def test_a_worker_that_hangs_while_it_starts_shows_its_stacks_and_is_killed(house: House) -> None:
    house.transitions.worker_exited(house.fleet.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.now += TIMES.boot
    assert house.act()[:1] == [AskForStacks(worker)]
    house.now += transitions.STACKS_SECONDS
    assert KillWorker(worker) in house.act()


def test_a_worker_that_is_never_forked_is_given_up(house: House) -> None:
    house.transitions.worker_exited(house.fleet.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    worker = house.ordered()[0]
    (template,) = house.fleet.templates
    house.now += TIMES.boot
    assert house.act()[:2] == [AbandonWorker(worker), KillTemplate(template)]
    assert worker not in house.fleet.workers


def test_a_template_that_was_stopped_is_not_told_as_a_slow_import(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    template = house.loading()
    house.transitions.template_stopped(template, True)
    assert Model(again(house.rollout)).fleet.templates[-1].stopped, "an upgrade hands it on"
    house.now += TIMES.boot
    house.act()
    (why,) = [event.why.reason for event in house.rollout.take_events() if event.kind is EventKind.REFUSED]
    assert f"its process, pid {template.pid}, was stopped by a signal (SIGSTOP" in why
    assert "reload again" in why
    assert "took longer" not in why


def test_one_that_went_on_in_between_is_told_as_a_slow_import(house: House) -> None:
    house.rollout.want_reload()
    house.act()
    house.transitions.template_stopped(house.loading(), True)
    house.transitions.template_stopped(house.loading(), False)
    house.now += TIMES.boot
    house.act()
    (why,) = [event.why.reason for event in house.rollout.take_events() if event.kind is EventKind.REFUSED]
    assert "the import took longer than boot_timeout" in why


def test_a_template_that_is_stuck_in_a_fork_is_killed_and_replaced(house: House) -> None:
    """An at-fork hook of the application hangs in it, or in the process that it waits for."""
    house.kill(0)
    house.kill(1)
    house.act()
    (template,) = house.fleet.templates
    house.now += TIMES.boot
    steps = house.act()
    assert [step for step in steps if isinstance(step, KillTemplate)] == [KillTemplate(template)], "once"
    assert steps[-2:] == [Replace(), StartTemplate(2, shares=True)]


def test_a_worker_that_was_forked_and_says_nothing_is_killed(house: House) -> None:
    """An at-fork hook hangs in it; its signals are blocked there, so it could not show its stacks."""
    house.kill(0)
    house.act()
    worker = house.ordered()[0]
    house.transitions.worker_forked(worker, 4711)
    assert (worker.state, worker.pid) == (State.FORKED, 4711)
    house.now += TIMES.boot
    assert house.act() == [KillWorker(worker)]
    assert house.fleet.backoffs.of(0).failures == 1
    house.transitions.worker_exited(worker, "killed by SIGKILL", house.now)
    assert house.fleet.backoffs.of(0).failures == 1, "one failure counts once"


def test_a_worker_that_dies_in_an_at_fork_hook_is_told_with_its_pid(house: House) -> None:
    house.kill(0)
    house.act()
    worker = house.ordered()[0]
    house.transitions.worker_forked(worker, 4711)
    house.transitions.worker_exited(worker, "exit status 9", house.now)
    assert house.fleet.backoffs.of(0).failures == 1
    assert house.act() == []


def test_a_pid_that_comes_after_the_hello_changes_nothing(house: House) -> None:
    """They come on two channels, and either may be read first."""
    house.kill(0)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.transitions.worker_forked(worker, worker.pid)
    assert worker.state is State.STARTING


def test_when_the_template_dies_its_workers_serve_on(house: House) -> None:
    (template,) = house.fleet.templates
    house.transitions.template_exited(template, "killed by SIGKILL", house.now)
    assert house.act() == [Replace(), StartTemplate(2, shares=True)]
    house.load()
    assert house.news() == [(EventKind.TEMPLATE_DIED, 1)]
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_worker_that_does_not_load_was_not_told_to_leave(house: House) -> None:
    """It is tried again, and the log must not say that it was leaving anyway."""
    house.kill(0)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.transitions.worker_load_failed(worker, BROKEN, house.now)
    assert (worker.state, worker.leaving) == (State.LEAVING, False)
    assert house.fleet.backoffs.of(0).failures == 1


def test_who_dies_after_its_template_comes_from_the_next_generation(house: House) -> None:
    house.transitions.template_exited(house.fleet.templates[0], "killed by SIGKILL", house.now)
    house.load()
    house.transitions.worker_exited(house.fleet.serving()[1], "killed by SIGKILL", house.now)
    assert house.act() == [SpawnWorker(1, 2)]


def test_a_dead_templates_successor_is_no_reload_under_way(house: House) -> None:
    """Or the manager would wait for ever for the READY=1 of the reload before it."""
    house.rollout.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    template = house.fleet.template(2)
    assert template is not None
    house.transitions.template_exited(template, "killed by SIGKILL", house.now)
    house.act()
    house.leave(State.DRAINING)
    assert house.loading().generation == 3
    assert (EventKind.SERVES, 2) in house.news()
    assert not house.rollout.reloading


def test_a_generation_serves_although_its_template_has_died_meanwhile(house: House) -> None:
    """Its workers are the ones that answer; what has replaced the template is for workers to come."""
    house.rollout.want_reload()
    house.load()
    drainers = []
    while ordered := house.ordered():
        house.become_ready(ordered[0])
        drainers = [each for each in house.fleet.workers if each.state is State.DRAINING]
    assert drainers
    house.news()
    (template,) = [each for each in house.fleet.templates if each.generation == 2]
    house.transitions.template_exited(template, "killed by SIGKILL", house.now)
    house.load()
    assert house.news() == [(EventKind.TEMPLATE_DIED, 2)]
    house.leave(State.DRAINING)
    assert house.news() == [(EventKind.SERVES, 2)]


def test_a_dead_template_that_cannot_be_replaced_is_tried_again_when_a_worker_is_needed(house: House) -> None:
    """The files are broken by now: living workers serve on, and nobody imports broken code without need."""
    house.transitions.template_exited(house.fleet.templates[0], "killed by SIGKILL", house.now)
    house.act()
    house.transitions.template_failed(house.loading(), BROKEN, house.now)
    house.end_templates()
    house.now += 1000
    assert house.act() == []
    house.transitions.worker_exited(house.fleet.serving()[0], "killed by SIGKILL", house.now)
    assert house.act() == [Replace(), StartTemplate(3, shares=True)]
    house.transitions.template_failed(house.loading(), BROKEN, house.now)
    house.end_templates()
    assert house.act() == []
    assert house.wake_at(house.now) == house.now + 1.0
    assert len(house.fleet.serving()) == 3


def test_a_hung_worker_leaves_a_hole_at_once(house: House) -> None:
    worker = house.fleet.serving()[1]
    house.transitions.worker_hung(worker, house.now)
    assert house.act() == [SpawnWorker(1, 1)]
    assert worker.deadline == house.now + transitions.HEAR_SECONDS


def test_a_hung_worker_that_hears_has_the_grace_to_leave(house: House) -> None:
    worker = house.fleet.serving()[1]
    house.transitions.worker_hung(worker, house.now)
    house.act()
    house.now += 1
    house.transitions.worker_expiring(worker, house.now)
    assert (worker.state, worker.deadline) == (State.DRAINING, house.now + GRACE)
    assert house.act() == []
    house.now = worker.deadline
    assert house.act()[:1] == [KillWorker(worker)]


def test_a_hung_worker_that_hears_nothing_is_killed_once(house: House) -> None:
    """It is stopped, or in C code that keeps the interpreter."""
    worker = house.fleet.serving()[1]
    house.transitions.worker_hung(worker, house.now)
    house.act()
    house.now += transitions.HEAR_SECONDS
    assert house.act() == [AskForLastWords(worker)]
    house.now += transitions.STACKS_SECONDS
    assert house.act() == [KillWorker(worker)]
    house.transitions.worker_expiring(worker, house.now)  # crossed
    assert worker.state is State.KILLED
    house.now += transitions.UNENDED_SECONDS - 1
    assert KillWorker(worker) not in house.act()


def test_a_second_call_that_hangs_gives_no_more_time(house: House) -> None:
    worker = house.fleet.serving()[1]
    house.transitions.worker_hung(worker, house.now)
    deadline = worker.deadline
    house.now += 1
    house.transitions.worker_hung(worker, house.now)
    assert (worker.state, worker.deadline) == (State.HUNG, deadline)


def test_a_call_that_hangs_in_a_worker_that_drains_gives_it_no_more_time(house: House) -> None:
    house.rollout.want_workers(-1)
    house.act()
    (worker,) = [each for each in house.fleet.workers if each.state is State.DRAINING]
    deadline = worker.deadline
    house.now += 1
    house.transitions.worker_hung(worker, house.now)
    house.transitions.worker_expiring(worker, house.now)
    assert (worker.state, worker.deadline) == (State.DRAINING, deadline)
    house.now = deadline - 1
    house.transitions.worker_hung(worker, house.now)
    assert worker.deadline == deadline


def test_a_worker_that_drains_and_does_not_hear_is_killed_as_one_that_serves(house: House) -> None:
    """It is stopped, or in C code: who waits on it would wait for all of graceful_timeout."""
    house.rollout.want_workers(-1)
    house.act()
    (worker,) = [each for each in house.fleet.workers if each.state is State.DRAINING]
    house.transitions.worker_hung(worker, house.now)
    house.now += 1
    house.transitions.worker_hung(worker, house.now)  # a call in another of its threads
    assert house.act() == []
    house.now += transitions.HEAR_SECONDS - 1
    assert house.act() == [KillWorker(worker)]


def test_a_stop_waits_for_a_hung_worker_to_hear_or_to_be_killed(house: House) -> None:
    worker = house.fleet.serving()[1]
    house.transitions.worker_hung(worker, house.now)
    house.rollout.stop(house.now, house.now)
    assert len(retired(house.act())) == 3
    house.now += transitions.HEAR_SECONDS
    assert AskForLastWords(worker) in house.act()
    house.now += transitions.STACKS_SECONDS
    assert KillWorker(worker) in house.act()


def test_a_worker_that_hears_at_the_last_moment_may_leave_by_itself(house: House) -> None:
    """It was only slow, and its other requests need not be lost."""
    worker = house.fleet.serving()[1]
    house.transitions.worker_hung(worker, house.now)
    house.now += transitions.HEAR_SECONDS
    house.act()
    house.transitions.worker_expiring(worker, house.now)
    assert worker.state is State.DRAINING
    house.now += transitions.STACKS_SECONDS
    assert house.act() == []


def test_a_worker_that_a_signal_has_stopped_must_go_on_in_time(house: House) -> None:
    """No call is in it, so no call is too long; but its idle connections would wait for ever."""
    worker = house.fleet.serving()[1]
    house.transitions.worker_stopped(worker, house.now + 30)
    assert house.act() == []
    house.now += 30
    assert house.act()[:1] == [KillWorker(worker)]


def test_a_worker_that_has_closed_its_channel_must_end(house: House) -> None:
    """It may run another program by now, or wait for threads at its exit: nothing else would tell of it."""
    worker = house.fleet.serving()[1]
    house.transitions.worker_unreachable(worker, house.now)
    assert house.act() == []
    house.now += transitions.LEAVE_SECONDS
    assert house.act()[:1] == [KillWorker(worker)]


def test_a_worker_that_drains_has_its_time_without_a_channel(house: House) -> None:
    house.rollout.want_workers(-1)
    house.act()
    (worker,) = [each for each in house.fleet.workers if each.state is State.DRAINING]
    deadline = worker.deadline
    house.transitions.worker_unreachable(worker, house.now)
    assert worker.deadline == deadline


def test_a_worker_that_goes_on_in_time_is_let_be(house: House) -> None:
    worker = house.fleet.serving()[1]
    house.transitions.worker_stopped(worker, house.now + 30)
    house.transitions.worker_continued(worker)
    house.now += 1000
    assert house.act() == []


def test_a_stopped_worker_that_drains_has_its_own_deadline(house: House) -> None:
    house.rollout.want_workers(-1)
    house.act()
    (worker,) = [each for each in house.fleet.workers if each.state is State.DRAINING]
    deadline = worker.deadline
    house.transitions.worker_stopped(worker, house.now + 1000)
    house.transitions.worker_continued(worker)
    assert worker.deadline == deadline


def test_a_worker_that_retires_has_all_time_while_a_debugger_is_in_use(house: House) -> None:
    """Whether the order or the debugger comes first."""
    early, late, *_ = house.fleet.workers
    house.transitions.worker_in_debugger(early, True, house.now)
    house.transitions.worker_retiring(early, house.now)
    house.transitions.worker_retiring(late, house.now)
    house.transitions.worker_in_debugger(late, True, house.now)
    assert early.deadline == late.deadline == NEVER
    for worker in (early, late):
        house.transitions.worker_in_debugger(worker, False, house.now)
        assert worker.deadline == house.now + house.fleet.generations[1].times.graceful + transitions.REPORT_SECONDS
