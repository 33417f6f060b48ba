"""A master's model without processes and without a clock: steps are taken and things happen when a test says so."""

from __future__ import annotations

import json
from typing import SupportsIndex, overload

from forkserver.ipc.serialization import dump, load
from forkserver.master.model import plan
from forkserver.master.model.events import EventKind, Failure
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.lifecycle import State, Template, Worker
from forkserver.master.model.plan import (
    AbandonWorker,
    AskForLastWords,
    AskForStacks,
    EndTemplate,
    GiveUp,
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
from forkserver.master.model.transitions import REPORT_SECONDS, Transitions

TIMES = Times(boot=60.0, graceful=30.0)
GRACE = TIMES.graceful + REPORT_SECONDS  # a worker says what it holds, and leaves by itself
BROKEN = Failure("it is broken", "Traceback", 3)


def again(rollout: Rollout) -> Rollout:
    """``rollout`` as the next program reads it."""
    return load(Rollout, json.loads(json.dumps(dump(rollout))))


class Steps(list[Step]):
    """Steps that are equal to others of the same classes only; named tuples alone compare their fields."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and [(type(each), each) for each in self] == [
            (type(each), each) for each in other
        ]

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: SupportsIndex) -> Step: ...
    @overload
    def __getitem__(self, at: slice) -> Steps: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Step | Steps:
        return Steps(super().__getitem__(at)) if isinstance(at, slice) else super().__getitem__(at)


class Model:
    """Fleet, rollout and their transitions."""

    def __init__(self, rollout: Rollout) -> None:
        self.use(rollout)

    def use(self, rollout: Rollout) -> None:
        """Go on with ``rollout``."""
        self.rollout = rollout
        self.fleet = rollout.fleet
        self.transitions = Transitions(rollout)

    def plan(self, now: float) -> Steps:
        return Steps(plan.plan(self.fleet, self.rollout, now))

    def wake_at(self, now: float) -> float:
        return plan.wake_at(self.fleet, self.rollout, now)


class House(Model):
    """A master without processes: it takes every step of the plan, and things happen when a test says so."""

    def __init__(self, wanted: int = 4) -> None:
        super().__init__(Rollout(Fleet(wanted)))
        self.now = 1000.0
        self.pids = 100
        self.steps: list[Step] = []
        self.wanted_after_reload = wanted
        self.begin(Purpose.START)

    def begin(self, purpose: Purpose) -> int:
        return self.rollout.begin(purpose, self.wanted_after_reload, TIMES, shares=True)

    def act(self) -> Steps:
        """Take steps until there are none; returns them."""
        taken = Steps()
        assert repr(Model(again(self.rollout)).plan(self.now)) == repr(self.plan(self.now)), (
            "the next program disagrees"
        )
        while steps := self.plan(self.now):
            for step in steps:
                self._take(step)
            taken.extend(steps)
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
                self.transitions.template_started(generation, self._pid(), self.now)
            case EndTemplate(template):
                self.transitions.template_ending(template, self.now)
            case AskForStacks(Template() as template) | KillTemplate(template):
                self.transitions.template_overdue(template, self.now)
            case GiveUp(process):
                self.transitions.given_up(process.pid, str(process))
                if isinstance(process, Template):
                    self.transitions.template_exited(process, "killed by SIGKILL", self.now)
                else:
                    self.transitions.worker_exited(process, "killed by SIGKILL", self.now)
            case SpawnWorker(slot, generation):
                self.transitions.worker_ordered(slot, generation, row=0, now=self.now)
            case Recycle(worker, generation):
                self.transitions.worker_ordered(worker.slot, generation, row=0, now=self.now)
            case RetireWorker(worker) | KeepConnections(worker):
                self.transitions.worker_retiring(worker, self.now)
            case QuitWorker(worker):
                self.transitions.worker_quitting(worker, self.now)
            case (
                AskForStacks(Worker() as worker) | AskForLastWords(worker) | KillWorker(worker) | AbandonWorker(worker)
            ):
                self.transitions.worker_overdue(worker, self.now)

    def _pid(self) -> int:
        self.pids += 1
        return self.pids

    def load(self) -> None:
        """The template that imports has done so."""
        self.act()
        self.transitions.template_loaded(self.loading(), self.now)
        self.act()

    def loading(self) -> Template:
        (template,) = [each for each in self.fleet.templates if each.state is State.LOADING]
        return template

    def announce(self, worker: Worker) -> None:
        self.transitions.worker_announced(worker, self._pid(), self.now)

    def become_ready(self, worker: Worker) -> None:
        self.announce(worker)
        self.transitions.worker_loaded(worker)
        self.transitions.worker_ready(worker, self.now)
        self.act()

    def kill(self, slot: int) -> None:
        """kill -9 of the worker that serves ``slot``."""
        (worker,) = [each for each in self.fleet.serving() if each.slot == slot]
        self.transitions.worker_exited(worker, "killed by SIGKILL", self.now)

    def fail(self) -> None:
        """The worker that was ordered first ends before it serves."""
        self.transitions.worker_exited(self.ordered()[0], "exit status 1", self.now)

    def leave(self, *states: State) -> None:
        """Everyone in one of ``states`` ends."""
        for worker in [each for each in self.fleet.workers if each.state in states]:
            self.transitions.worker_exited(worker, "exit status 0", self.now)
        self.act()

    def end_templates(self) -> None:
        for template in [each for each in self.fleet.templates if each.state in (State.ENDING, State.KILLED)]:
            self.transitions.template_exited(template, "exit status 0", self.now)
        self.act()

    def ordered(self) -> list[Worker]:
        return [each for each in self.fleet.workers if each.state is State.ORDERED]

    def boot_all(self) -> None:
        """Every worker that is ordered, and those that follow from it, become ready; who retires leaves."""
        while ordered := self.ordered():
            self.become_ready(ordered[0])
            self.leave(State.DRAINING)
        self.end_templates()

    def serving(self) -> dict[int, list[int]]:
        """Slot to the generations that serve it."""
        found: dict[int, list[int]] = {}
        for worker in self.fleet.serving():
            found.setdefault(worker.slot, []).append(worker.generation)
        return found

    def news(self) -> list[tuple[EventKind, int]]:
        return [(news.kind, news.generation) for news in self.rollout.take_events()]


def retired(steps: list[Step]) -> list[tuple[int, int]]:
    return [(step.worker.slot, step.worker.generation) for step in steps if isinstance(step, RetireWorker)]


def spawned(steps: list[Step]) -> list[tuple[int, int]]:
    return [(step.slot, step.generation) for step in steps if isinstance(step, SpawnWorker)]
