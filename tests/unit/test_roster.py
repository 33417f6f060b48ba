"""The rules of supervision, tried without a process and without a clock."""

from __future__ import annotations

import math

import pytest

from forkserver.supervision import lives, roster
from forkserver.supervision.lives import State, Template, UnexpectedError, Worker
from forkserver.supervision.news import Failure, Kind
from forkserver.supervision.plan import (
    AbandonWorker,
    AskForStacks,
    EndTemplate,
    KillTemplate,
    KillWorker,
    QuitWorker,
    Reload,
    Replace,
    RetireWorker,
    SpawnWorker,
    StartTemplate,
    Step,
)
from forkserver.supervision.roster import Purpose, Roster, Times

TIMES = Times(boot=60.0, graceful=30.0)
BROKEN = Failure("it is broken", "Traceback", 3)


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
            case RetireWorker(worker):
                self.roster.worker_retiring(worker, self.now)
            case QuitWorker(worker):
                self.roster.worker_quitting(worker, self.now)
            case AskForStacks(Worker() as worker) | KillWorker(worker) | AbandonWorker(worker):
                self.roster.worker_overdue(worker, self.now)

    def _pid(self) -> int:
        self.pids += 1
        return self.pids

    def load(self) -> None:
        """The template that imports has done so."""
        self.act()
        self.roster.template_loaded(self.loading())
        self.act()

    def loading(self) -> Template:
        (template,) = [each for each in self.roster.templates if each.state is State.LOADING]
        return template

    def announce(self, worker: Worker) -> None:
        self.roster.worker_announced(worker, self._pid())

    def become_ready(self, worker: Worker) -> None:
        self.announce(worker)
        self.roster.worker_loaded(worker)
        self.roster.worker_ready(worker)
        self.act()

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

    def news(self) -> list[tuple[Kind, int]]:
        return [(news.kind, news.generation) for news in self.roster.news()]


@pytest.fixture
def house() -> House:
    """Four workers of generation 1 serve."""
    made = House()
    made.load()
    made.boot_all()
    assert made.news() == [(Kind.READY, 1)]
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
    assert made.news() == [(Kind.READY, 1)]


def test_a_first_start_that_does_not_load_is_told_and_not_repeated() -> None:
    house = House()
    house.act()
    house.roster.template_failed(house.loading(), BROKEN, house.now)
    assert [(news.kind, news.why) for news in house.roster.news()] == [(Kind.NEVER_STARTED, BROKEN)]
    assert not [step for step in house.act() if isinstance(step, StartTemplate)]


def test_a_template_killed_while_it_imports_is_a_start_that_failed() -> None:
    """os.abort, or memory that ran out."""
    house = House()
    house.act()
    house.roster.template_exited(house.loading(), "killed by SIGABRT", house.now)
    (news,) = house.roster.news()
    assert news.kind == Kind.NEVER_STARTED
    assert "SIGABRT" in news.why.reason


def test_workers_that_import_for_themselves_and_fail_end_a_first_start() -> None:
    house = House(2)
    house.load()
    worker = house.ordered()[0]
    house.announce(worker)
    house.roster.worker_load_failed(worker, BROKEN, house.now)
    assert [(news.kind, news.why) for news in house.roster.news()] == [(Kind.NEVER_STARTED, BROKEN)]


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


def test_workers_that_fail_together_count_once(house: House) -> None:
    """Or with many workers one bad moment would mean half a minute without any."""
    for worker in house.roster.serving():
        house.roster.worker_exited(worker, "killed by SIGKILL", house.now)
    house.act()
    for worker in house.ordered():
        house.roster.worker_exited(worker, "exit status 1", house.now)
    assert house.roster.wake_at(house.now) == house.now + 0.5


def test_a_worker_that_serves_ends_the_delay(house: House) -> None:
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    house.roster.worker_exited(house.ordered()[0], "exit status 1", house.now)
    house.now += 0.5
    house.act()
    house.become_ready(house.ordered()[0])
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    assert len(spawned(house.act())) == 1


def test_a_worker_that_hangs_while_it_starts_shows_its_stacks_and_is_killed(house: House) -> None:
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    worker = house.ordered()[0]
    house.announce(worker)
    house.now += TIMES.boot
    assert house.act()[0] == AskForStacks(worker)
    house.now += roster.STACKS_SECONDS
    assert KillWorker(worker) in house.act()


def test_a_worker_that_is_never_forked_is_given_up(house: House) -> None:
    house.roster.worker_exited(house.roster.serving()[0], "killed by SIGKILL", house.now)
    house.act()
    worker = house.ordered()[0]
    house.now += TIMES.boot
    assert house.act()[0] == AbandonWorker(worker)
    assert worker not in house.roster.workers


def test_when_the_template_dies_its_workers_serve_on(house: House) -> None:
    (template,) = house.roster.templates
    house.roster.template_exited(template, "killed by SIGKILL", house.now)
    assert house.act() == [Replace(), StartTemplate(2, shares=True)]
    house.load()
    assert house.news() == [(Kind.TEMPLATE_DIED, 1)]
    assert house.serving() == {slot: [1] for slot in range(4)}


def test_who_dies_after_its_template_comes_from_the_next_generation(house: House) -> None:
    house.roster.template_exited(house.roster.templates[0], "killed by SIGKILL", house.now)
    house.load()
    house.roster.worker_exited(house.roster.serving()[1], "killed by SIGKILL", house.now)
    assert house.act() == [SpawnWorker(1, 2)]


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
        house.roster.worker_ready(worker)
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
    assert house.news() == [(Kind.SERVES, 2)]


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
    assert [(news.kind, news.why) for news in house.roster.news()] == [(Kind.REFUSED, BROKEN)]
    assert house.serving() == {slot: [1] for slot in range(4)}
    assert house.act() == []


def test_an_import_that_hangs_shows_its_stacks_and_is_refused(house: House) -> None:
    house.roster.want_reload()
    house.act()
    template = house.loading()
    house.now += TIMES.boot
    assert house.act() == [AskForStacks(template)]
    (news,) = house.roster.news()
    assert news.kind == Kind.REFUSED
    assert "boot_timeout" in news.why.reason
    house.now += roster.STACKS_SECONDS
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
    assert house.news() == [(Kind.WENT_BACK, 2)]
    house.act()
    for slot in (0, 1):
        (worker,) = house.ordered()
        assert (worker.slot, worker.generation) == (slot, 1)
        assert house.serving()[slot] == [2], "the new one serves until the old one is back"
        house.become_ready(worker)
    house.leave(State.DRAINING)
    house.end_templates()
    assert house.serving() == {slot: [1] for slot in range(4)}
    assert [template.generation for template in house.roster.templates] == [1]


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


def test_a_hup_during_a_reload_is_remembered(house: House) -> None:
    """The files may have changed again after the first one read them."""
    house.roster.want_reload()
    house.load()
    house.roster.want_reload()
    assert house.act() == []
    house.boot_all()
    house.load()
    house.boot_all()
    assert house.news() == [(Kind.SERVES, 2), (Kind.SERVES, 3)]


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


def test_a_reload_mends_a_start_whose_workers_never_serve() -> None:
    house = House(2)
    house.load()
    for worker in house.ordered():
        house.roster.worker_exited(worker, "killed by SIGSEGV", house.now)
    house.roster.want_reload()
    house.load()
    assert spawned(house.steps)[-2:] == [(0, 2), (1, 2)], "at once, and not after the delay of the old code"
    house.boot_all()
    assert house.news() == [(Kind.READY, 2)]


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


def test_a_roll_for_which_there_is_no_room_goes_back(house: House) -> None:
    house.roster.want_reload()
    house.load()
    house.roster.worker_exited(house.ordered()[0], "it was never forked", house.now)
    house.act()
    house.roster.want_reload()
    house.act()
    house.roster.template_loaded(house.loading())
    assert spawned(house.roster.plan(house.now)) == [(0, 3)]
    house.roster.spawn_failed(3, "every row is taken", house.now)
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
    house.now += TIMES.graceful
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
    house.roster.worker_ready(worker)
    assert worker.state is State.DRAINING
    assert worker.deadline < math.inf


def test_a_quick_stop_tells_everyone_to_leave_and_kills_soon(house: House) -> None:
    house.roster.stop_quickly(house.now)
    assert len([step for step in house.act() if isinstance(step, QuitWorker)]) == 4
    house.now += roster.LEAVE_SECONDS
    assert len([step for step in house.act() if isinstance(step, KillWorker)]) == 4


def test_a_quick_stop_overtakes_a_graceful_one(house: House) -> None:
    house.roster.stop(house.now, house.now)
    house.act()
    house.roster.stop_quickly(house.now)
    assert len([step for step in house.act() if isinstance(step, QuitWorker)]) == 4


# The tables


def test_a_pair_outside_the_table_names_both() -> None:
    with pytest.raises(UnexpectedError, match="Ready while ordered"):
        lives.following(lives.WORKER, State.ORDERED, lives.Event.READY)


@pytest.mark.parametrize("table", [lives.WORKER, lives.TEMPLATE])
def test_every_life_ends(table: lives.Table) -> None:
    """From each state an exit leads out, or a process could die unnoticed."""
    for state in {state for state, _ in table}:
        assert table[state, lives.Event.EXITED] in lives.OVER


def test_the_plan_changes_nothing(house: House) -> None:
    """The master asks it whether there is anything to do before it sleeps."""
    house.roster.want_reload()
    assert house.roster.plan(house.now) == house.roster.plan(house.now)


def test_a_day_of_idling_wakes_nobody(house: House) -> None:
    assert house.roster.wake_at(house.now) == math.inf
