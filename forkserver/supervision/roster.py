"""What the master knows of its templates and workers, and what each thing that happens changes in it.

It promises that its facts follow the tables of lives.py, and that ``plan`` names every step there is to take. It
refuses to make a system call or to look at a clock: the time comes with each fact.

A generation is one loading of the application's code. ``current`` is the one that workers come from; ``coming`` is
being loaded; ``rolling`` is loaded and taking over the slots; ``outdated`` ones are to be replaced slot by slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from forkserver.supervision import plan as rules
from forkserver.supervision.lives import (
    BOOTING,
    NEVER,
    OVER,
    PRESENT,
    TEMPLATE,
    WORKER,
    Event,
    State,
    Template,
    Worker,
    following,
)
from forkserver.supervision.news import Failure, Kind, News

FIRST_DELAY: Final = 0.5  # seconds before a second try; doubled each time, up to LAST_DELAY
LAST_DELAY: Final = 30.0
LEAVE_SECONDS: Final = 2.0  # for who was told to leave at once
STACKS_SECONDS: Final = 1.0  # between asking for stacks and the kill: long enough to write them
END_SECONDS: Final = 5.0  # for a template that holds nothing any more


class Purpose(Enum):
    START = "start"
    RELOAD = "reload"
    REPLACE = "replace"


class Times(NamedTuple):
    """Seconds: how long an import, then a worker's start, may last; and a retiring worker's leave."""

    boot: float
    graceful: float


@dataclass
class Generation:
    number: int
    purpose: Purpose
    wanted: int  # workers, once it serves
    times: Times
    shares: bool  # the template imports for its workers


_FAILED: Final = {
    Purpose.START: Kind.NEVER_STARTED,
    Purpose.RELOAD: Kind.REFUSED,
    Purpose.REPLACE: Kind.NOT_REPLACED,
}


def delay(failures: int) -> float:
    """Seconds to wait after ``failures`` in a row."""
    return float(min(FIRST_DELAY * 2 ** min(failures - 1, 16), LAST_DELAY)) if failures else 0.0


class Roster:
    """Facts and rules of supervision. ``wanted`` is how many slots are to be served."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.workers: list[Worker] = []
        self.templates: list[Template] = []
        self.generations: dict[int, Generation] = {}
        self.current = 0
        self.coming: int | None = None
        self.rolling: int | None = None
        self.outdated: frozenset[int] = frozenset()
        self.reload_wanted = False
        self.failures = 0  # workers in a row that never served
        self.retry_at = 0.0
        self.replace_failures = 0  # generations in a row that could not replace a dead template
        self.replace_at = 0.0
        self.stopping = False
        self.quick = False
        self.retire_at = NEVER
        self._last = 0
        self._outdated_before: frozenset[int] = frozenset()
        self._announced = 0
        self._was_ready = False
        self._news: list[News] = []

    # What can be asked

    def plan(self, now: float) -> list[rules.Step]:
        """The steps to take at ``now``; none where the facts are as wanted."""
        return rules.plan(self, now)

    def wake_at(self, now: float) -> float:
        """When ``plan`` may next answer something else although nothing has happened; NEVER where it will not."""
        times = [worker.deadline for worker in self.workers]
        times += (template.deadline for template in self.templates)
        times += (self.retry_at, self.replace_at, self.retire_at)
        return min((time for time in times if time > now), default=NEVER)

    def news(self) -> list[News]:
        """What there is to tell since the last time."""
        told, self._news = self._news, []
        return told

    def present(self, slot: int) -> list[Worker]:
        """Workers that fill ``slot`` or are about to."""
        return [worker for worker in self.workers if worker.slot == slot and worker.state in PRESENT]

    def keeper(self, slot: int) -> Worker | None:
        """The worker that makes all others in ``slot`` redundant: the newest that serves code still wanted."""
        serving = [each for each in self.present(slot) if each.state is State.SERVING]
        return max(
            (each for each in serving if each.generation not in self.outdated),
            key=lambda each: each.generation,
            default=None,
        )

    def template(self, generation: int) -> Template | None:
        """The template that can fork workers of ``generation``."""
        for template in self.templates:
            if template.generation == generation and template.state is State.LOADED:
                return template
        return None

    def serving(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.state is State.SERVING]

    def whole(self) -> bool:
        """Whether every slot is served by code that is still wanted."""
        return bool(self.current) and self.rolling is None and all(self.keeper(slot) for slot in range(self.wanted))

    @property
    def reloading(self) -> bool:
        """Whether a generation is being loaded or is taking over."""
        return self.coming is not None or self.rolling is not None

    @property
    def finished(self) -> bool:
        """Whether a stop has come to its end."""
        return self.stopping and not self.workers and not self.templates

    @property
    def serving_generation(self) -> int:
        """The newest generation that the log has said to serve."""
        return self._announced

    # What was decided

    def begin(self, purpose: Purpose, wanted: int, times: Times, shares: bool) -> int:
        """A generation is to be loaded; returns its number."""
        self._last += 1
        self.generations[self._last] = Generation(self._last, purpose, wanted, times, shares)
        self.coming = self._last
        if purpose is Purpose.RELOAD:
            self.reload_wanted = False
        return self._last

    def want_reload(self) -> None:
        """Reload, now or, while another reload is under way, after it."""
        self.reload_wanted = True

    def reload_refused(self) -> None:
        """The settings to reload with are wrong: all stays as it is."""
        self.reload_wanted = False

    def want_workers(self, more: int) -> None:
        """So many slots more, or fewer; never less than one."""
        self.wanted = max(1, self.wanted + more)

    def stop(self, now: float, retire_at: float) -> None:
        """Stop: at ``retire_at``, every worker retires."""
        self.stopping = True
        self.retire_at = retire_at
        self.coming = self.rolling = None
        for worker in self.workers:
            if worker.state is State.ORDERED:
                worker.deadline = min(worker.deadline, now + END_SECONDS)

    def stop_quickly(self, now: float) -> None:
        """Stop: every worker leaves now."""
        self.stop(now, NEVER)
        self.quick = True

    # What happened to templates

    def template_started(self, generation: int, pid: int, now: float) -> Template:
        facts = self.generations[generation]
        template = Template(generation, pid, facts.shares, now + facts.times.boot)
        self.templates.append(template)
        return template

    def template_loaded(self, template: Template) -> None:
        self._move_template(template, Event.LOADED, NEVER)
        if template.state is not State.LOADED or template.generation != self.coming:
            return
        facts = self.generations[template.generation]
        self.coming = None
        self.replace_failures = 0
        if facts.purpose is Purpose.RELOAD:
            self.rolling = template.generation
            self._outdated_before = self.outdated
            self.outdated = frozenset(self.generations) - {self.rolling}
        else:
            self.current = template.generation
            self.failures = 0
        self._settle()

    def template_cannot_share(self, template: Template, now: float) -> None:
        """Its import left what a fork would break: another template takes its place, and workers import themselves."""
        self.generations[template.generation].shares = False
        self._move_template(template, Event.RETIRE, now + END_SECONDS)

    def template_failed(self, template: Template, why: Failure, now: float) -> None:
        self._move_template(template, Event.LOAD_FAILED, now + END_SECONDS)
        self.generation_failed(template.generation, why, now)

    def generation_failed(self, generation: int, why: Failure, now: float) -> None:
        """The generation that was coming does not load."""
        if generation != self.coming:
            return
        self.coming = None
        purpose = self.generations[generation].purpose
        if purpose is Purpose.REPLACE:
            self.replace_failures += 1
            self.replace_at = now + delay(self.replace_failures)
        self._tell(_FAILED[purpose], generation, why)

    def template_ending(self, template: Template, now: float) -> None:
        self._move_template(template, Event.RETIRE, now + END_SECONDS)

    def template_unreachable(self, template: Template, now: float) -> None:
        """It has closed its channel: mostly because it is ending, and if not, it is of no use."""
        template.deadline = min(template.deadline, now + END_SECONDS)

    def template_overdue(self, template: Template, now: float) -> None:
        """Its stacks were asked for, or SIGKILL was sent."""
        loading = template.state is State.LOADING
        self._move_template(template, Event.OVERDUE, now + STACKS_SECONDS if loading else NEVER)
        seconds = self.generations[template.generation].times.boot
        why = Failure(f"the import took longer than boot_timeout ({seconds:g} s)")
        self.generation_failed(template.generation, why, now)

    def template_exited(self, template: Template, how: str, now: float) -> None:
        before = template.state
        self._move_template(template, Event.EXITED, NEVER)
        self.templates.remove(template)
        if self.stopping:
            return
        if before is State.LOADED and template.generation == self.rolling:
            self._go_back(Failure(f"its template died: {how}"))
        elif before is State.LOADED and template.generation == self.current:
            self._tell(Kind.TEMPLATE_DIED, template.generation, Failure(how))
        elif before is State.LOADING:
            self.generation_failed(template.generation, Failure(f"the process that imported it ended: {how}"), now)
        self._settle()

    # What happened to workers

    def worker_ordered(self, slot: int, generation: int, row: int, now: float) -> Worker:
        worker = Worker(slot, generation, row, now + self.generations[generation].times.boot)
        self.workers.append(worker)
        return worker

    def spawn_failed(self, generation: int, why: str, now: float) -> None:
        """No worker could be ordered: no room, no descriptors."""
        if generation == self.rolling:
            self._go_back(Failure(f"no worker could be started: {why}"))
        else:
            self._wait_longer(now)

    def worker_announced(self, worker: Worker, pid: int) -> None:
        self._move(worker, Event.HELLO, worker.deadline)
        worker.pid = pid

    def worker_loaded(self, worker: Worker) -> None:
        self._move(worker, Event.LOADED, worker.deadline)

    def worker_ready(self, worker: Worker) -> None:
        before = worker.state
        self._move(worker, Event.READY, NEVER if before is State.STARTING else worker.deadline)
        if worker.state is State.SERVING:
            self.failures = 0
            self._settle()

    def worker_load_failed(self, worker: Worker, why: Failure, now: float) -> None:
        starting = worker.state is State.STARTING
        self._move(worker, Event.LOAD_FAILED, now + LEAVE_SECONDS if starting else worker.deadline)
        if not starting or self.stopping:
            return
        if not self._was_ready and worker.generation != self.rolling and not self.serving():
            # The first start, and the application says itself that it does not load: trying again would not help.
            self._tell(Kind.NEVER_STARTED, worker.generation, why)
        else:
            self._never_served(worker, why, now)

    def worker_retiring(self, worker: Worker, now: float) -> None:
        self._move(worker, Event.RETIRE, now + self.generations[worker.generation].times.graceful)

    def worker_quitting(self, worker: Worker, now: float) -> None:
        self._move(worker, Event.QUIT, now + LEAVE_SECONDS)

    def worker_overdue(self, worker: Worker, now: float) -> None:
        """Its stacks were asked for, or SIGKILL was sent; or there is no pid to send it to, and it is given up."""
        before = worker.state
        self._move(worker, Event.OVERDUE, now + STACKS_SECONDS if before is State.STARTING else NEVER)
        if before in BOOTING:
            seconds = self.generations[worker.generation].times.boot
            self._never_served(worker, Failure(f"a worker was not ready within boot_timeout ({seconds:g} s)"), now)
        self._settle()

    def worker_exited(self, worker: Worker, how: str, now: float) -> None:
        before = worker.state
        self._move(worker, Event.EXITED, NEVER)
        if before in BOOTING:
            self._never_served(worker, Failure(f"a worker ended before it was ready: {how}"), now)
        self._settle()

    # What follows from it

    def _move(self, worker: Worker, event: Event, deadline: float) -> None:
        worker.state = following(WORKER, worker.state, event)
        worker.deadline = deadline
        if worker.state in OVER:
            self.workers.remove(worker)

    def _move_template(self, template: Template, event: Event, deadline: float) -> None:
        template.state = following(TEMPLATE, template.state, event)
        template.deadline = deadline

    def _never_served(self, worker: Worker, why: Failure, now: float) -> None:
        if self.stopping:
            return
        if worker.generation == self.rolling:
            self._go_back(why)
        elif worker.generation == self.current:
            self._wait_longer(now)

    def _wait_longer(self, now: float) -> None:
        if now < self.retry_at:
            return  # several fail in one try
        self.failures += 1
        self.retry_at = now + delay(self.failures)

    def _go_back(self, why: Failure) -> None:
        """Give the slots that the new generation has taken back to the old one."""
        assert self.rolling is not None
        failed, self.rolling = self.rolling, None
        self.outdated = self._outdated_before | {failed}
        self._tell(Kind.WENT_BACK, failed, why)

    def _settle(self) -> None:
        """Draw the conclusions that need no step."""
        if self.rolling is not None and self._rolled():
            self.current, self.rolling = self.rolling, None
            self.wanted = self.generations[self.current].wanted
            self.failures = self.replace_failures = 0
        if self.stopping or not self.whole():
            return
        if not self._was_ready:
            self._was_ready = True
            self._announced = self.current
            self._tell(Kind.READY, self.current)
        elif self._announced != self.current and all(each.generation == self.current for each in self.workers):
            self._announced = self.current
            self._tell(Kind.SERVES, self.current)
        self._forget_generations()

    def _rolled(self) -> bool:
        keepers = [self.keeper(slot) for slot in range(self.wanted)]
        return all(keeper is not None and keeper.generation == self.rolling for keeper in keepers)

    def _forget_generations(self) -> None:
        kept = {self.current, self.coming, *(worker.generation for worker in self.workers)}
        kept.update(template.generation for template in self.templates)
        self.generations = {number: facts for number, facts in self.generations.items() if number in kept}
        self.outdated &= frozenset(kept)

    def _tell(self, kind: Kind, generation: int, why: Failure | None = None) -> None:
        self._news.append(News(kind, generation, why or Failure("")))
