"""A generation whose import is not shared: each worker loads the files on disk; what has retired cannot come back."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkserver.ipc.serialization import dump
from forkserver.master.model.backoff import HEALTHY_SECONDS
from forkserver.master.model.events import EventKind
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import MARGIN_SECONDS, Purpose
from forkserver.master.model.lifecycle import BOOTING, State, Worker
from forkserver.master.model.plan import (
    AbandonWorker,
    AskForStacks,
    EndTemplate,
    EndWayBack,
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
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import STACKS_SECONDS
from harness.model import BROKEN, TIMES, Model, again


class Service(Model):
    """A master without processes, whose generations share no import."""

    def __init__(self, wanted: int = 4, processors: int = 2) -> None:
        super().__init__(Rollout(Fleet(wanted, processors=processors)))
        self.now = 1000.0
        self.pids = 100
        self.steps: list[Step] = []
        self.wanted_after_reload = wanted
        self.shares = False
        self.rollout.begin(Purpose.START, wanted, TIMES, shares=False)

    def act(self) -> None:
        """Take steps until there are none."""
        for _ in range(1000):
            steps = self.plan(self.now)
            if not steps:
                return
            for step in steps:
                self._take(step)
            self.steps += steps
        raise AssertionError(f"the plan has no end: {self.steps[-3:]}")

    def _take(self, step: Step) -> None:
        now = self.now
        match step:
            case Reload():
                self.rollout.begin(Purpose.RELOAD, self.wanted_after_reload, TIMES, self.shares)
            case Replace():
                self.rollout.begin(Purpose.REPLACE, self.fleet.wanted, TIMES, self.rollout.restores())
            case StartTemplate(generation, _):
                self.transitions.template_loaded(self.transitions.template_started(generation, self._pid(), now), now)
            case EndTemplate(template):
                self.transitions.template_ending(template, now)
                self.transitions.template_exited(template, "exit status 0", now)
            case KillTemplate(template):
                self.transitions.template_overdue(template, now)
                self.transitions.template_exited(template, "killed by SIGKILL", now)
            case SpawnWorker(slot, generation):
                self.transitions.worker_ordered(slot, generation, 0, now)
            case Recycle(worker, generation):
                self.transitions.worker_ordered(worker.slot, generation, 0, now)
            case RetireWorker(worker) | KeepConnections(worker):
                self.transitions.worker_retiring(worker, now)
            case QuitWorker(worker):
                self.transitions.worker_quitting(worker, now)
            case EndWayBack():
                self.rollout.way_back_took_too_long()
            case AskForStacks(Worker() as worker) | KillWorker(worker) | AbandonWorker(worker):
                self.transitions.worker_overdue(worker, now)
            case other:
                raise AssertionError(f"{other} was not expected here")

    def _pid(self) -> int:
        self.pids += 1
        return self.pids

    def begin_imports(self) -> list[Worker]:
        """Each worker that is ordered says Hello; returns those that import."""
        self.act()
        for worker in [each for each in self.fleet.workers if each.state is State.ORDERED]:
            self.transitions.worker_announced(worker, self._pid(), self.now)
        self.act()
        return [each for each in self.fleet.workers if each.state is State.STARTING]

    def become_ready(self, worker: Worker) -> None:
        self.transitions.worker_loaded(worker)
        self.transitions.worker_ready(worker, self.now)
        self.act()

    def fail(self, worker: Worker) -> None:
        self.transitions.worker_load_failed(worker, BROKEN, self.now)
        self.act()

    def leave(self) -> None:
        """Whoever was told to leave, or was killed, has ended."""
        over = (State.DRAINING, State.LEAVING, State.KILLED)
        while gone := [each for each in self.fleet.workers if each.state in over]:
            self.transitions.worker_exited(gone[0], "it was told to leave", self.now)
            self.act()

    def boot_all(self) -> None:
        while importing := self.begin_imports():
            self.become_ready(importing[0])
            self.leave()

    def kill(self, slot: int) -> None:
        worker = next(each for each in self.fleet.serving() if each.slot == slot)
        self.transitions.worker_exited(worker, "killed by SIGKILL", self.now)
        self.act()

    def reload(self) -> None:
        self.rollout.want_reload()
        self.act()

    def serving(self) -> dict[int, int]:
        """Generation to the number of its workers that serve."""
        return dict(Counter(each.generation for each in self.fleet.serving()))

    def imports(self) -> list[tuple[int, int]]:
        """Slot and generation of those that import, or are about to."""
        return [(each.slot, each.generation) for each in self.fleet.workers if each.state in BOOTING]

    def news(self) -> list[tuple[EventKind, int]]:
        return [(news.kind, news.generation) for news in self.rollout.take_events()]


@pytest.fixture
def service() -> Service:
    """Four workers of generation 1 serve, on a machine with two processors."""
    made = Service()
    made.boot_all()
    assert made.news() == [(EventKind.READY, 1)]
    return made


# A start


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


# A reload that goes well


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


# A reload that fails


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


# Memory for some of them only


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
    assert service.rollout.way_back_overdue == late
    while service.now < late:
        for worker in service.begin_imports():
            service.fail(worker)
        service.leave()
        service.now = service.wake_at(service.now)
    service.act()
    assert service.news() == [(EventKind.MIXED, 2)]
    assert service.rollout.way_back_overdue == math.inf


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


# Whatever happens


def happen(service: Service, what: int, who: int) -> None:
    """One of the things that may happen, to one of those it may happen to."""
    importing, serving = service.begin_imports() if what < 6 else [], service.fleet.serving()
    if what <= 2 and importing:
        service.become_ready(importing[who % len(importing)])
    elif what == 3 and importing:
        service.fail(importing[who % len(importing)])
    elif what == 4 and serving:
        service.transitions.worker_exited(serving[who % len(serving)], "killed by SIGKILL", service.now)
    elif what == 5 and serving:
        service.transitions.worker_due(serving[who % len(serving)], "its age", service.now)
    elif what == 6:
        service.rollout.want_reload()
    elif what == 7:
        service.leave()
    elif what == 8:
        service.now += who
    elif what == 9 and service.rollout.rolling is not None:
        service.rollout.limit_surplus(service.rollout.rolling, who)
    elif what == 10:
        service.rollout.want_workers(1 if who % 2 else -1)
    service.act()


EVENTS = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_a_reload_always_comes_to_an_end(events: list[tuple[int, int]]) -> None:
    """Whatever has happened: what waits for a reload is answered, well or not, and every slot is served in the end."""
    service = Service(3)
    service.boot_all()
    for what, who in events:
        happen(service, what, who)
        assert len(service.imports()) <= service.fleet.processors
    service.boot_all()
    service.leave()
    service.news()
    service.reload()
    generation = service.rollout.rolling
    for _ in range(30):
        service.boot_all()
        service.leave()
        service.now += 60
        service.act()
    assert generation is not None
    told = service.news()
    failed = {(kind, generation) for kind in (EventKind.REFUSED, EventKind.WENT_BACK, EventKind.MIXED)}
    assert any(kind is EventKind.SERVES and number >= generation for kind, number in told) or failed.intersection(
        told
    ), told
    assert service.rollout.whole()


@settings(max_examples=50, deadline=None)
@given(EVENTS)
def test_the_next_program_decides_as_this_one(events: list[tuple[int, int]]) -> None:
    one, other = Service(2), Service(2)
    for what, who in events:
        other.use(again(other.rollout))
        happen(one, what, who)
        happen(other, what, who)
        assert dump(other.rollout) == dump(one.rollout)
    assert other.rollout.take_events() == one.rollout.take_events()
