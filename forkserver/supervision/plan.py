"""The steps that close the gap between the workers wanted and the workers alive.

It promises to be arithmetic: give it a roster and a time and it answers, the same each time, and changes nothing. It
refuses to act; and after each step taken, the master tells the roster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from forkserver.supervision.lives import BOOTING, State, Template, Worker

if TYPE_CHECKING:
    from forkserver.supervision.roster import Roster

SURPLUS: Final = 2  # times the workers wanted: more than that do not live at once, however slowly the old ones drain


@dataclass(frozen=True)
class Reload:
    """Read the settings again and begin a generation."""


@dataclass(frozen=True)
class Replace:
    """Begin a generation in place of a template that died."""


@dataclass(frozen=True)
class StartTemplate:
    generation: int
    shares: bool


@dataclass(frozen=True)
class EndTemplate:
    template: Template


@dataclass(frozen=True)
class AskForStacks:
    """It took too long to start: have it write where it stands, before it is killed."""

    process: Template | Worker


@dataclass(frozen=True)
class KillTemplate:
    template: Template


@dataclass(frozen=True)
class SpawnWorker:
    slot: int
    generation: int


@dataclass(frozen=True)
class RetireWorker:
    worker: Worker


@dataclass(frozen=True)
class QuitWorker:
    worker: Worker


@dataclass(frozen=True)
class KillWorker:
    worker: Worker


@dataclass(frozen=True)
class AbandonWorker:
    """Give up on a worker that its template has not forked."""

    worker: Worker


Step = (
    Reload
    | Replace
    | StartTemplate
    | EndTemplate
    | AskForStacks
    | KillTemplate
    | SpawnWorker
    | RetireWorker
    | QuitWorker
    | KillWorker
    | AbandonWorker
)


def plan(roster: Roster, now: float) -> list[Step]:
    """What is to be done at ``now``, most urgent first."""
    steps = _overdue(roster, now)
    if roster.stopping:
        steps += _departures(roster, now)
    else:
        steps += _generations(roster, now)
        steps += _slots(roster, now)
    return steps + _spent_templates(roster)


def _overdue(roster: Roster, now: float) -> list[Step]:
    steps = [_too_late(worker) for worker in roster.workers if worker.deadline <= now]
    for template in (each for each in roster.templates if each.deadline <= now):
        steps += [AskForStacks(template) if template.state is State.LOADING else KillTemplate(template)]
    return steps


def _too_late(worker: Worker) -> Step:
    if worker.state is State.ORDERED:
        return AbandonWorker(worker)
    return AskForStacks(worker) if worker.state is State.STARTING else KillWorker(worker)


def _departures(roster: Roster, now: float) -> list[Step]:
    if roster.quick:
        leaving = (State.STARTING, State.STALLED, State.SERVING, State.DRAINING)
        return [QuitWorker(worker) for worker in roster.workers if worker.state in leaving]
    if now < roster.retire_at:
        return []
    return [RetireWorker(worker) for worker in roster.workers if worker.state in (State.STARTING, State.SERVING)]


def _generations(roster: Roster, now: float) -> list[Step]:
    """What is to be done about the code that workers come from."""
    if roster.coming is not None:
        loading = any(each.generation == roster.coming and each.state is State.LOADING for each in roster.templates)
        return [] if loading else [StartTemplate(roster.coming, roster.generations[roster.coming].shares)]
    if roster.rolling is not None or not roster.current:
        return []
    if roster.reload_wanted:
        return [Reload()]
    # At once the first time; after a failure only when a worker is needed, and later each time.
    needed = not roster.replace_failures or _holes(roster)
    if roster.template(roster.current) is None and needed and now >= roster.replace_at:
        return [Replace()]
    return []


def _holes(roster: Roster) -> list[int]:
    return [slot for slot in range(roster.wanted) if not roster.present(slot)]


def _slots(roster: Roster, now: float) -> list[Step]:
    source = _source_for_holes(roster)
    if source is not None:
        # Only a generation that is known to serve is tried again and again, so only it must wait between the tries.
        due = now >= roster.retry_at or source == roster.rolling
        steps: list[Step] = [SpawnWorker(slot, source) for slot in _holes(roster) if due]
    else:
        rolled = _next_to_roll(roster) if now >= roster.retry_at else None
        steps = [rolled] if rolled else []
    return steps + _redundant(roster)


def _source_for_holes(roster: Roster) -> int | None:
    """The generation that fills an empty slot: the one known to serve; while that fails too, the one that rolls in."""
    if not _holes(roster):
        return None
    serving = roster.current if roster.template(roster.current) else None
    coming_in = roster.rolling if roster.rolling is not None and roster.template(roster.rolling) else None
    if coming_in is not None and (serving is None or roster.failures):
        return coming_in
    return serving


def _next_to_roll(roster: Roster) -> SpawnWorker | None:
    """The next slot whose worker is outdated, once the one before it is ready."""
    target = roster.current if roster.rolling is None else roster.rolling
    if not roster.template(target) or len(roster.workers) > SURPLUS * roster.wanted:
        return None
    if any(worker.state in BOOTING for worker in roster.workers):
        return None
    for slot in range(roster.wanted):
        if all(worker.generation in roster.outdated for worker in roster.present(slot)):
            return SpawnWorker(slot, target)
    return None


def _redundant(roster: Roster) -> list[Step]:
    """Workers whose slot is served by a newer one, or is no slot any more."""
    steps: list[Step] = []
    keepers = {slot: roster.keeper(slot) for slot in range(roster.wanted)}
    for worker in roster.workers:
        if worker.state not in (State.STARTING, State.SERVING):
            continue  # one without a pid gets its order after its Hello
        keeper = keepers.get(worker.slot)
        if worker.slot >= roster.wanted or (keeper is not None and keeper is not worker):
            steps.append(RetireWorker(worker))
    return steps


def _spent_templates(roster: Roster) -> list[Step]:
    """Templates whose last worker has left and that no worker will come from."""
    wanted = set() if roster.stopping else {roster.current, roster.rolling, roster.coming}
    waiting = {State.LOADING, State.STALLED} if roster.stopping else {State.LOADING}
    alive = {worker.generation for worker in roster.workers}
    return [
        EndTemplate(template)
        for template in roster.templates
        if template.generation not in wanted
        and (template.state in waiting or (template.state is State.LOADED and template.generation not in alive))
    ]
