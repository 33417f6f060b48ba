"""One event costs the master the same with ten workers as with a thousand."""

from __future__ import annotations

import pytest

from forkserver.master.model.fleet import Roster
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.lifecycle import PRESENT, State
from forkserver.master.model.plan import RetireWorker, SpawnWorker, StartTemplate

NOW = 1000.0


class Reload:
    """A service of ``workers`` that starts and is then reloaded, slot by slot, without a process."""

    def __init__(self, workers: int) -> None:
        self.roster = Roster(workers)
        self.workers = workers
        self.events = 0
        self._roll(Purpose.START)
        self._before = self.roster.index.looked_at
        self.events = 0
        self._roll(Purpose.RELOAD)

    @property
    def looks_per_event(self) -> float:
        """Slots that were looked at in the reload, for each thing that has happened."""
        return (self.roster.index.looked_at - self._before) / self.events

    def _roll(self, purpose: Purpose) -> None:
        roster = self.roster
        roster.begin(purpose, self.workers, Times(60.0, 30.0), shares=True)
        self._act()
        roster.template_loaded(roster.templates[-1], NOW)
        self._act()
        while booting := list(roster.index.booting):
            for worker in booting:
                roster.worker_announced(worker, 100 + self.events, NOW)
                roster.worker_ready(worker, NOW)
                self.events += 2
                self._act()
            for worker in [each for each in roster.index.timed if each.state is State.DRAINING]:
                roster.worker_exited(worker, "exit status 0", NOW)
                self.events += 1
                self._act()

    def _act(self) -> None:
        while steps := self.roster.plan(NOW):
            for step in steps:
                match step:
                    case StartTemplate(generation, _):
                        self.roster.template_started(generation, 99, NOW)
                    case SpawnWorker(slot, generation):
                        self.roster.worker_ordered(slot, generation, 0, NOW)
                    case RetireWorker(worker):
                        self.roster.worker_retiring(worker, NOW)
                    case _:
                        template = next(each for each in self.roster.templates if each.state is State.LOADED)
                        self.roster.template_ending(template, NOW)
                        self.roster.template_exited(template, "exit status 0", NOW)
        self.roster.wake_at(NOW)


@pytest.mark.parametrize("workers", [16, 128, 1024])
def test_a_reload_looks_at_a_slot_a_few_times_however_many_there_are(workers: int) -> None:
    """Each event touches one slot; a change of what is outdated looks at every slot once, twice in a reload."""
    reload = Reload(workers)
    assert len(reload.roster.serving()) == workers
    assert {each.generation for each in reload.roster.serving()} == {2}
    assert reload.looks_per_event < 3


def test_the_index_is_what_the_facts_say() -> None:
    roster = Reload(8).roster
    roster.worker_exited(roster.serving()[3], "killed by SIGKILL", NOW)
    roster.want_workers(-2)
    index = roster.index
    for slot in range(10):
        here = [each for each in roster.workers if each.slot == slot]
        present = [each for each in here if each.state in PRESENT]
        assert index.of(slot) == here
        assert (slot in index.empty) == (slot < roster.wanted and not present)
        assert (slot in index.unkept) == (slot < roster.wanted and roster.keeper(slot) is None)
        assert (slot in index.crowded) == (slot >= roster.wanted and bool(present))
    assert set(index.serving) == {each for each in roster.workers if each.state is State.SERVING}
