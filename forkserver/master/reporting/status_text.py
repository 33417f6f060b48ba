"""The status in words: the line that systemd and ``forkserverctl status`` show, and what becomes of a worker's slot.

The reporter notes here what it has logged (why workers have not come to serve, why there is no template, which
generation served when a reload failed); everything else follows from the model.
"""

from __future__ import annotations

from typing import Final

from forkserver.linux.common.counted import count_of
from forkserver.master.control.reload_waiters import ReloadWaiters
from forkserver.master.model.generation import MARGIN_SECONDS
from forkserver.master.model.lifecycle import Worker
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.shortage import ProcessShortage
from forkserver.worker.fork_safety.sharing_advice import UNSEEN, WAY_OUT

NONE_LEFT: Final = "no code that loads is left: every request is answered 503 until a file changes"
LOADS_FILES: Final = "loads the files on disk, which a deploy that failed may have left changed"
_SHOWN: Final = 3  # reasons in a status line
_REASON: Final = 200  # characters of one


class StatusText:
    """Words for the state of ``rollout`` and its fleet."""

    def __init__(self, rollout: Rollout, reloads: ReloadWaiters) -> None:
        self._rollout = rollout
        self._fleet = rollout.fleet
        self._reloads = reloads
        self.served_then = 0  # the generation that served when the last reload failed
        self.reasons: dict[int, str] = {}  # why the last worker of a slot did not become ready
        self.shortage = ProcessShortage()
        self.no_template = ""  # why a template that died is not replaced

    def end(self, worker: Worker, cause: str, remains: str, now: float) -> str:
        """The end of a worker, by which ``cause``, with what of it ``remains`` and what follows."""
        unended = worker.pid in self._fleet.unended
        end = f"{worker} counts as ended: {cause}" if unended else f"{worker} ended: {cause}"
        return "; ".join(filter(None, (end, remains, self.prospect(worker, now))))

    def prospect(self, worker: Worker, now: float) -> str:
        """What happens in the slot of a worker that has ended."""
        fleet, rollout = self._fleet, self._rollout
        if worker.leaving or worker.slot >= fleet.wanted:
            return "it was leaving anyway"
        if fleet.stopping:
            return "it is not replaced: the service stops"
        if fleet.present(worker.slot):
            return "its replacement is there already"
        if self.unreplaced():
            return "it is not replaced yet: there is no template"
        if worker.generation in fleet.outdated:
            return ""  # what becomes of its generation is told apart
        wait = self.wait(worker, now)
        how = f"it is replaced in {wait:.1f} s" if wait > 0 else "it is replaced"
        return f"{how} by one that {LOADS_FILES}" if rollout.files_changed else how

    def wait(self, worker: Worker, now: float) -> float:
        """Seconds until a new worker is tried, at most 0 where that is now."""
        return max(self._fleet.retry_at(worker.slot), self._fleet.forks.retry_at) - now

    def line(self, figures: str = "") -> str:
        """How the service stands, in a line; ``figures`` go behind the workers."""
        fleet, rollout = self._fleet, self._rollout
        if not rollout.serving_generation:
            begun = f"starting: {self.counted()}" if fleet.serving() else "starting"
            return "; ".join((begun, *self._missing()))
        how = "draining" if fleet.draining else "maintenance, answering 503" if fleet.maintenance else ""
        counted = ", ".join(filter(None, (self.counted(), figures)))
        risk = "a crash would load the files on disk" if rollout.files_changed and not fleet.stopping else ""
        old = f"workers of generation {rollout.serving_generation} finish what they have begun"
        finishing = old if self._taken_over_by() else ""
        headline = f"{self._headline()}: {counted}"
        parts = headline, finishing, *self._missing(), self.unreplaced(), self._unended(), risk, how
        return "; ".join(filter(None, parts))

    def unreplaced(self) -> str:
        """That workers that end are not replaced, and why; empty where they are."""
        fleet, rollout = self._fleet, self._rollout
        if not rollout.replace_failures or fleet.stopping or fleet.template(rollout.current):
            return ""
        return ": ".join(filter(None, ("no template, so no worker is replaced", self.no_template[:_REASON])))

    def _unended(self) -> str:
        """Which killed processes have not ended."""
        pids = sorted(self._fleet.unended)
        count = count_of(len(pids), "killed process has", "killed processes have")
        return f"{count} not ended, pid {', '.join(map(str, pids[:_SHOWN]))}" if pids else ""

    def _missing(self) -> list[str]:
        """Why slots are not served, as far as their workers have failed or the kernel has refused them."""
        known = (slot for slot in self._rollout.failing if slot in self.reasons)
        shown = [f"worker {slot + 1}: {self.reasons[slot][:_REASON]}" for slot in known]
        more = [f"{len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
        refused = [f"no new process: {self.shortage.why[:_REASON]}"] if self.shortage.why else []
        return shown[:_SHOWN] + more + (refused if self._fleet.serving_count < self._fleet.wanted else [])

    def _headline(self) -> str:
        fleet, rollout = self._fleet, self._rollout
        if fleet.stopping:
            return "stopping"
        coming = rollout.coming or rollout.rolling
        begun = f"loading generation {coming}; " if rollout.reloading and not fleet.draining else ""
        newer = self._taken_over_by()
        serves = f"generation {rollout.serving_generation} serves"
        if newer:
            serves = f"generation {newer} takes all new requests"
        if rollout.broken:
            return begun + "; ".join(filter(None, (self._reloads.last_failure, NONE_LEFT)))
        if not (failure := self._reloads.last_failure):
            return begun + serves
        # A template that died meanwhile was replaced, by one that has loaded the files on disk.
        return begun + (
            f"{failure}; since then {serves}" if rollout.serving_generation > self.served_then > 0 else failure
        )

    def _taken_over_by(self) -> int:
        """The generation of which all workers are that serve, while one of before only finishes; 0 where none does."""
        serving, before = self._fleet.index.serving, self._rollout.serving_generation
        if self._fleet.stopping or self._rollout.reloading or not self._fleet.index.generations[before] or not serving:
            return 0
        oldest = min(worker.generation for worker in serving)
        return oldest if oldest > before else 0

    def mixed(self, generation: int) -> str:
        """Which code serves where workers of a ``generation`` that failed stay, as those of before cannot come back."""
        fleet, before = self._fleet, self._rollout.serving_generation
        if generation == self._rollout.current:
            older = sum(worker.generation < generation for worker in fleet.serving())
            kept = f"{count_of(older, 'worker')} of before {'serves' if older == 1 else 'serve'} on" if older else ""
            return f"generation {generation} had taken over, and has lost workers; {kept or 'no worker serves'}"
        count = fleet.staying(generation)
        new = f"{count_of(count, 'worker')} of generation {generation}"
        if any(worker.generation != generation for worker in fleet.serving()):
            return f"generation {before} serves beside {new}, because others of it had ended"
        return f"{new} {'serves' if count == 1 else 'serve'}, because those of generation {before} had ended"

    def counted(self) -> str:
        fleet = self._fleet
        count = fleet.serving_count
        if fleet.stopping or not 0 < count < fleet.wanted:
            return count_of(count, "worker")
        return f"{count} of {count_of(fleet.wanted, 'worker')}"

    def longest_leave(self) -> float:
        """Seconds that a stop may take at most, what is killed at its end included."""
        return max((each.times.graceful for each in self._fleet.generations.values()), default=0.0) + MARGIN_SECONDS


def not_shared(reason: str) -> str:
    """Why an import is not shared: what it left behind with the way out, or that this could not be looked for."""
    if reason.endswith(UNSEEN):
        return f"{reason}; mount proc at /proc, or set preload=on where it is known to leave nothing"
    return f"the import left what processes cannot share: {reason}; {WAY_OUT}"
