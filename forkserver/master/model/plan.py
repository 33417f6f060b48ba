"""The plan: the steps that close the gap between the workers wanted and the workers alive.

``plan`` is arithmetic. It reads fleet, rollout and a time, changes nothing, and answers the same each time. The master
takes the steps (actions.py), tells the model of each (transitions.py), and plans again until no step is left.
"""

from __future__ import annotations

from typing import Final

from forkserver.config.settings import SURPLUS
from forkserver.linux.common.records import NamedTuple
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import NEVER, State, Template, Worker
from forkserver.master.model.rollout import Rollout

RECYCLED: Final = 4  # at most one in so many slots is recycled at a time
BESIDE: Final = 2  # recycling makes one worker more to so many slots at most, or so many in all; old ones count


class Reload(NamedTuple):
    """Read the settings again and begin a generation."""


class Replace(NamedTuple):
    """Begin a generation in place of a template that died."""


class StartTemplate(NamedTuple):
    generation: int
    shares: bool


class EndTemplate(NamedTuple):
    template: Template


class AskForStacks(NamedTuple):
    """It took too long to start: have it write its stacks before it is killed."""

    process: Template | Worker


class AskForLastWords(NamedTuple):
    """It does not react to a call that takes too long: have it write its stacks before it is killed."""

    worker: Worker


class EndWayBack(NamedTuple):
    """Slots do not go back in time: the callers that wait for that are told."""


class KillTemplate(NamedTuple):
    template: Template


class GiveUp(NamedTuple):
    """SIGKILL has not ended it in time: from now on it does not count."""

    process: Template | Worker


class SpawnWorker(NamedTuple):
    slot: int
    generation: int


class Recycle(NamedTuple):
    """Spawn a worker in place of one that is due for recycling; once it is ready, the old one is redundant."""

    worker: Worker
    generation: int


class RetireWorker(NamedTuple):
    worker: Worker


class KeepConnections(NamedTuple):
    """To a worker that retires and hands its connections on: no sibling is left to take them."""

    worker: Worker


class QuitWorker(NamedTuple):
    worker: Worker


class KillWorker(NamedTuple):
    worker: Worker


class AbandonWorker(NamedTuple):
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
    | GiveUp
    | SpawnWorker
    | Recycle
    | RetireWorker
    | KeepConnections
    | QuitWorker
    | KillWorker
    | AbandonWorker
)


def plan(fleet: Fleet, rollout: Rollout, now: float) -> list[Step]:
    """The steps to take at ``now``, most urgent first; none where the facts are as wanted."""
    if late := _late(fleet, now):
        return late  # first alone: a process that they end gets no other order
    if fleet.stopping:
        return _ends(fleet, now) + _unneeded_templates(fleet, rollout)
    steps: list[Step] = [EndWayBack()] if rollout.back_by <= now else []
    steps += _generations(fleet, rollout, now) + _slots(fleet, rollout, now)
    return steps + _unneeded_templates(fleet, rollout)


def wake_at(fleet: Fleet, rollout: Rollout, now: float) -> float:
    """When ``plan`` may next answer something else although nothing has happened; NEVER where it will not."""
    times = [time for worker in fleet.index.timed for time in (worker.deadline, worker.recycle_at)]
    times += (template.deadline for template in fleet.templates)
    times += (backoff.retry_at for backoff in (*fleet.backoffs, fleet.forks, fleet.template_deaths))
    times += (rollout.replace_at, fleet.stop_at, fleet.retire_at, rollout.back_by)
    times += (fleet.backoffs.restarts.room_at,)
    return min((time for time in times if time > now), default=NEVER)


def _late(fleet: Fleet, now: float) -> list[Step]:
    late = sorted((worker for worker in fleet.index.timed if worker.deadline <= now), key=fleet.index.age)
    steps = [_too_late(worker) for worker in late]
    for template in fleet.templates:
        if template.deadline <= now:
            steps += [_template_too_late(template)]
        elif template.state is State.LOADED and any(_never_forked(worker, template) for worker in late):
            steps += [KillTemplate(template)]  # it is stuck in a fork and hears nothing
    return steps


def _template_too_late(template: Template) -> Step:
    if template.state is State.KILLED:
        return GiveUp(template)
    return AskForStacks(template) if template.state is State.LOADING else KillTemplate(template)


def _too_late(worker: Worker) -> Step:
    if worker.state is State.KILLED:
        return GiveUp(worker)
    if worker.state is State.ORDERED:
        return AbandonWorker(worker)
    if worker.state is State.HUNG:
        return AskForLastWords(worker)
    return AskForStacks(worker) if worker.state is State.STARTING else KillWorker(worker)


def _never_forked(worker: Worker, template: Template) -> bool:
    return worker.state is State.ORDERED and worker.generation == template.generation


def _ends(fleet: Fleet, now: float) -> list[Step]:
    if fleet.quick:
        leaving = (State.STARTING, State.STALLED, State.SERVING, State.HUNG, State.DEAF, State.DRAINING)
        return [QuitWorker(worker) for worker in fleet.workers if worker.state in leaving]
    if now < fleet.retire_at:
        return []
    steps: list[Step] = [
        KeepConnections(worker) for worker in fleet.workers if worker.state is State.DRAINING and worker.hands_on
    ]
    retiring = (State.STARTING, State.SERVING)  # one that hangs answers first, or is killed
    return steps + [RetireWorker(worker) for worker in fleet.workers if worker.state in retiring]


def _generations(fleet: Fleet, rollout: Rollout, now: float) -> list[Step]:
    """What is to be done about the code that workers come from."""
    if rollout.coming is not None:
        loading = any(each.generation == rollout.coming and each.state is State.LOADING for each in fleet.templates)
        wait = loading or now < fleet.forks.retry_at
        return [] if wait else [StartTemplate(rollout.coming, fleet.generations[rollout.coming].shares)]
    if rollout.rolling is not None or not rollout.current or rollout.upgrading:
        return []
    if rollout.reload_wanted:
        return [] if fleet.in_debugger else [Reload()]
    # At once the first time; after a failure only when a worker is needed, and later each time.
    needed = not rollout.replace_failures or _holes(fleet, rollout)
    due = now >= max(rollout.replace_at, fleet.template_deaths.retry_at)
    if fleet.template(rollout.current) is None and needed and due:
        return [Replace()]
    return []


def _holes(fleet: Fleet, rollout: Rollout) -> list[int]:
    slots = rollout.lasting_slots
    return sorted(slot for slot in fleet.index.empty if slot in slots)


def _slots(fleet: Fleet, rollout: Rollout, now: float) -> list[Step]:
    if now < fleet.forks.retry_at:
        return _redundant(fleet, rollout)  # the kernel has no process to give
    steps = _filled(fleet, rollout, now)
    if not steps and not fleet.draining:
        steps = _next_to_roll(fleet, rollout, now) or _recycled(fleet, rollout, now)
    return steps + _redundant(fleet, rollout)


def _filled(fleet: Fleet, rollout: Rollout, now: float) -> list[Step]:
    """Workers for slots that have none; first where none has failed yet, so that each is tried before one is again."""
    steps: list[Step] = []
    imports, restarts = 0, fleet.backoffs.restarts.room(now)
    for slot in sorted(_holes(fleet, rollout), key=lambda each: fleet.backoffs.of(each).failures):
        source = _source_for_hole(fleet, rollout, slot)
        if source is None or not _due(fleet, rollout, slot, source, now):
            continue
        crashed = bool(fleet.backoffs.of(slot).crashes)
        if crashed and not restarts:
            continue
        if not fleet.generations[source].shares:
            if imports >= _room_to_import(fleet, rollout, source):
                continue
            imports += 1
        restarts -= crashed
        steps.append(SpawnWorker(slot, source))
    return steps


def _room_to_import(fleet: Fleet, rollout: Rollout, generation: int) -> int:
    """How many workers of ``generation`` may begin to import: one to a processor; of a reload a few until one is ready.

    One at a time after a worker that was not ready in time: on a machine that is busy they wait for each other.
    """
    facts = fleet.generations[generation]
    room = (1 if facts.one_by_one else fleet.processors) - fleet.importing
    if generation != rollout.rolling or facts.proven:
        return room
    begun = sum(each.generation == generation for each in fleet.index.booting)
    return min(facts.at_first - begun, room)


def _due(fleet: Fleet, rollout: Rollout, slot: int, source: int, now: float) -> bool:
    """Only a generation that is known to serve is tried again and again, so only it must wait between the tries.

    What kills workers that were ready is mostly a request, and comes again: any code has them replaced at that pace.
    """
    backoff = fleet.backoffs.of(slot)
    if backoff.crashes and not fleet.backoffs.restarts.room(now):
        return False
    return source == rollout.rolling or now >= backoff.retry_at


def _source_for_hole(fleet: Fleet, rollout: Rollout, slot: int) -> int | None:
    """The generation that fills an empty slot: the one known to serve; while that fails too, the one that rolls in.

    Where the one known to serve cannot be restored, its worker would load the files of the one that rolls in.
    """
    serving = rollout.current if fleet.template(rollout.current) else None
    coming_in = rollout.rolling if rollout.rolling is not None and fleet.template(rollout.rolling) else None
    if coming_in is not None and (serving is None or fleet.backoffs.of(slot).troubled or not rollout.restores()):
        return coming_in
    return serving


def _next_to_roll(fleet: Fleet, rollout: Rollout, now: float) -> list[Step]:
    """The next slots whose workers are outdated."""
    target = rollout.current if rollout.rolling is None else rollout.rolling
    if not fleet.template(target):
        return []
    room = _room_to_roll(fleet, rollout, target)
    if room <= 0:
        return []
    slots = (
        slot
        for slot in fleet.index.stale
        if slot in rollout.lasting_slots
        and _due(fleet, rollout, slot, target, now)
        and _leads_on(fleet, rollout, slot, target)
    )
    return [SpawnWorker(slot, target) for _, slot in zip(range(room), slots, strict=False)]


def _leads_on(fleet: Fleet, rollout: Rollout, slot: int, target: int) -> bool:
    """Whether a new worker of ``target`` brings the code of ``target``, which a way back to files on disk would not.

    The new worker of a slot may end as the last one of the roll is ready. The roll is over then, and the worker of
    before, which still serves that slot, is to be replaced all the same.
    """
    if rollout.rolling is not None or rollout.restores():
        return True
    return not rollout.files_changed and all(each.generation < target for each in fleet.present(slot))


def _room_to_roll(fleet: Fleet, rollout: Rollout, target: int) -> int:
    """How many workers of ``target`` may be started now, in place of outdated ones."""
    facts = fleet.generations[target]
    room = SURPLUS * fleet.wanted + 1 - len(fleet.workers)
    if facts.shares:  # one after the other: each is there in a moment
        return 0 if fleet.index.booting else min(1, room)
    if facts.beside:
        room = min(room, fleet.wanted + facts.beside - len(fleet.workers))
    return min(room, _room_to_import(fleet, rollout, target))


def _recycled(fleet: Fleet, rollout: Rollout, now: float) -> list[Step]:
    """New workers in place of those due for recycling: a few at a time, while every slot is served by one code."""
    index = fleet.index
    due = [each for each in index.timed if each.recycle_at <= now]
    due.sort(key=lambda each: (each.recycle_at, index.age(each)))
    if not due or rollout.coming is not None or rollout.files_changed:
        return []
    if not rollout.whole() or not fleet.template(rollout.current):
        return []
    if not rollout.restores() and fleet.importing >= fleet.processors:
        return []
    busy = [each for each in due if _being_replaced(fleet, each)]
    waiting = [each for each in due if fleet.keeper(each.slot) is each and each not in busy]
    beside = len(fleet.workers) - fleet.wanted
    room = min(max(1, fleet.wanted // RECYCLED) - len(busy), max(BESIDE, fleet.wanted // BESIDE) - beside)
    ready = [each for each in waiting if _due(fleet, rollout, each.slot, rollout.current, now)]
    return [Recycle(worker, rollout.current) for worker in ready[: max(0, room)]]


def _being_replaced(fleet: Fleet, worker: Worker) -> bool:
    """Whether no newer worker serves its slot yet, although one is to, or ``worker`` leaves already.

    One that only finishes what it has begun, such as a slow download, keeps no other from being replaced.
    """
    keeper = fleet.keeper(worker.slot)
    if worker.state is State.DRAINING:
        return keeper is None or not fleet.newer(keeper, worker)
    return len(fleet.present(worker.slot)) > 1


def _redundant(fleet: Fleet, rollout: Rollout) -> list[Step]:
    """Workers whose slot is served by a newer one, or is no slot any more."""
    steps: list[Step] = []
    index, kept = fleet.index, rollout.keeps_old
    for worker in sorted((each for slot in index.crowded for each in index.of(slot)), key=index.age):
        if worker.state not in (State.STARTING, State.SERVING):
            continue  # one without a Hello gets its order after that
        keeper = index.keepers.get(worker.slot) or _last_of_before(fleet, worker.slot)
        if kept and worker.state is State.SERVING and keeper is not None and keeper.generation == rollout.rolling:
            continue  # it could not be brought back, should another of the new ones fail
        if worker.slot >= fleet.wanted or (keeper is not None and _makes_redundant(fleet, keeper, worker)):
            steps.append(RetireWorker(worker))
    return steps


def _last_of_before(fleet: Fleet, slot: int) -> Worker | None:
    """The newest worker of a slot that outdated code serves alone: two, where a reload began while one was recycled.

    A reload that has memory for one worker beside those of before would wait for ever for the other one to leave.
    """
    serving = [each for each in fleet.index.of(slot) if each.state is State.SERVING]
    return max(serving, key=fleet.index.age) if len(serving) > 1 else None


def _makes_redundant(fleet: Fleet, keeper: Worker, worker: Worker) -> bool:
    """Whether ``keeper`` serves in place of ``worker``, which is not there to replace it."""
    if worker is keeper:
        return False
    return worker.state is State.SERVING or worker.generation in fleet.outdated or fleet.newer(keeper, worker)


def _unneeded_templates(fleet: Fleet, rollout: Rollout) -> list[Step]:
    """Templates whose last worker has left and that no worker will come from.

    A stalled one is left to its deadline, which is near: it is writing its stacks.
    """
    wanted = set() if fleet.stopping else {rollout.current, rollout.rolling, rollout.coming}
    alive = fleet.index.generations
    return [
        EndTemplate(template)
        for template in fleet.templates
        if template.generation not in wanted
        and (template.state is State.LOADING or (template.state is State.LOADED and template.generation not in alive))
    ]
