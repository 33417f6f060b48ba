"""One event costs the master the same with ten workers as with a thousand."""

from __future__ import annotations

import pytest

from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.lifecycle import PRESENT, State
from forkserver.master.model.plan import RetireWorker, SpawnWorker, StartTemplate
from forkserver.master.model.rollout import Rollout
from harness.model import Model

NOW = 1000.0


class Reload(Model):
    """A service of ``workers`` that starts and is then reloaded, slot by slot, without a process."""

    def __init__(self, workers: int) -> None:
        super().__init__(Rollout(Fleet(workers)))
        self.workers = workers
        self.events = 0
        self._roll(Purpose.START)
        self._before = self.fleet.index.looked_at
        self.events = 0
        self._roll(Purpose.RELOAD)

    @property
    def looks_per_event(self) -> float:
        """Slots that were looked at in the reload, for each thing that has happened."""
        return (self.fleet.index.looked_at - self._before) / self.events

    def _roll(self, purpose: Purpose) -> None:
        self.rollout.begin(purpose, self.workers, Times(60.0, 30.0), shares=True)
        self._act()
        self.transitions.template_loaded(self.fleet.templates[-1], NOW)
        self._act()
        while booting := list(self.fleet.index.booting):
            for worker in booting:
                self.transitions.worker_announced(worker, 100 + self.events, NOW)
                self.transitions.worker_ready(worker, NOW)
                self.events += 2
                self._act()
            for worker in [each for each in self.fleet.index.timed if each.state is State.DRAINING]:
                self.transitions.worker_exited(worker, "exit status 0", NOW)
                self.events += 1
                self._act()

    def _act(self) -> None:
        while steps := self.plan(NOW):
            for step in steps:
                match step:
                    case StartTemplate(generation, _):
                        self.transitions.template_started(generation, 99, NOW)
                    case SpawnWorker(slot, generation):
                        self.transitions.worker_ordered(slot, generation, 0, NOW)
                    case RetireWorker(worker):
                        self.transitions.worker_retiring(worker, NOW)
                    case _:
                        template = next(each for each in self.fleet.templates if each.state is State.LOADED)
                        self.transitions.template_ending(template, NOW)
                        self.transitions.template_exited(template, "exit status 0", NOW)
        self.wake_at(NOW)


@pytest.mark.parametrize("workers", [16, 128, 1024])
def test_a_reload_looks_at_a_slot_a_few_times_however_many_there_are(workers: int) -> None:
    """Each event touches one slot; a change of what is outdated looks at every slot once, twice in a reload."""
    reload = Reload(workers)
    assert len(reload.fleet.serving()) == workers
    assert {each.generation for each in reload.fleet.serving()} == {2}
    assert reload.looks_per_event < 3


def test_the_index_is_what_the_facts_say() -> None:
    reload = Reload(8)
    reload.transitions.worker_exited(reload.fleet.serving()[3], "killed by SIGKILL", NOW)
    reload.rollout.want_workers(-2)
    index = reload.fleet.index
    for slot in range(10):
        here = [each for each in reload.fleet.workers if each.slot == slot]
        present = [each for each in here if each.state in PRESENT]
        assert index.of(slot) == here
        assert (slot in index.empty) == (slot < reload.fleet.wanted and not present)
        assert (slot in index.unkept) == (slot < reload.fleet.wanted and reload.fleet.keeper(slot) is None)
        assert (slot in index.crowded) == (slot >= reload.fleet.wanted and bool(present))
    assert set(index.serving) == {each for each in reload.fleet.workers if each.state is State.SERVING}
