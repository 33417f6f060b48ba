"""The fleet: which templates and workers there are, in which state, and how their slots have fared.

These are facts and queries; what a fact leads to stands in rollout.py, transitions.py and plan.py. Nothing here makes a
system call or reads a clock: the time comes with each fact. A process changes its state by ``move`` or
``move_template`` alone, which follow the tables of lifecycle.py. Every fact is a typed field, so that all of them can
be written down for the program of an upgrade (serialization.py).
"""

from __future__ import annotations

from forkserver.linux.common.records import Record, fresh
from forkserver.master.model.backoff import LAST_DELAY, URGENT_DELAY, Backoff, SlotBackoffs
from forkserver.master.model.generation import Generation
from forkserver.master.model.lifecycle import (
    NEVER,
    OVER,
    PRESENT,
    TEMPLATE,
    WORKER,
    Process,
    State,
    Template,
    Transition,
    Worker,
    following,
)
from forkserver.master.model.slot_index import SlotIndex


class Fleet(Record):
    """Workers, templates, and what is known of their generations. ``wanted`` is how many slots are to be served."""

    wanted: int
    workers: list[Worker] = fresh(default_factory=list)
    templates: list[Template] = fresh(default_factory=list)
    generations: dict[int, Generation] = fresh(default_factory=dict)
    outdated: frozenset[int] = frozenset()  # generations whose workers are to be replaced, slot by slot
    processors: int = 1  # so many imports at once; more would only wait for each other until boot_timeout
    forks: Backoff = fresh(default_factory=Backoff)  # whether the kernel has processes to give
    template_deaths: Backoff = fresh(default_factory=Backoff)  # of those that had loaded, and died soon after
    backoffs: SlotBackoffs = fresh(default_factory=SlotBackoffs)
    draining: bool = False  # a stop is near: serve on, and change nothing
    maintenance: bool = False  # workers answer 503 in place of the application
    stop_at: float = NEVER
    stopping: bool = False
    quick: bool = False
    retire_at: float = NEVER
    unended: dict[int, str] = fresh(default_factory=dict)  # killed, not ended in time and given up: name by pid

    def __post_init__(self) -> None:
        self.index = SlotIndex(self.workers, self.wanted, self.outdated)

    @property
    def processes(self) -> list[Process]:
        """Templates, then workers, each in the order of their births."""
        return [*self.templates, *self.workers]

    def origin(self, generation: int) -> int:
        """The first generation of the code that ``generation`` has: another where that took a dead template's place."""
        facts = self.generations.get(generation)
        return generation if facts is None or not facts.origin else facts.origin

    # Workers

    def present(self, slot: int) -> list[Worker]:
        """Workers that fill ``slot`` or are about to."""
        return [worker for worker in self.index.of(slot) if worker.state in PRESENT]

    def keeper(self, slot: int) -> Worker | None:
        """The worker that makes all others in ``slot`` redundant: the newest that serves code still wanted."""
        return self.index.keepers.get(slot)

    def newer(self, one: Worker, other: Worker) -> bool:
        """Whether ``one`` is of a later generation than ``other``, or of the same and born later."""
        return self.index.age(one) > self.index.age(other)

    def serving(self) -> list[Worker]:
        """The workers that serve, in the order of their births."""
        return [worker for worker in self.workers if worker.state is State.SERVING]

    @property
    def serving_count(self) -> int:
        """How many workers serve."""
        return len(self.index.serving)

    @property
    def importing(self) -> int:
        """How many workers import the application now, or are about to."""
        return sum(not self.generations[each.generation].shares for each in self.index.booting)

    def staying(self, generation: int) -> int:
        """How many workers of a ``generation`` that failed fill slots for which there is no other worker."""
        there = (each for each in self.workers if each.generation == generation and each.state in PRESENT)
        return sum(not self.keeper(each.slot) for each in there)

    @property
    def lost(self) -> bool:
        """Whether no worker serves code that is still wanted, or one of outdated code serves a slot without such."""
        unkept = self.index.unkept
        return len(unkept) == self.wanted or any(each.slot in unkept for each in self.index.serving)

    # Templates

    def template(self, generation: int) -> Template | None:
        """The template that can fork workers of ``generation``."""
        for template in self.templates:
            if template.generation == generation and template.state is State.LOADED:
                return template
        return None

    def parent(self, worker: Worker) -> Template | None:
        """The template that was told to fork ``worker``, whatever its state."""
        return next((each for each in reversed(self.templates) if each.generation == worker.generation), None)

    # Backoff

    def retry_at(self, slot: int) -> float:
        """When a worker of ``slot`` may next be started, as far as those before it have fared badly."""
        backoff = self.backoffs.of(slot)
        return max(backoff.retry_at, self.backoffs.restarts.room_at if backoff.crashes else 0.0)

    def recovered(self, since: float, now: float) -> bool:
        """Whether a worker that began to serve after ``since`` has served long enough to be called well."""
        return self.backoffs.well_at((each.ready_at for each in self.serving()), now) > since

    @property
    def longest_delay(self) -> float:
        """Seconds until what has failed is tried again, at most."""
        return LAST_DELAY if self.serving_count else URGENT_DELAY

    # The stop

    @property
    def in_debugger(self) -> bool:
        """Whether a person uses a debugger in a call of a worker."""
        return any(worker.in_debugger for worker in self.workers)

    @property
    def departing(self) -> bool:
        """Whether a stop has been asked for; not where the service drains until one is."""
        return self.stopping or self.stop_at < NEVER

    @property
    def finished(self) -> bool:
        """Whether a stop has come to its end."""
        return self.stopping and not self.workers and not self.templates

    def reason_to_leave(self, worker: Worker) -> str:
        """Why ``worker`` is told to leave, in a word or two, as status, metrics and the hook worker_exit have it."""
        if self.stopping:
            return "stop"
        if worker.slot >= self.wanted:
            return "fewer workers"
        return "reload" if worker.generation in self.outdated or not worker.recycle_why else "recycled"

    # Changes

    def want(self, slots: int) -> None:
        """So many ``slots`` are to be served."""
        if slots != self.wanted:
            self.wanted = slots
            self.index.refresh(slots, self.outdated)

    def replace(self, outdated: frozenset[int]) -> None:
        """The workers of these generations, and of no others, are to be replaced."""
        if outdated != self.outdated:
            self.outdated = outdated
            self.index.refresh(self.wanted, outdated)

    def add(self, worker: Worker) -> None:
        """``worker`` was ordered."""
        self.workers.append(worker)
        self.index.add(worker)

    def touch(self, worker: Worker, *, deadline: float) -> None:
        """``worker`` has until ``deadline``."""
        worker.deadline = deadline
        self.index.touch(worker)

    def move(self, worker: Worker, event: Transition, deadline: float) -> None:
        """The state of ``worker`` after ``event``, in which it may stay until ``deadline``. Raises UnexpectedError."""
        worker.state = following(WORKER, worker.state, event)
        worker.deadline = deadline
        worker.leaving |= event is not Transition.LOAD_FAILED and worker.state in (State.DRAINING, State.LEAVING)
        if worker.state in OVER:
            self.workers.remove(worker)
            self.index.remove(worker)
        else:
            self.index.touch(worker)

    def move_template(self, template: Template, event: Transition, deadline: float) -> None:
        """As ``move``; a template that has ended is removed. Raises UnexpectedError."""
        template.state = following(TEMPLATE, template.state, event)
        template.deadline = deadline
        if template.state in OVER:
            self.templates.remove(template)
