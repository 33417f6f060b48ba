"""The rules of supervision, tried without a process and without a clock."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkserver.ipc.serialization import dump, load
from forkserver.master.model import backoff, fleet, lifecycle
from forkserver.master.model.events import EventKind, Failure
from forkserver.master.model.fleet import Roster
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.lifecycle import NEVER, State, Template, UnexpectedError, Worker
from forkserver.master.model.plan import (
    AbandonWorker,
    AskForLastWords,
    AskForStacks,
    EndTemplate,
    KeepConnections,
    KillTemplate,
    KillWorker,
    QuitWorker,
    Recycle,
    Reload,
    Replace,
    RetireWorker,
    SpawnWorker,
    StartTemplate,
    Step,
)

TIMES = Times(boot=60.0, graceful=30.0)
GRACE = TIMES.graceful + fleet.REPORT_SECONDS  # a worker says what it holds, and leaves by itself
BROKEN = Failure("it is broken", "Traceback", 3)


def again(facts: Roster) -> Roster:
    """``facts`` as the next program reads them."""
    return load(Roster, json.loads(json.dumps(dump(facts))))


class House:
    """A master without processes: it takes every step of the plan, and things happen when a test says so."""

    def __init__(self, wanted: int = 4) -> None:
        self.roster = Roster(wanted)
        self.now = 1000.0
        self.pids = 100
        self.steps: list[Step] = []
        self.wanted_after_reload = wanted
        self.begin(Purpose.START)

    def begin(self, purpose: Purpose) -> int:
        return self.roster.begin(purpose, self.wanted_after_reload, TIMES, shares=True)

    def act(self) -> list[Step]:
        """Take steps until there are none; returns them."""
        taken: list[Step] = []
        assert repr(again(self.roster).plan(self.now)) == repr(self.roster.plan(self.now)), "the next program disagrees"
        while steps := self.roster.plan(self.now):
            for step in steps:
                self._take(step)
            taken += steps
            assert len(taken) < 1000, f"the plan has no end: {taken[-3:]}"
        self.steps += taken
        return taken

    def _take(self, step: Step) -> None:
        match step:
            case Reload():
                self.begin(Purpose.RELOAD)
            case Replace():
                self.begin(Purpose.REPLACE)
            case StartTemplate(generation, _):
                self.roster.template_started(generation, self._pid(), self.now)
            case EndTemplate(template):
                self.roster.template_ending(template, self.now)
            case AskForStacks(Template() as template) | KillTemplate(template):
                self.roster.template_overdue(template, self.now)
            case SpawnWorker(slot, generation):
                self.roster.worker_ordered(slot, generation, row=0, now=self.now)
            case Recycle(worker, generation):
                self.roster.worker_ordered(worker.slot, generation, row=0, now=self.now)
            case RetireWorker(worker) | KeepConnections(worker):
                self.roster.worker_retiring(worker, self.now)
            case QuitWorker(worker):
                self.roster.worker_quitting(worker, self.now)
            case (
                AskForStacks(Worker() as worker) | AskForLastWords(worker) | KillWorker(worker) | AbandonWorker(worker)
            ):
                self.roster.worker_overdue(worker, self.now)

    def _pid(self) -> int:
        self.pids += 1
        return self.pids

    def load(self) -> None:
        """The template that imports has done so."""
        self.act()
        self.roster.template_loaded(self.loading(), self.now)
        self.act()

    def loading(self) -> Template:
        (template,) = [each for each in self.roster.templates if each.state is State.LOADING]
        return template

    def announce(self, worker: Worker) -> None:
        self.roster.worker_announced(worker, self._pid(), self.now)

    def become_ready(self, worker: Worker) -> None:
        self.announce(worker)
        self.roster.worker_loaded(worker)
        self.roster.worker_ready(worker, self.now)
        self.act()

    def kill(self, slot: int) -> None:
        """kill -9 of the worker that serves ``slot``."""
        (worker,) = [each for each in self.roster.serving() if each.slot == slot]
        self.roster.worker_exited(worker, "killed by SIGKILL", self.now)

    def fail(self) -> None:
        """The worker that was ordered first ends before it serves."""
        self.roster.worker_exited(self.ordered()[0], "exit status 1", self.now)

    def leave(self, *states: State) -> None:
        """Everyone in one of ``states`` ends."""
        for worker in [each for each in self.roster.workers if each.state in states]:
            self.roster.worker_exited(worker, "exit status 0", self.now)
        self.act()

    def end_templates(self) -> None:
        for template in [each for each in self.roster.templates if each.state in (State.ENDING, State.KILLED)]:
            self.roster.template_exited(template, "exit status 0", self.now)
        self.act()

    def ordered(self) -> list[Worker]:
        return [each for each in self.roster.workers if each.state is State.ORDERED]

    def boot_all(self) -> None:
        """Every worker that is ordered, and those that follow from it, become ready; who retires leaves."""
        while ordered := self.ordered():
            self.become_ready(ordered[0])
            self.leave(State.DRAINING)
        self.end_templates()

    def serving(self) -> dict[int, list[int]]:
        """Slot to the generations that serve it."""
        found: dict[int, list[int]] = {}
        for worker in self.roster.serving():
            found.setdefault(worker.slot, []).append(worker.generation)
        return found

    def news(self) -> list[tuple[EventKind, int]]:
        return [(news.kind, news.generation) for news in self.roster.news()]


@pytest.fixture
def house() -> House:
    """Four workers of generation 1 serve."""
    made = House()
    made.load()
    made.boot_all()
    assert made.news() == [(EventKind.READY, 1)]
    return made


def retired(steps: list[Step]) -> list[tuple[int, int]]:
    return [(step.worker.slot, step.worker.generation) for step in steps if isinstance(step, RetireWorker)]


def spawned(steps: list[Step]) -> list[tuple[int, int]]:
    return [(step.slot, step.generation) for step in steps if isinstance(step, SpawnWorker)]


# The start


def test_nobody_is_ordered_before_the_application_is_loaded() -> None:
    house = House()
    assert house.act() == [StartTemplate(1, shares=True)]


def test_ready_is_told_when_every_worker_is() -> None:
    """READY=1 with one of four workers would let a deploy go on too early."""
    made = House(2)
    made.load()
    first, second = made.ordered()
    made.become_ready(first)
    assert made.news() == []
    made.become_ready(second)
    assert made.news() == [(EventKind.READY, 1)]


def test_a_first_start_that_does_not_load_is_told_and_not_repeated() -> None:
    house = House()
    house.act()
    house.roster.template_failed(house.loading(), BROKEN, house.now)
    assert [(news.kind, news.why) for news in house.roster.news()] == [(EventKind.NEVER_STARTED, BROKEN)]
    assert not [step for step in house.act() if isinstance(step, StartTemplate)]


def test_a_template_killed_while_it_imports_is_a_start_that_failed() -> None:
    """os.abort, or memory that ran out."""
    house = House()
    house.act()
    house.roster.template_exited(house.loading(), "killed by SIGABRT", house.now)
    (news,) = house.roster.news()
    assert news.kind == EventKind.NEVER_STARTED
    assert "SIGABRT" in news.why.reason


def test_workers_that_import_for_themselves_and_fail_end_a_first_start() -> None:
    """Each is tried once: what one of them says may hold for that one alone."""
    house = House(2)
    house.load()
    for worker in house.ordered():
        assert house.roster.news() == []
        house.announce(worker)
        house.roster.worker_load_failed(worker, BROKEN, house.now)
    assert [(news.kind, news.why) for news in house.roster.news()] == [(EventKind.NEVER_STARTED, BROKEN)]


def test_an_import_that_a_fork_would_break_is_done_again_by_the_workers() -> None:
    house = House()
    house.act()
    house.roster.template_cannot_share(house.loading(), house.now)
    assert house.act() == [StartTemplate(1, shares=False)]


# Deaths


def test_a_worker_that_dies_is_replaced_at_once(house: House) -> None:
    victim = house.roster.serving()[2]
    house.roster.worker_exited(victim, "killed by SIGKILL", house.now)
    assert house.act() == [SpawnWorker(2, 1)]


def test_workers_that_never_serve_are_tried_again_with_a_growing_delay(house: House) -> None:
    """A bad deploy must not spin the processor."""
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    waits = []
    for _ in range(9):
        house.roster.worker_exited(house.ordered()[0], "exit status 1", house.now)
        assert house.act() == []
        waits.append(house.roster.wake_at(house.now) - house.now)
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
    assert house.roster.wake_at(house.now) == house.now + 0.5
    house.now += 0.5
    assert spawned(house.act()) == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_a_slot_in_a_crash_loop_leaves_the_others_alone(house: House) -> None:
    """What fails in one slot (a core that is broken, a lock that is taken) says nothing of the next."""
    house.kill(0)
    house.act()
    for _ in range(6):
        house.fail()
        house.now = house.roster.wake_at(house.now)
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
    for worker in house.roster.serving():
        house.roster.worker_exited(worker, "killed by SIGSEGV, a crash", house.now)
    while house.now < began + 60:
        pause = house.now
        while not house.act():
            house.now = house.roster.wake_at(house.now)
        longest = max(longest, house.now - pause)
        while ordered := house.ordered():
            house.become_ready(ordered[0])
            starts += 1
        house.now += 0.01
        for worker in house.roster.serving():
            house.roster.worker_exited(worker, "killed by SIGSEGV, a crash", house.now)
    assert starts <= 60 * backoff.RESTARTS_PER_SECOND + max(backoff.RESTARTS_AT_ONCE, 2 * 4)
    assert longest <= 1 / backoff.RESTARTS_PER_SECOND + 1e-6


def test_a_whole_service_that_is_killed_at_once_is_started_at_once() -> None:
    """The kernel, short of memory, may end many workers in one moment."""
    made = House(wanted=64)
    made.load()
    made.boot_all()
    for worker in made.roster.serving():
        made.roster.worker_exited(worker, "killed by SIGKILL", made.now)
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
    assert house.roster.wake_at(house.now) == house.now + 0.5


def test_the_first_worker_after_a_time_without_any_ends_the_delay_of_the_others(house: House) -> None:
    """What every import needed is back, so no slot waits for the rest of its half minute."""
    for slot in range(4):
        house.kill(slot)
    house.act()
    for _ in range(4):
        for _ in house.ordered():
            house.fail()
        house.now = house.roster.wake_at(house.now)
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
        house.now = house.roster.wake_at(house.now)
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
    assert not house.roster.recovered(failed_at, house.now), "the other slots have been well all the time"
    house.now += 1
    house.become_ready(house.ordered()[0])
    house.now += backoff.HEALTHY_SECONDS - 0.1
    assert not house.roster.recovered(failed_at, house.now)
    house.now += 0.2
    assert house.roster.recovered(failed_at, house.now)
    house.kill(0)
    assert house.roster.recovered(failed_at, house.now), "its death does not undo that"


def test_a_template_that_dies_after_each_import_is_replaced_ever_later(house: House) -> None:
    """The first death may be a kill -9; an import whose thread ends the process would burn a processor."""
    waits = []
    for _ in range(6):
        (template,) = [each for each in house.roster.templates if each.state is State.LOADED]
        house.now += 1
        house.roster.template_exited(template, "exit status 0", house.now)
        died = house.now
        while not any(isinstance(step, StartTemplate) for step in house.act()):
            house.now = house.roster.wake_at(house.now)
        waits.append(house.now - died)
        house.roster.template_loaded(house.loading(), house.now)
        house.act()
    assert waits == [0, 0.5, 1, 2, 4, 8]
    house.now += backoff.HEALTHY_SECONDS
    house.roster.template_exited(house.roster.templates[-1], "killed by SIGKILL", house.now)
    assert any(isinstance(step, StartTemplate) for step in house.act())


def die_after_each_import(house: House, times: int) -> None:
    """The next template is loaded ever later."""
    for _ in range(times):
        while not any(each.state is State.LOADING for each in house.roster.templates):
            house.now = house.roster.wake_at(house.now)
            house.act()
        house.roster.template_loaded(house.loading(), house.now)
        house.act()
        house.roster.template_exited(house.roster.templates[-1], "killed by SIGKILL", house.now)
        house.act()


def test_a_worker_that_crashes_does_not_wait_for_the_rest_of_a_dead_templates_delay(house: House) -> None:
    """Templates are killed for their memory, then requests crash the workers: without a template none comes back."""
    house.roster.template_exited(house.roster.templates[0], "killed by SIGKILL", house.now)
    house.act()
    die_after_each_import(house, 8)
    assert house.roster.wake_at(house.now) == house.now + backoff.LAST_DELAY
    house.kill(0)
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + backoff.URGENT_DELAY
    house.now += backoff.URGENT_DELAY
    assert any(isinstance(step, StartTemplate) for step in house.act())


def test_a_reload_that_takes_over_ends_the_delay_of_templates(house: House) -> None:
    house.roster.template_exited(house.roster.templates[0], "killed by SIGKILL", house.now)
    house.act()
    die_after_each_import(house, 8)
    house.roster.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    house.roster.template_exited(house.roster.templates[-1], "killed by SIGKILL", house.now)
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
        assert house.roster.wake_at(house.now) <= house.now + backoff.URGENT_DELAY
        house.now = house.roster.wake_at(house.now)
        assert spawned(house.act()) == [(slot, house.roster.current) for slot in range(4)]


def test_the_last_worker_that_ends_ends_long_delays(house: House) -> None:
    """Neither a slot that has failed for long nor a template whose files are broken waits for half a minute then."""
    house.roster.template_exited(house.roster.templates[0], "killed by SIGKILL", house.now)
    house.act()
    house.roster.template_failed(house.loading(), BROKEN, house.now)
    house.end_templates()
    house.kill(0)
    for _ in range(7):
        while not any(each.state is State.LOADING for each in house.roster.templates):
            house.now = max(house.now, house.roster.wake_at(house.now))
            house.act()
        house.roster.template_failed(house.loading(), BROKEN, house.now)
        house.end_templates()
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + backoff.LAST_DELAY
    for slot in (1, 2, 3):
        house.kill(slot)
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + backoff.URGENT_DELAY


# No process to be had


def test_a_fork_that_fails_is_waited_out_and_no_fault_of_the_code(house: House) -> None:
    house.kill(0)
    house.kill(1)
    house.act()
    waits = []
    for _ in range(3):
        for worker in house.ordered():
            house.roster.worker_not_forked(worker, "no room", house.now)
        assert house.act() == []
        waits.append(house.roster.wake_at(house.now) - house.now)
        house.now += waits[-1]
        assert spawned(house.act()) == [(0, 1), (1, 1)]
    assert waits == [0.5, 1, 2], "two that fail in one try count once"
    assert house.roster.backoff(0).failures == 0


def test_a_reload_that_gets_no_process_ends_with_the_reason(house: House) -> None:
    """Who waits for its end is not left waiting for room that may never come."""
    house.roster.want_reload()
    house.roster.plan(house.now)
    began = house.begin(Purpose.RELOAD)
    while house.roster.coming is not None:
        house.roster.no_process("no room", house.now)
        house.now += 4
    (news,) = house.roster.news()
    assert (news.kind, news.generation) == (EventKind.REFUSED, began)
    assert news.why.reason == "the system has given no process for boot_timeout (60 s): no room"
    assert len(house.serving()) == 4


def test_a_roll_that_gets_no_further_process_goes_back(house: House) -> None:
    house.roster.want_reload()
    house.load()
    while house.roster.rolling is not None:
        for worker in house.ordered():
            house.roster.worker_not_forked(worker, "no room", house.now)
        house.now += 4
        house.act()
    assert house.news() == [(EventKind.WENT_BACK, 2)]
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_first_start_waits_for_processes_as_long_as_it_takes() -> None:
    made = House()
    for _ in range(100):
        made.roster.no_process("no room", made.now)
        made.now += 10
    assert made.news() == []
    assert made.act() == [StartTemplate(1, shares=True)]


def test_the_first_process_that_is_had_ends_that_wait(house: House) -> None:
    house.kill(0)
    house.act()
    house.roster.worker_not_forked(house.ordered()[0], "no room", house.now)
    house.now += 0.5
    house.act()
    house.roster.worker_forked(house.ordered()[0], 4711)
    house.kill(1)
    assert house.act() == [SpawnWorker(1, 1)]


def test_a_roll_waits_for_processes_and_goes_on(house: House) -> None:
    house.roster.want_reload()
    house.load()
    house.roster.worker_not_forked(house.ordered()[0], "no room", house.now)
    assert house.act() == []
    assert house.news() == []
    house.now += 0.5
    assert house.act() == [SpawnWorker(0, 2)]
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(4)}


def test_a_start_waits_for_processes() -> None:
    house = House(1)
    assert house.roster.plan(house.now) == [StartTemplate(1, shares=True)]
    house.roster.no_process("no room", house.now)
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + 0.5
    house.now += 0.5
    house.load()
    house.roster.worker_not_forked(house.ordered()[0], "no room", house.now)
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
        house.roster.worker_not_forked(house.ordered()[0], "no room", house.now)
        house.now += 4
        house.act()
    assert house.news() == [(EventKind.READY, 1)]


def test_an_order_that_cannot_be_given_is_waited_out(house: House) -> None:
    """No descriptors, or a template that is busy: neither says anything about the code."""
    house.kill(0)
    assert house.roster.plan(house.now) == [SpawnWorker(0, 1)]
    house.roster.no_process("no room", house.now)
    assert house.act() == []
    house.now += 0.5
    assert house.act() == [SpawnWorker(0, 1)]


# A worker that does not come to life


def test_a_worker_that_hangs_while_it_starts_shows_its_stacks_and_is_killed(house: House) -> None:
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.now += TIMES.boot
    assert house.act()[0] == AskForStacks(worker)
    house.now += fleet.STACKS_SECONDS
    assert KillWorker(worker) in house.act()


def test_a_worker_that_is_never_forked_is_given_up(house: House) -> None:
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    worker = house.ordered()[0]
    (template,) = house.roster.templates
    house.now += TIMES.boot
    assert house.act()[:2] == [AbandonWorker(worker), KillTemplate(template)]
    assert worker not in house.roster.workers


def test_a_template_that_is_stuck_in_a_fork_is_killed_and_replaced(house: House) -> None:
    """An at-fork hook of the application hangs in it, or in the process that it waits for."""
    house.kill(0)
    house.kill(1)
    house.act()
    (template,) = house.roster.templates
    house.now += TIMES.boot
    steps = house.act()
    assert [step for step in steps if isinstance(step, KillTemplate)] == [KillTemplate(template)], "once"
    assert steps[-2:] == [Replace(), StartTemplate(2, shares=True)]


def test_a_worker_that_was_forked_and_says_nothing_is_killed(house: House) -> None:
    """An at-fork hook hangs in it; its signals are blocked there, so it could not show its stacks."""
    house.kill(0)
    house.act()
    worker = house.ordered()[0]
    house.roster.worker_forked(worker, 4711)
    assert (worker.state, worker.pid) == (State.FORKED, 4711)
    house.now += TIMES.boot
    assert house.act() == [KillWorker(worker)]
    assert house.roster.backoff(0).failures == 1
    house.roster.worker_exited(worker, "killed by SIGKILL", house.now)
    assert house.roster.backoff(0).failures == 1, "one failure counts once"


def test_a_worker_that_dies_in_an_at_fork_hook_is_told_with_its_pid(house: House) -> None:
    house.kill(0)
    house.act()
    worker = house.ordered()[0]
    house.roster.worker_forked(worker, 4711)
    house.roster.worker_exited(worker, "exit status 9", house.now)
    assert house.roster.backoff(0).failures == 1
    assert house.act() == []


def test_a_pid_that_comes_after_the_hello_changes_nothing(house: House) -> None:
    """They come on two channels, and either may be read first."""
    house.kill(0)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.roster.worker_forked(worker, worker.pid)
    assert worker.state is State.STARTING


def test_when_the_template_dies_its_workers_serve_on(house: House) -> None:
    (template,) = house.roster.templates
    house.roster.template_exited(template, "killed by SIGKILL", house.now)
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
    house.roster.worker_load_failed(worker, BROKEN, house.now)
    assert (worker.state, worker.leaving) == (State.LEAVING, False)
    assert house.roster.backoff(0).failures == 1


def test_who_dies_after_its_template_comes_from_the_next_generation(house: House) -> None:
    house.roster.template_exited(house.roster.templates[0], "killed by SIGKILL", house.now)
    house.load()
    house.roster.worker_exited(house.roster.serving()[1], "killed by SIGKILL", house.now)
    assert house.act() == [SpawnWorker(1, 2)]


def test_a_dead_templates_successor_is_no_reload_under_way(house: House) -> None:
    """Or the manager would wait for ever for the READY=1 of the reload before it."""
    house.roster.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    template = house.roster.template(2)
    assert template is not None
    house.roster.template_exited(template, "killed by SIGKILL", house.now)
    house.act()
    house.leave(State.DRAINING)
    assert house.loading().generation == 3
    assert (EventKind.SERVES, 2) in house.news()
    assert not house.roster.reloading


def test_a_generation_serves_although_its_template_has_died_meanwhile(house: House) -> None:
    """Its workers are the ones that answer; what has replaced the template is for workers to come."""
    house.roster.want_reload()
    house.load()
    drainers = []
    while ordered := house.ordered():
        house.become_ready(ordered[0])
        drainers = [each for each in house.roster.workers if each.state is State.DRAINING]
    assert drainers
    house.news()
    (template,) = [each for each in house.roster.templates if each.generation == 2]
    house.roster.template_exited(template, "killed by SIGKILL", house.now)
    house.load()
    assert house.news() == [(EventKind.TEMPLATE_DIED, 2)]
    house.leave(State.DRAINING)
    assert house.news() == [(EventKind.SERVES, 2)]


def test_a_dead_template_that_cannot_be_replaced_is_tried_again_when_a_worker_is_needed(house: House) -> None:
    """The files are broken by now: living workers serve on, and nobody imports broken code without need."""
    house.roster.template_exited(house.roster.templates[0], "killed by SIGKILL", house.now)
    house.act()
    house.roster.template_failed(house.loading(), BROKEN, house.now)
    house.end_templates()
    house.now += 1000
    assert house.act() == []
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    assert house.act() == [Replace(), StartTemplate(3, shares=True)]
    house.roster.template_failed(house.loading(), BROKEN, house.now)
    house.end_templates()
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + 1.0
    assert len(house.roster.serving()) == 3


# A reload


def test_a_new_worker_is_ready_before_an_old_one_retires(house: House) -> None:
    """Start before stop, one slot after the other."""
    house.roster.want_reload()
    house.load()
    for slot in range(4):
        (worker,) = house.ordered()
        assert (worker.slot, worker.generation) == (slot, 2)
        house.announce(worker)
        house.roster.worker_loaded(worker)
        assert house.act() == []
        house.roster.worker_ready(worker, house.now)
        assert retired(house.act()) == [(slot, 1)]
    assert house.serving() == {slot: [2] for slot in range(4)}


def test_a_generation_serves_when_the_last_of_the_old_is_gone(house: House) -> None:
    """Before, an answer of the old code may still come on a kept-alive connection."""
    house.roster.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    draining = [worker for worker in house.roster.workers if worker.state is State.DRAINING]
    assert len(draining) == 4
    for worker in draining:
        assert house.news() == []
        house.roster.worker_exited(worker, "exit status 0", house.now)
    assert house.news() == [(EventKind.SERVES, 2)]


def test_the_old_template_ends_with_its_last_worker(house: House) -> None:
    house.roster.want_reload()
    house.load()
    old = house.roster.templates[0]
    house.boot_all()
    assert EndTemplate(old) in house.steps
    assert [template.generation for template in house.roster.templates] == [2]


def test_the_roll_does_not_wait_for_who_drains(house: House) -> None:
    house.roster.want_reload()
    house.load()
    for _ in range(4):
        house.become_ready(house.ordered()[0])
    assert house.serving() == {slot: [2] for slot in range(4)}


def test_the_surplus_is_bounded(house: House) -> None:
    """Clients that hold the old workers for long must not make each reload add four more."""
    for _ in range(5):
        house.roster.want_reload()
        house.load()
        while house.ordered():
            house.become_ready(house.ordered()[0])
        if house.roster.rolling is not None:
            break
    assert len(house.roster.workers) <= 9


def test_code_that_does_not_load_touches_nothing_that_serves(house: House) -> None:
    house.roster.want_reload()
    house.act()
    house.roster.template_failed(house.loading(), BROKEN, house.now)
    house.act()
    house.end_templates()
    assert [(news.kind, news.why) for news in house.roster.news()] == [(EventKind.REFUSED, BROKEN)]
    assert house.serving() == {slot: [1] for slot in range(4)}
    assert house.act() == []


def test_an_import_that_hangs_shows_its_stacks_and_is_refused(house: House) -> None:
    house.roster.want_reload()
    house.act()
    template = house.loading()
    house.now += TIMES.boot
    assert house.act() == [AskForStacks(template)]
    (news,) = house.roster.news()
    assert news.kind == EventKind.REFUSED
    assert "boot_timeout" in news.why.reason
    house.now += fleet.STACKS_SECONDS
    assert house.act() == [KillTemplate(template)]


def test_a_worker_that_fails_stops_the_roll_and_the_rolled_slots_go_back(house: House) -> None:
    """Half of the answers from new code that does not start would be worse than none."""
    house.roster.want_reload()
    house.load()
    for _ in range(2):
        house.become_ready(house.ordered()[0])
        house.leave(State.DRAINING)
    third = house.ordered()[0]
    house.announce(third)
    house.roster.worker_exited(third, "exit status 9", house.now)
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
    assert [template.generation for template in house.roster.templates] == [1]


def killed_for_memory(house: House, worker: Worker) -> None:
    house.roster.worker_exited(worker, "killed by SIGKILL, sent by the kernel: out of memory", house.now)
    house.roster.killed_for_memory(str(worker), house.now)
    house.act()


def test_a_reload_that_costs_a_worker_its_memory_is_refused_while_it_loads(house: House) -> None:
    """Two generations do not fit; it would go on, and return success."""
    house.roster.want_reload()
    house.act()
    loading, victim = house.loading(), house.roster.serving()[0]
    killed_for_memory(house, victim)
    (news,) = house.roster.news()
    assert (news.kind, news.generation) == (EventKind.REFUSED, 2)
    assert news.why.reason.startswith(f"out of memory: the kernel killed {victim} while two generations were there; ")
    assert EndTemplate(loading) in house.steps
    assert [worker.generation for worker in house.ordered()] == [1], "it is replaced by the code that serves"


def test_a_reload_that_costs_a_worker_its_memory_is_taken_back_while_it_rolls(house: House) -> None:
    house.roster.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.leave(State.DRAINING)
    killed_for_memory(house, next(each for each in house.roster.serving() if each.generation == 1))
    assert house.news() == [(EventKind.GOING_BACK, 2)]
    house.boot_all()
    assert house.news() == [(EventKind.WENT_BACK, 2)]
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_worker_killed_for_memory_when_all_slots_are_taken_over_is_told(house: House) -> None:
    """Nothing is left to go back to; who waits for the reload must hear of it all the same."""
    house.roster.want_reload()
    house.load()
    while house.ordered():
        house.become_ready(house.ordered()[0])
    killed_for_memory(house, next(each for each in house.roster.workers if each.state is State.DRAINING))
    assert house.news() == [(EventKind.COSTLY, 2)]
    house.leave(State.DRAINING)
    assert house.news() == [(EventKind.SERVES, 2)]


def test_a_worker_killed_for_memory_without_a_reload_fails_none(house: House) -> None:
    killed_for_memory(house, house.roster.serving()[0])
    assert house.news() == []


def test_a_template_that_dies_during_its_roll_stops_it(house: House) -> None:
    house.roster.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.leave(State.DRAINING)
    template = house.roster.template(2)
    assert template is not None
    for worker in house.ordered():
        house.roster.worker_exited(worker, "it was never forked", house.now)
    house.roster.template_exited(template, "killed by SIGKILL", house.now)
    house.act()
    house.boot_all()
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_template_that_closes_its_channel_during_its_roll_stops_it(house: House) -> None:
    """An import may close every descriptor it finds: such a template is of no use, and no roll may wait on it."""
    house.roster.want_reload()
    house.load()
    template = house.roster.template(2)
    assert template is not None
    house.roster.template_unreachable(template, house.now)
    house.now += fleet.END_SECONDS
    assert house.act() == [KillTemplate(template)]
    house.roster.template_exited(template, "killed by SIGKILL", house.now)
    house.boot_all()
    assert (EventKind.WENT_BACK, 2) in house.news()
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_the_end_of_a_killed_templates_channel_changes_nothing(house: House) -> None:
    """It comes before its exit is known, and a debugger may hold that back."""
    template = house.roster.template(1)
    assert template is not None
    house.roster.template_overdue(template, house.now)
    house.roster.template_unreachable(template, house.now)
    house.now += 1000
    assert KillTemplate(template) not in house.act()


@pytest.mark.parametrize("seconds", [0.0, fleet.END_SECONDS])
def test_an_import_that_cannot_be_shared_may_say_so_while_it_is_ended(seconds: float) -> None:
    """The report crosses the order of a stop; that is no fault of the template's."""
    house = House()
    house.act()
    template = house.loading()
    house.roster.stop(house.now, house.now)
    house.act()
    house.now += seconds
    house.act()
    deadline = template.deadline
    house.roster.template_cannot_share(template, house.now)
    assert template.deadline == deadline


def test_a_hup_during_a_reload_is_remembered(house: House) -> None:
    """The files may have changed again after the first one read them."""
    house.roster.want_reload()
    house.load()
    house.roster.want_reload()
    assert house.act() == []
    house.boot_all()
    house.load()
    house.boot_all()
    assert house.news() == [(EventKind.SERVES, 2), (EventKind.SERVES, 3)]


def test_a_hup_after_a_refused_reload_loads_what_was_mended(house: House) -> None:
    house.roster.want_reload()
    house.act()
    house.roster.template_failed(house.loading(), BROKEN, house.now)
    house.roster.want_reload()
    house.load()
    house.boot_all()
    assert house.serving() == {slot: [3] for slot in range(4)}


def test_a_worker_that_dies_during_a_roll_comes_back_from_code_known_to_serve(house: House) -> None:
    house.roster.want_reload()
    house.load()
    last = next(worker for worker in house.roster.serving() if worker.slot == 3)
    house.roster.worker_exited(last, "killed by SIGKILL", house.now)
    assert spawned(house.act()) == [(3, 1)]
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(4)}


@pytest.mark.parametrize("storm", [True, False], ids=["requests kill any code", "only the new code crashes"])
def test_a_reload_fails_for_crashes_that_only_its_own_workers_have(house: House, storm: bool) -> None:
    """A request that kills its worker must not keep an operator from a reload, which may well bring the remedy."""
    house.roster.want_reload()
    house.load()
    for _ in range(2):
        house.become_ready(house.ordered()[0])
        if storm:
            old = next(worker for worker in house.roster.serving() if worker.generation == 1 and not worker.leaving)
            house.roster.worker_exited(old, "killed by SIGSEGV", house.now)
        new = next(worker for worker in house.roster.serving() if worker.generation == 2)
        house.roster.worker_exited(new, "killed by SIGSEGV", house.now)
        house.act()
    assert house.roster.rolling == (2 if storm else None)


def test_a_reload_mends_a_start_whose_workers_never_serve() -> None:
    house = House(2)
    house.load()
    for worker in house.ordered():
        house.roster.worker_exited(worker, "killed by SIGSEGV", house.now)
    house.roster.want_reload()
    house.load()
    assert spawned(house.steps)[-2:] == [(0, 2), (1, 2)], "at once, and not after the delay of the old code"
    house.boot_all()
    assert house.news() == [(EventKind.READY, 2)]


def test_a_reload_with_more_workers_adds_slots(house: House) -> None:
    house.wanted_after_reload = 6
    house.roster.want_reload()
    house.load()
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(6)}


def test_a_reload_with_fewer_workers_takes_slots_away(house: House) -> None:
    house.wanted_after_reload = 1
    house.roster.want_reload()
    house.load()
    house.boot_all()
    house.leave(State.DRAINING)
    assert house.serving() == {0: [2]}


def test_a_slot_that_goes_away_gets_no_new_worker(house: House) -> None:
    """It would be started, counted and retired; and its old one serves until the others are there."""
    house.wanted_after_reload = 2
    house.roster.want_reload()
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
    house.roster.want_reload()
    house.load()
    house.fail()
    assert house.news() == [(EventKind.WENT_BACK, 2)]


def test_a_next_reload_does_not_swallow_the_news_of_the_failed_one(house: House) -> None:
    house.roster.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.fail()
    house.roster.want_reload()
    house.load()
    assert house.news() == [(EventKind.GOING_BACK, 2), (EventKind.WENT_BACK, 2)]
    house.boot_all()
    house.leave(State.DRAINING)
    house.end_templates()
    assert house.serving() == {slot: [3] for slot in range(4)}


def test_a_roll_for_which_there_is_no_room_goes_back(house: House) -> None:
    house.roster.want_reload()
    house.load()
    house.roster.worker_exited(house.ordered()[0], "it was never forked", house.now)
    house.act()
    house.roster.want_reload()
    house.act()
    house.roster.template_loaded(house.loading(), house.now)
    assert spawned(house.roster.plan(house.now)) == [(0, 3)]
    house.roster.spawn_failed(0, 3, "every row is taken", house.now)
    house.act()
    house.end_templates()
    assert house.serving() == {slot: [1] for slot in range(4)}


# More and fewer


def test_a_slot_is_added_and_taken_away(house: House) -> None:
    house.roster.want_workers(1)
    assert house.act() == [SpawnWorker(4, 1)]
    house.boot_all()
    house.roster.want_workers(-1)
    assert retired(house.act()) == [(4, 1)]


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("loaded", [True, False])
def test_a_slot_that_is_added_or_taken_away_during_a_reload_stays_so(house: House, more: int, loaded: bool) -> None:
    """The settings were read before: what the operator says after it is the later word, and the log confirms it."""
    house.roster.want_reload()
    house.act()
    if not loaded:
        house.roster.want_workers(more)
    house.load()
    if loaded:
        house.roster.want_workers(more)
    house.boot_all()
    assert house.serving() == {slot: [2] for slot in range(4 + more)}


def test_one_worker_always_stays(house: House) -> None:
    house.roster.want_workers(-10)
    assert house.roster.wanted == 1


# The stop


def test_a_stop_waits_for_the_queue_then_everyone_retires(house: House) -> None:
    house.roster.stop(house.now, house.now + 0.05)
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + 0.05
    house.now += 0.05
    assert len(retired(house.act())) == 4
    assert not house.roster.finished
    house.leave(State.DRAINING)
    house.end_templates()
    assert house.roster.finished


def test_who_does_not_leave_within_the_grace_is_killed(house: House) -> None:
    house.roster.stop(house.now, house.now)
    house.act()
    house.now += GRACE
    assert len([step for step in house.act() if isinstance(step, KillWorker)]) == 4


def test_a_stop_spawns_nobody(house: House) -> None:
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    house.roster.stop(house.now, house.now)
    assert spawned(house.act()) == []
    house.leave(State.DRAINING)
    assert house.roster.workers == []


def test_a_stop_during_a_reload_ends_the_import(house: House) -> None:
    house.roster.want_reload()
    house.act()
    importing = house.loading()
    house.roster.stop(house.now, house.now)
    assert EndTemplate(importing) in house.act()


def test_a_worker_that_says_ready_after_it_was_told_to_retire_drains_on(house: House) -> None:
    """The two crossed."""
    house.roster.want_workers(1)
    house.act()
    (worker,) = house.ordered()
    house.announce(worker)
    house.roster.stop(house.now, house.now)
    house.act()
    house.roster.worker_ready(worker, house.now)
    assert worker.state is State.DRAINING
    assert worker.deadline < math.inf


def test_a_quick_stop_tells_everyone_to_leave_and_kills_soon(house: House) -> None:
    house.roster.stop_quickly(house.now)
    assert len([step for step in house.act() if isinstance(step, QuitWorker)]) == 4
    house.now += fleet.LEAVE_SECONDS
    assert len([step for step in house.act() if isinstance(step, KillWorker)]) == 4


def test_a_quick_stop_overtakes_a_graceful_one(house: House) -> None:
    house.roster.stop(house.now, house.now)
    house.act()
    house.roster.stop_quickly(house.now)
    assert len([step for step in house.act() if isinstance(step, QuitWorker)]) == 4


def test_whose_time_is_over_at_the_moment_of_a_stop_is_only_killed(house: House) -> None:
    """A machine that stood still has both at once; an order to one that is killed would end the master."""
    worker = house.roster.serving()[0]
    house.roster.worker_stopped(worker, house.now + 30)
    house.now += 30
    house.roster.stop(house.now, house.now)
    steps = house.act()
    assert steps[0] == KillWorker(worker)
    assert len(retired(steps)) == 3


def test_a_second_stop_at_the_moment_the_grace_is_over_kills(house: House) -> None:
    house.roster.stop(house.now, house.now)
    house.act()
    house.now += GRACE
    house.roster.stop_quickly(house.now)
    assert {type(step) for step in house.act()} == {KillWorker}


def test_a_start_that_takes_too_long_in_a_slot_just_taken_away_ends_once(house: House) -> None:
    house.roster.want_workers(1)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.now += TIMES.boot
    house.roster.want_workers(-1)
    assert house.act() == [AskForStacks(worker)]


def test_at_a_stop_nobody_hands_on_to_nobody(house: House) -> None:
    """Those that retired before, and still drain, hear it too."""
    house.roster.want_workers(-1)
    (retiring,) = [step.worker for step in house.act() if isinstance(step, RetireWorker)]
    assert retiring.hands_on
    deadline = retiring.deadline
    house.now += 3
    house.roster.stop(house.now, house.now)
    steps = house.act()
    assert steps[0] == KeepConnections(retiring)
    assert (retiring.hands_on, retiring.deadline) == (False, deadline), "it has no more time than before"
    assert len(retired(steps)) == 3
    assert not any(worker.hands_on for worker in house.roster.workers)
    assert house.act() == []


def test_the_last_worker_that_serves_has_nobody_to_hand_on_to() -> None:
    house = House(1)
    house.load()
    house.boot_all()
    (worker,) = house.roster.serving()
    house.roster.worker_hung(worker, house.now)
    house.roster.worker_expiring(worker, house.now)
    house.roster.worker_retiring(worker, house.now)
    assert not worker.hands_on


# A stop with a delay


def test_until_the_delay_is_over_all_goes_on(house: House) -> None:
    house.roster.drain(house.now + 10)
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + 10
    house.kill(0)
    assert house.act() == [SpawnWorker(0, 1)], "who dies is replaced"
    house.boot_all()
    assert len(house.roster.serving()) == 4


def test_nothing_new_begins_while_a_stop_is_near(house: House) -> None:
    house.roster.drain(house.now + 10)
    house.roster.want_reload()
    house.roster.worker_spent(house.roster.serving()[0], "old", house.now)
    assert house.act() == []


def test_a_reload_that_loads_is_given_up_when_a_stop_is_near(house: House) -> None:
    house.roster.want_reload()
    house.act()
    importing = house.loading()
    house.roster.drain(house.now + 10)
    assert house.act() == [EndTemplate(importing)]
    house.roster.template_exited(importing, "killed by SIGTERM", house.now)
    assert house.news() == []
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_a_roll_stands_still_when_a_stop_is_near(house: House) -> None:
    house.roster.want_reload()
    house.load()
    house.become_ready(house.ordered()[0])
    house.roster.drain(house.now + 10)
    house.become_ready(house.ordered()[0])
    assert house.ordered() == []
    assert house.serving() == {0: [2], 1: [2], 2: [1], 3: [1]}


def test_after_the_delay_the_stop_is_as_always(house: House) -> None:
    house.roster.drain(house.now + 10)
    house.now += 10
    house.roster.stop(house.now, house.now)
    assert len(retired(house.act())) == 4
    assert house.roster.stop_at == math.inf


# Hangs


def test_a_hung_worker_leaves_a_hole_at_once(house: House) -> None:
    worker = house.roster.serving()[1]
    house.roster.worker_hung(worker, house.now)
    assert house.act() == [SpawnWorker(1, 1)]
    assert worker.deadline == house.now + fleet.HEAR_SECONDS


def test_a_hung_worker_that_hears_has_the_grace_to_leave(house: House) -> None:
    worker = house.roster.serving()[1]
    house.roster.worker_hung(worker, house.now)
    house.act()
    house.now += 1
    house.roster.worker_expiring(worker, house.now)
    assert (worker.state, worker.deadline) == (State.DRAINING, house.now + GRACE)
    assert house.act() == []
    house.now = worker.deadline
    assert house.act()[0] == KillWorker(worker)


def test_a_hung_worker_that_hears_nothing_is_killed_once(house: House) -> None:
    """It is stopped, or in C code that keeps the interpreter."""
    worker = house.roster.serving()[1]
    house.roster.worker_hung(worker, house.now)
    house.act()
    house.now += fleet.HEAR_SECONDS
    assert house.act() == [AskForLastWords(worker)]
    house.now += fleet.STACKS_SECONDS
    assert house.act() == [KillWorker(worker)]
    house.roster.worker_expiring(worker, house.now)  # crossed
    assert worker.state is State.KILLED
    house.now += 100
    assert KillWorker(worker) not in house.act()


def test_a_second_call_that_hangs_gives_no_more_time(house: House) -> None:
    worker = house.roster.serving()[1]
    house.roster.worker_hung(worker, house.now)
    deadline = worker.deadline
    house.now += 1
    house.roster.worker_hung(worker, house.now)
    assert (worker.state, worker.deadline) == (State.HUNG, deadline)


def test_a_call_that_hangs_in_a_worker_that_drains_gives_it_no_more_time(house: House) -> None:
    house.roster.want_workers(-1)
    house.act()
    (worker,) = [each for each in house.roster.workers if each.state is State.DRAINING]
    deadline = worker.deadline
    house.now += 1
    house.roster.worker_hung(worker, house.now)
    house.roster.worker_expiring(worker, house.now)
    assert (worker.state, worker.deadline) == (State.DRAINING, deadline)
    house.now = deadline - 1
    house.roster.worker_hung(worker, house.now)
    assert worker.deadline == deadline


def test_a_worker_that_drains_and_does_not_hear_is_killed_as_one_that_serves(house: House) -> None:
    """It is stopped, or in C code: who waits on it would wait for all of graceful_timeout."""
    house.roster.want_workers(-1)
    house.act()
    (worker,) = [each for each in house.roster.workers if each.state is State.DRAINING]
    house.roster.worker_hung(worker, house.now)
    house.now += 1
    house.roster.worker_hung(worker, house.now)  # a call in another of its threads
    assert house.act() == []
    house.now += fleet.HEAR_SECONDS - 1
    assert house.act() == [KillWorker(worker)]


def test_a_stop_waits_for_a_hung_worker_to_hear_or_to_be_killed(house: House) -> None:
    worker = house.roster.serving()[1]
    house.roster.worker_hung(worker, house.now)
    house.roster.stop(house.now, house.now)
    assert len(retired(house.act())) == 3
    house.now += fleet.HEAR_SECONDS
    assert AskForLastWords(worker) in house.act()
    house.now += fleet.STACKS_SECONDS
    assert KillWorker(worker) in house.act()


def test_a_worker_that_hears_at_the_last_moment_may_leave_by_itself(house: House) -> None:
    """It was only slow, and its other requests need not be lost."""
    worker = house.roster.serving()[1]
    house.roster.worker_hung(worker, house.now)
    house.now += fleet.HEAR_SECONDS
    house.act()
    house.roster.worker_expiring(worker, house.now)
    assert worker.state is State.DRAINING
    house.now += fleet.STACKS_SECONDS
    assert house.act() == []


def test_a_worker_that_a_signal_has_stopped_must_go_on_in_time(house: House) -> None:
    """No call is in it, so no call is too long; but its idle connections would wait for ever."""
    worker = house.roster.serving()[1]
    house.roster.worker_stopped(worker, house.now + 30)
    assert house.act() == []
    house.now += 30
    assert house.act()[0] == KillWorker(worker)


def test_a_worker_that_goes_on_in_time_is_let_be(house: House) -> None:
    worker = house.roster.serving()[1]
    house.roster.worker_stopped(worker, house.now + 30)
    house.roster.worker_continued(worker)
    house.now += 1000
    assert house.act() == []


def test_a_stopped_worker_that_drains_has_its_own_deadline(house: House) -> None:
    house.roster.want_workers(-1)
    house.act()
    (worker,) = [each for each in house.roster.workers if each.state is State.DRAINING]
    deadline = worker.deadline
    house.roster.worker_stopped(worker, house.now + 1000)
    house.roster.worker_continued(worker)
    assert worker.deadline == deadline


# Recycling


def recycled(steps: list[Step]) -> list[int]:
    return [step.worker.slot for step in steps if isinstance(step, Recycle)]


def spend(house: House, *slots: int) -> None:
    for worker in house.roster.serving():
        if worker.slot in slots:
            house.roster.worker_spent(worker, "it has served 1000 requests", house.now)


def test_a_spent_worker_retires_when_its_successor_is_ready(house: House) -> None:
    """Start before stop."""
    spend(house, 2)
    assert recycled(house.act()) == [2]
    new_program = house.ordered()[0]
    house.announce(new_program)
    house.roster.worker_loaded(new_program)
    assert house.act() == []
    house.roster.worker_ready(new_program, house.now)
    assert retired(house.act()) == [(2, 1)]
    assert house.roster.keeper(2) is new_program
    assert house.news() == []


def test_one_in_four_is_recycled_at_a_time(house: House) -> None:
    """All workers of one start reach their limits together."""
    spend(house, 0, 1, 2, 3)
    assert len(recycled(house.act())) == 1
    house.become_ready(house.ordered()[0])
    assert house.ordered() == [], "the one that was replaced still drains"
    house.leave(State.DRAINING)
    assert len(house.ordered()) == 1


def test_of_many_workers_a_quarter_is_recycled_at_a_time() -> None:
    house = House(9)
    house.load()
    house.boot_all()
    spend(house, *range(9))
    assert len(recycled(house.act())) == 2


def test_a_single_worker_is_recycled_too() -> None:
    house = House(1)
    house.load()
    house.boot_all()
    spend(house, 0)
    assert recycled(house.act()) == [0]


def test_a_lifetime_ends_when_its_time_has_come(house: House) -> None:
    worker = house.roster.serving()[3]
    house.roster.worker_spent(worker, "its age", house.now + 3600)
    assert house.act() == []
    assert house.roster.wake_at(house.now) == house.now + 3600
    house.now += 3600
    assert recycled(house.act()) == [3]


def test_what_spends_a_worker_first_is_what_is_told(house: House) -> None:
    worker = house.roster.serving()[3]
    house.roster.worker_spent(worker, "its age", house.now + 3600)
    house.roster.worker_spent(worker, "its memory", house.now)
    house.roster.worker_spent(worker, "it has served 1000 requests", house.now)
    assert worker.spent_why == "its memory"


def test_nothing_is_recycled_during_a_reload(house: House) -> None:
    house.roster.want_reload()
    house.act()
    spend(house, 0)
    assert house.act() == []
    house.roster.template_loaded(house.loading(), house.now)
    house.act()
    while house.roster.rolling is not None:
        spend(house, *range(4))
        house.become_ready(house.ordered()[0])
        assert recycled(house.steps) == []


def test_nothing_is_recycled_while_a_slot_is_empty(house: House) -> None:
    """Half of them could be on their way out, and the rest dead."""
    house.kill(0)
    spend(house, 1)
    assert house.act() == [SpawnWorker(0, 1)]
    house.become_ready(house.ordered()[0])
    assert recycled(house.steps) == [1]


def test_a_successor_that_fails_is_tried_again_with_a_delay(house: House) -> None:
    """The spent one serves on meanwhile."""
    spend(house, 2)
    house.act()
    house.fail()
    assert house.act() == []
    assert sorted(house.serving()) == [0, 1, 2, 3]
    house.now += 0.5
    assert recycled(house.act()) == [2]


def test_a_stop_recycles_nobody(house: House) -> None:
    spend(house, 2)
    house.roster.stop(house.now, house.now + 0.05)
    assert house.act() == []


# The tables


def test_a_pair_outside_the_table_names_both() -> None:
    with pytest.raises(UnexpectedError, match="Ready while ordered"):
        lifecycle.following(lifecycle.WORKER, State.ORDERED, lifecycle.Transition.READY)


# Every pair that can be, as it must be: here in words of its own, so that a slip in the table is seen.
LIFE = {
    State.ORDERED: "Forked:forked ForkFailed:gone Hello:starting Overdue:failed Exited:failed",
    State.FORKED: "Hello:starting Overdue:killed Exited:failed",
    State.STARTING: "Forked:starting Loaded:starting LoadFailed:leaving Ready:serving Retire:draining Quit:leaving "
    "Overdue:stalled Exited:failed",
    State.STALLED: "Forked:stalled Loaded:stalled LoadFailed:stalled Ready:stalled Quit:leaving Overdue:killed "
    "Exited:gone",
    State.SERVING: "Forked:serving Expire:hung Retire:draining Quit:leaving Overdue:killed Exited:gone",
    State.HUNG: "Expire:hung Expiring:draining Quit:leaving Overdue:deaf Exited:gone",
    State.DEAF: "Expire:deaf Expiring:draining Quit:leaving Overdue:killed Exited:gone",
    State.DRAINING: "Forked:draining Loaded:draining LoadFailed:draining Ready:draining Expire:draining "
    "Expiring:draining Retire:draining Quit:leaving Overdue:killed Exited:gone",
    State.LEAVING: "Forked:leaving Loaded:leaving LoadFailed:leaving Ready:leaving Expiring:leaving Overdue:killed "
    "Exited:gone",
    State.KILLED: "Forked:killed Hello:killed Loaded:killed LoadFailed:killed Ready:killed Expiring:killed Exited:gone",
}
TEMPLATE_LIFE = {
    State.LOADING: "Loaded:loaded LoadFailed:ending Retire:ending Overdue:stalled Exited:gone",
    State.STALLED: "Loaded:stalled LoadFailed:stalled Retire:ending Overdue:killed Exited:gone",
    State.LOADED: "Retire:ending Overdue:killed Exited:gone",
    State.ENDING: "Loaded:ending LoadFailed:ending Retire:ending Overdue:killed Exited:gone",
    State.KILLED: "Loaded:killed LoadFailed:killed Retire:killed Exited:gone",
}


@pytest.mark.parametrize(("table", "life"), [(lifecycle.WORKER, LIFE), (lifecycle.TEMPLATE, TEMPLATE_LIFE)])
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", lifecycle.Transition)
def test_every_state_and_event_leads_where_it_must(
    table: lifecycle.Table, life: dict[State, str], state: State, event: lifecycle.Transition
) -> None:
    """What is not in the table does not happen: it is a bug, or a process that lies."""
    allowed = dict(pair.split(":") for pair in life.get(state, "").split())
    if event.value in allowed:
        assert lifecycle.following(table, state, event).value == allowed[event.value]
    else:
        with pytest.raises(UnexpectedError, match=f"{event.value} while {state.value}"):
            lifecycle.following(table, state, event)


@pytest.mark.parametrize("table", [lifecycle.WORKER, lifecycle.TEMPLATE])
def test_every_life_ends(table: lifecycle.Table) -> None:
    """From each state an exit leads out, or a process could die unnoticed."""
    for state in {state for state, _ in table}:
        assert table[state, lifecycle.Transition.EXITED] in lifecycle.OVER


def test_the_plan_changes_nothing(house: House) -> None:
    """The master asks it whether there is anything to do before it sleeps."""
    house.roster.want_reload()
    assert house.roster.plan(house.now) == house.roster.plan(house.now)


def test_a_day_of_idling_wakes_nobody(house: House) -> None:
    assert house.roster.wake_at(house.now) == math.inf


# Written down, and read by the next program


def happen(house: House, what: int, who: int) -> None:
    """One of the things that may happen, to one of those it may happen to."""
    facts = house.roster
    loading = [each for each in facts.templates if each.state is State.LOADING]
    loaded = [each for each in facts.templates if each.state is State.LOADED]
    serving, ordered = facts.serving(), house.ordered()
    if what == 0 and loading:
        facts.template_loaded(loading[0], house.now)
    elif what == 1 and loading:
        facts.template_failed(loading[0], BROKEN, house.now)
    elif what == 2 and loaded:
        facts.template_exited(loaded[who % len(loaded)], "killed by SIGKILL", house.now)
    elif what == 3 and ordered:
        house.announce(ordered[who % len(ordered)])
    elif what == 4 and ordered:
        house.become_ready(ordered[who % len(ordered)])
    elif what == 5 and facts.workers:
        worker = facts.workers[who % len(facts.workers)]
        if worker.state is not State.ORDERED:
            facts.worker_exited(worker, "killed by SIGKILL", house.now)
    elif what == 6 and serving:
        facts.worker_hung(serving[who % len(serving)], house.now)
    elif what == 7 and serving:
        facts.worker_spent(serving[who % len(serving)], "its age", house.now)
    elif what == 8:
        facts.want_reload()
    elif what == 9:
        facts.want_workers(1 if who % 2 else -1)
    elif what == 10:
        house.now += who
    elif what == 11:
        house.end_templates()
    elif what == 12 and who > 250:
        facts.stop(house.now, house.now)
    house.act()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255)), max_size=60))
def test_a_master_that_is_another_program_each_time_decides_as_one_that_never_is(events: list[tuple[int, int]]) -> None:
    """Whatever state an upgrade meets, the next program does what this one would have done, and tells the same."""
    one, other = House(2), House(2)
    for what, who in [(0, 0), (4, 0), (4, 0), *events]:
        other.roster = again(other.roster)
        happen(one, what, who)
        happen(other, what, who)
        assert dump(other.roster) == dump(one.roster)
    assert list(map(type, other.steps)) == list(map(type, one.steps))
    assert other.roster.news() == one.roster.news()


def test_no_generation_begins_while_the_next_program_is_tried(house: House) -> None:
    """It is to load the next one; what was asked for meanwhile is kept."""
    house.roster.upgrading = True
    house.roster.want_reload()
    (template,) = house.roster.templates
    house.roster.template_exited(template, "killed by SIGKILL", house.now)
    assert house.act() == []
    house.roster.upgrading = False
    assert house.act()[:1] == [Reload()]


def test_an_upgrade_waits_until_the_first_start_and_every_reload_are_over() -> None:
    house = House()
    assert not house.roster.settled
    house.load()
    assert not house.roster.settled
    house.boot_all()
    assert house.roster.settled
    house.roster.want_reload()
    house.load()
    assert not house.roster.settled
    house.boot_all()
    assert house.roster.settled


def test_a_template_that_has_failed_is_ended_whatever_it_says_then(house: House) -> None:
    """An application may write to its channel: it would put its end off for ever."""
    house.roster.begin(Purpose.RELOAD, 1, TIMES, shares=True)
    template = house.roster.template_started(house.roster.coming or 0, 4711, house.now)
    house.roster.template_failed(template, BROKEN, house.now)
    last = template.deadline
    for _ in range(3):
        house.roster.template_loaded(template, house.now)
        house.roster.template_failed(template, BROKEN, house.now + 3.0)
    assert template.deadline == last
    house.roster.template_overdue(template, last)
    house.roster.template_failed(template, BROKEN, last)
    assert template.deadline == NEVER
