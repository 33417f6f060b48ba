"""The steps that close the gap between the workers wanted and the workers alive.

It promises to be arithmetic: give it a roster and a time and it answers, the same each time, and changes nothing. It
refuses to act; and after each step taken, the master tells the roster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from forkserver.config.settings import SURPLUS
from forkserver.ipc.records import Record
from forkserver.master.model.lifecycle import State, Template, Worker

if TYPE_CHECKING:
    from forkserver.master.model.fleet import Roster

RECYCLED: Final = 4  # at most one in so many slots is recycled at a time


class Reload(Record):
    """Read the settings again and begin a generation."""


class Replace(Record):
    """Begin a generation in place of a template that died."""


class StartTemplate(Record):
    generation: int
    shares: bool


class EndTemplate(Record):
    template: Template


class AskForStacks(Record):
    """It took too long to start: have it write where it stands, before it is killed."""

    process: Template | Worker


class AskForLastWords(Record):
    """It does not hear that a call of its takes too long: have it write where it stands, before it is killed."""

    worker: Worker


class EndWayBack(Record):
    """Slots do not go back in time: the callers that wait for that are told."""


class KillTemplate(Record):
    template: Template


class SpawnWorker(Record):
    slot: int
    generation: int


class Recycle(Record):
    """Spawn the successor of a worker that has done its work; once that is ready, the old one is redundant."""

    worker: Worker
    generation: int


class RetireWorker(Record):
    worker: Worker


class KeepConnections(Record):
    """To a worker that retires and hands its connections on: nobody is left to take them."""

    worker: Worker


class QuitWorker(Record):
    worker: Worker


class KillWorker(Record):
    worker: Worker


class AbandonWorker(Record):
    """Give up on a worker that its template has not forked."""

    worker: Worker


Step = (
    Reload
    | Replace
    | StartTemplate
    | EndTemplate
    | AskForStacks
    | AskForLastWords
    | EndWayBack
    | KillTemplate
    | SpawnWorker
    | Recycle
    | RetireWorker
    | KeepConnections
    | QuitWorker
    | KillWorker
    | AbandonWorker
)


def plan(roster: Roster, now: float) -> list[Step]:
    """What is to be done at ``now``, most urgent first."""
    if late := _overdue(roster, now):
        return late  # first alone: a process that they end gets no other order
    if roster.stopping:
        return _departures(roster, now) + _spent_templates(roster)
    steps: list[Step] = [EndWayBack()] if roster.way_back_overdue <= now else []
    steps += _generations(roster, now) + _slots(roster, now)
    return steps + _spent_templates(roster)


def _overdue(roster: Roster, now: float) -> list[Step]:
    late = sorted((worker for worker in roster.index.timed if worker.deadline <= now), key=roster.index.age)
    steps = [_too_late(worker) for worker in late]
    for template in roster.templates:
        if template.deadline <= now:
            steps += [AskForStacks(template) if template.state is State.LOADING else KillTemplate(template)]
        elif template.state is State.LOADED and any(_never_forked(worker, template) for worker in late):
            steps += [KillTemplate(template)]  # it is stuck in a fork and hears nothing
    return steps


def _too_late(worker: Worker) -> Step:
    if worker.state is State.ORDERED:
        return AbandonWorker(worker)
    if worker.state is State.HUNG:
        return AskForLastWords(worker)
    return AskForStacks(worker) if worker.state is State.STARTING else KillWorker(worker)


def _never_forked(worker: Worker, template: Template) -> bool:
    return worker.state is State.ORDERED and worker.generation == template.generation


def _departures(roster: Roster, now: float) -> list[Step]:
    if roster.quick:
        leaving = (State.STARTING, State.STALLED, State.SERVING, State.HUNG, State.DEAF, State.DRAINING)
        return [QuitWorker(worker) for worker in roster.workers if worker.state in leaving]
    if now < roster.retire_at:
        return []
    steps: list[Step] = [
        KeepConnections(worker) for worker in roster.workers if worker.state is State.DRAINING and worker.hands_on
    ]
    retiring = (State.STARTING, State.SERVING)  # one that hangs answers first, or is killed
    return steps + [RetireWorker(worker) for worker in roster.workers if worker.state in retiring]


def _generations(roster: Roster, now: float) -> list[Step]:
    """What is to be done about the code that workers come from."""
    if roster.coming is not None:
        loading = any(each.generation == roster.coming and each.state is State.LOADING for each in roster.templates)
        wait = loading or now < roster.forks.retry_at
        return [] if wait else [StartTemplate(roster.coming, roster.generations[roster.coming].shares)]
    if roster.rolling is not None or not roster.current or roster.upgrading:
        return []
    if roster.reload_wanted:
        return [Reload()]
    # At once the first time; after a failure only when a worker is needed, and later each time.
    needed = not roster.replace_failures or _holes(roster)
    due = now >= max(roster.replace_at, roster.template_deaths.retry_at)
    if roster.template(roster.current) is None and needed and due:
        return [Replace()]
    return []


def _holes(roster: Roster) -> list[int]:
    slots = roster.lasting_slots
    return sorted(slot for slot in roster.index.empty if slot in slots)


def _slots(roster: Roster, now: float) -> list[Step]:
    if now < roster.forks.retry_at:
        return _redundant(roster)  # the kernel has no process to give
    steps = _filled(roster, now)
    if not steps and not roster.draining:
        steps = _next_to_roll(roster, now) or _recycled(roster, now)
    return steps + _redundant(roster)


def _filled(roster: Roster, now: float) -> list[Step]:
    """Workers for slots that have none; first where none has failed yet, so that each is tried before one is again."""
    steps: list[Step] = []
    imports, restarts = 0, roster.restarts(now)
    for slot in sorted(_holes(roster), key=lambda each: roster.backoff(each).failures):
        source = _source_for_hole(roster, slot)
        if source is None or not _due(roster, slot, source, now):
            continue
        crashed = source != roster.rolling and bool(roster.backoff(slot).crashes)
        if crashed and not restarts:
            continue
        if not roster.generations[source].shares:
            if imports >= _room_to_import(roster, source):
                continue
            imports += 1
        restarts -= crashed
        steps.append(SpawnWorker(slot, source))
    return steps


def _room_to_import(roster: Roster, generation: int) -> int:
    """How many workers of ``generation`` may begin to import: one to a processor; the first of a reload is alone.

    So is one after a worker that was not ready in time: on a machine that is busy they wait for each other.
    """
    facts = roster.generations[generation]
    room = (1 if facts.one_by_one else roster.processors) - roster.importing
    if generation != roster.rolling or facts.proven:
        return room
    begun = any(each.generation == generation for each in roster.index.booting)
    return 0 if begun else min(1, room)


def _due(roster: Roster, slot: int, source: int, now: float) -> bool:
    """Only a generation that is known to serve is tried again and again, so only it must wait between the tries."""
    if source == roster.rolling:
        return True
    backoff = roster.backoff(slot)
    return now >= backoff.retry_at and (not backoff.crashes or roster.restarts(now) > 0)


def _source_for_hole(roster: Roster, slot: int) -> int | None:
    """The generation that fills an empty slot: the one known to serve; while that fails too, the one that rolls in.

    Where the one known to serve cannot be restored, its worker would load the files of the one that rolls in.
    """
    serving = roster.current if roster.template(roster.current) else None
    coming_in = roster.rolling if roster.rolling is not None and roster.template(roster.rolling) else None
    if coming_in is not None and (serving is None or roster.backoff(slot).troubled or not roster.restores()):
        return coming_in
    return serving


def _next_to_roll(roster: Roster, now: float) -> list[Step]:
    """The next slots whose workers are outdated."""
    target = roster.current if roster.rolling is None else roster.rolling
    if not roster.template(target) or (roster.rolling is None and not roster.restores()):
        return []  # the way back would load the files of the code that has failed
    room = _room_to_roll(roster, target)
    if room <= 0:
        return []
    slots = (slot for slot in roster.index.stale if slot in roster.lasting_slots and _due(roster, slot, target, now))
    return [SpawnWorker(slot, target) for _, slot in zip(range(room), slots, strict=False)]


def _room_to_roll(roster: Roster, target: int) -> int:
    """How many workers of ``target`` may be started now, in place of outdated ones."""
    facts = roster.generations[target]
    room = SURPLUS * roster.wanted + 1 - len(roster.workers)
    if facts.shares:  # one after the other: each is there in a moment
        return 0 if roster.index.booting else min(1, room)
    if facts.beside:
        room = min(room, roster.wanted + facts.beside - len(roster.workers))
    return min(room, _room_to_import(roster, target))


def _recycled(roster: Roster, now: float) -> list[Step]:
    """Successors of spent workers: a few at a time, and only while every slot is served and no code is changing."""
    index = roster.index
    due_for = [(each.spent_at, index.age(each), each) for each in index.timed if each.spent_at <= now]
    spent = [each for _, _, each in sorted(due_for, key=lambda entry: entry[:2])]
    if not spent or roster.coming is not None or roster.files_changed:
        return []
    if not roster.whole() or not roster.template(roster.current):
        return []
    if not roster.restores() and roster.importing >= roster.processors:
        return []
    busy = [each for each in spent if each.state is State.DRAINING or len(roster.present(each.slot)) > 1]
    waiting = [each for each in spent if roster.keeper(each.slot) is each and each not in busy]
    room = max(1, roster.wanted // RECYCLED) - len(busy)
    due = [each for each in waiting if _due(roster, each.slot, roster.current, now)]
    return [Recycle(worker, roster.current) for worker in due[: max(0, room)]]


def _redundant(roster: Roster) -> list[Step]:
    """Workers whose slot is served by a newer one, or is no slot any more."""
    steps: list[Step] = []
    index, kept = roster.index, roster.keeps_old
    for worker in sorted((each for slot in index.crowded for each in index.of(slot)), key=index.age):
        if worker.state not in (State.STARTING, State.SERVING):
            continue  # one that nobody has heard of gets its order after its Hello
        keeper = index.keepers.get(worker.slot)
        if kept and worker.state is State.SERVING and keeper is not None and keeper.generation == roster.rolling:
            continue  # it could not be brought back, should another of the new ones fail
        if worker.slot >= roster.wanted or (keeper is not None and _makes_redundant(roster, keeper, worker)):
            steps.append(RetireWorker(worker))
    return steps


def _makes_redundant(roster: Roster, keeper: Worker, worker: Worker) -> bool:
    """Whether ``keeper`` serves in place of ``worker``, which is not its successor."""
    if worker is keeper:
        return False
    return worker.state is State.SERVING or worker.generation in roster.outdated or roster.newer(keeper, worker)


def _spent_templates(roster: Roster) -> list[Step]:
    """Templates whose last worker has left and that no worker will come from."""
    wanted = set() if roster.stopping else {roster.current, roster.rolling, roster.coming}
    waiting = {State.LOADING, State.STALLED} if roster.stopping else {State.LOADING}
    alive = roster.index.generations
    return [
        EndTemplate(template)
        for template in roster.templates
        if template.generation not in wanted
        and (template.state in waiting or (template.state is State.LOADED and template.generation not in alive))
    ]
