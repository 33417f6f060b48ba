"""A model whose workers import for themselves, without processes and without a clock."""

from __future__ import annotations

from collections import Counter

from forkserver.master.model.events import EventKind
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import BOOTING, State, Worker
from forkserver.master.model.plan import (
    AbandonWorker,
    AskForStacks,
    EndTemplate,
    EndWayBack,
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
from harness.model import BROKEN, TIMES, Model


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
            case GiveUp(Worker() as worker):
                self.transitions.given_up(worker.pid, str(worker))
                self.transitions.worker_exited(worker, "killed by SIGKILL", now)
            case SpawnWorker(slot, generation):
                self.transitions.worker_ordered(slot, generation, 0, now)
            case Recycle(worker, generation):
                self.transitions.worker_ordered(worker.slot, generation, 0, now)
            case RetireWorker(worker) | KeepConnections(worker):
                self.transitions.worker_retiring(worker, now)
            case QuitWorker(worker):
                self.transitions.worker_quitting(worker, now)
            case EndWayBack():
                self.rollout.leave_way_back(EventKind.MIXED)
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
        """The processes that were told to leave, or killed, have ended."""
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
