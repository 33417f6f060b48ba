"""What the master knows of its templates and workers, and what each thing that happens changes in it.

It promises that its facts follow the tables of lives.py, and that ``plan`` names every step there is to take. It
refuses to make a system call or to look at a clock: the time comes with each fact.

A generation is one loading of the application's code. ``current`` is the one that workers come from; ``coming`` is
being loaded; ``rolling`` is loaded and taking over the slots; ``outdated`` ones are to be replaced slot by slot.

Where the import of ``current`` is not shared, each worker loads the files on disk, and one that has retired cannot be
brought back. So the workers of before serve until every slot has a new one; and after a reload that failed
(``files_changed``) no worker is replaced but one that has crashed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from forkserver.master.model import plan as rules
from forkserver.master.model.backoff import (
    HEALTHY_SECONDS,
    LAST_DELAY,
    LAST_FORK_DELAY,
    URGENT_DELAY,
    Backoff,
    SlotBackoffs,
    delay,
)
from forkserver.master.model.events import Event, EventKind, Failure
from forkserver.master.model.generation import MARGIN_SECONDS, Generation, Purpose, Times
from forkserver.master.model.lifecycle import (
    BOOTING,
    NEVER,
    OVER,
    PRESENT,
    TEMPLATE,
    UNHEARD,
    UNHEARING,
    WORKER,
    State,
    Template,
    Transition,
    Worker,
    following,
)
from forkserver.master.model.slot_index import SlotIndex

LEAVE_SECONDS: Final = 2.0  # for who was told to leave at once
STACKS_SECONDS: Final = 1.0  # between asking for stacks and the kill: long enough to write them
HEAR_SECONDS: Final = 2.0  # to say that an order was heard; who does not is stopped, or stuck in C code
END_SECONDS: Final = 5.0  # for a template that holds nothing any more
REPORT_SECONDS: Final = 1.0  # after its time to retire, for a worker to say what it still holds, and to leave by itself
MEMORY_WAY_OUT: Final = "raise the memory limit, have fewer workers, or restart instead"
MOST_EARLY_DEATHS: Final = 1  # of a generation that takes over; one may have been kill -9
STORM_SECONDS: Final = 10.0  # after a crash of other code, for which a crash says nothing against what takes over


_FAILED: Final = {
    Purpose.START: EventKind.NEVER_STARTED,
    Purpose.RELOAD: EventKind.REFUSED,
    Purpose.REPLACE: EventKind.NOT_REPLACED,
}


@dataclass(eq=False)
class Roster:
    """Facts and rules of supervision. ``wanted`` is how many slots are to be served.

    Every fact is a field with a type, so that all of them can be written down and read by the next program (plain.py).
    """

    wanted: int
    workers: list[Worker] = field(default_factory=list)
    templates: list[Template] = field(default_factory=list)
    generations: dict[int, Generation] = field(default_factory=dict)
    current: int = 0
    coming: int | None = None
    rolling: int | None = None
    outdated: frozenset[int] = frozenset()
    reload_wanted: bool = False
    processors: int = 1  # so many imports at once; more would only wait for each other until boot_timeout
    files_changed: bool = False  # a reload has failed, so a worker that imports may load other code than its siblings
    upgrading: bool = False  # the next program is tried, which is to load the next generation: none begins here
    forks: Backoff = field(default_factory=Backoff)  # whether the kernel has processes to give
    _refused_since: float = 0.0  # when it had none for the first time in a row
    replace_failures: int = 0  # generations in a row that could not replace a dead template
    replace_at: float = 0.0
    template_deaths: Backoff = field(default_factory=Backoff)  # of those that had loaded, and died soon after
    draining: bool = False  # a stop is near: serve on, and change nothing
    maintenance: bool = False  # workers answer 503 in place of the application
    stop_at: float = NEVER
    stopping: bool = False
    quick: bool = False
    retire_at: float = NEVER
    _last: int = 0
    _outdated_before: frozenset[int] = frozenset()
    _announced: int = 0
    _was_ready: bool = False
    _going_back: tuple[int, Failure] | None = None  # a generation that failed, while some of it still serves
    _back_by: float = NEVER  # when callers that wait for the way back are told that it goes on
    _others_crashed_at: float = -STORM_SECONDS  # when a worker of other code than what takes over last crashed
    _load_failure: Failure | None = None  # what the application has said, in a first start, of why it does not load
    _backoffs: SlotBackoffs = field(default_factory=SlotBackoffs)
    _news: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots = SlotIndex(self.workers)

    # What can be asked

    @property
    def index(self) -> SlotIndex:
        """The workers by slot, state and generation, as of now."""
        return self._slots.refresh(self.wanted, self.outdated)

    def plan(self, now: float) -> list[rules.Step]:
        """The steps to take at ``now``; none where the facts are as wanted."""
        return rules.plan(self, now)

    def wake_at(self, now: float) -> float:
        """When ``plan`` may next answer something else although nothing has happened; NEVER where it will not."""
        times = [time for worker in self.index.timed for time in (worker.deadline, worker.spent_at)]
        times += (template.deadline for template in self.templates)
        times += (backoff.retry_at for backoff in (*self._backoffs, self.forks, self.template_deaths))
        times += (self.replace_at, self.stop_at, self.retire_at, self.way_back_overdue, self._backoffs.restarts.room_at)
        return min((time for time in times if time > now), default=NEVER)

    def news(self) -> list[Event]:
        """What there is to tell since the last time."""
        told, self._news = self._news, []
        return told

    def present(self, slot: int) -> list[Worker]:
        """Workers that fill ``slot`` or are about to."""
        return [worker for worker in self._slots.of(slot) if worker.state in PRESENT]

    def keeper(self, slot: int) -> Worker | None:
        """The worker that makes all others in ``slot`` redundant: the newest that serves code still wanted."""
        return self.index.keepers.get(slot)

    def newer(self, one: Worker, other: Worker) -> bool:
        """Whether ``one`` is of a later generation than ``other``, or of the same and born later."""
        return self._slots.age(one) > self._slots.age(other)

    def backoff(self, slot: int) -> Backoff:
        """How the workers of ``slot`` have fared."""
        return self._backoffs.of(slot)

    def restarts(self, now: float) -> int:
        """How many workers may be started at ``now`` in place of ones that crashed right after they were ready."""
        return self._backoffs.restarts.room(now)

    def retry_at(self, slot: int) -> float:
        """When a worker of ``slot`` may next be started, as far as those before it have fared badly."""
        backoff = self.backoff(slot)
        return max(backoff.retry_at, self._backoffs.restarts.room_at if backoff.crashes else 0.0)

    def recovered(self, since: float, now: float) -> bool:
        """Whether a worker that began to serve after ``since`` has served long enough to be called well."""
        return self._backoffs.well_at((each.ready_at for each in self.serving()), now) > since

    @property
    def lasting_slots(self) -> range:
        """The slots that there will be when a roll is done, as far as there are workers for them already."""
        after = self.wanted if self.rolling is None else self.generations[self.rolling].wanted
        return range(min(self.wanted, after))

    def template(self, generation: int) -> Template | None:
        """The template that can fork workers of ``generation``."""
        for template in self.templates:
            if template.generation == generation and template.state is State.LOADED:
                return template
        return None

    def parent(self, worker: Worker) -> Template | None:
        """The template that was told to fork ``worker``, whatever its state."""
        return next((each for each in reversed(self.templates) if each.generation == worker.generation), None)

    def serving(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.state is State.SERVING]  # in the order of their births

    @property
    def serving_count(self) -> int:
        """How many workers serve."""
        return len(self._slots.serving)

    def whole(self) -> bool:
        """Whether every slot is served by code that is still wanted."""
        return self._decided() and not self.index.unkept

    def restores(self) -> bool:
        """Whether workers of the current generation come with its own code, whatever the files hold by now."""
        facts = self.generations.get(self.current)
        return facts is None or facts.shares

    @property
    def keeps_old(self) -> bool:
        """Whether the workers of before serve on beside the new ones until every slot has a new one."""
        if self.rolling is None or not self.current:
            return False
        new = self.generations[self.rolling]
        return not (new.shares and self.restores()) and not new.beside

    @property
    def importing(self) -> int:
        """How many workers import the application now, or are about to."""
        return sum(not self.generations[each.generation].shares for each in self._slots.booting)

    def tried(self) -> bool:
        """Whether a worker serves, and every slot is served by code that is still wanted, or its worker has failed.

        Where the kernel has refused processes twice in a row, it has failed those that are missing.
        """
        if not self._decided():
            return False
        unkept, refused = self.index.unkept, self.forks.failures > 1
        return len(unkept) < self.wanted and (refused or all(self.backoff(slot).troubled for slot in unkept))

    @property
    def failing(self) -> tuple[int, ...]:
        """The slots that are not served, and whose workers have failed."""
        return tuple(sorted(slot for slot in self.index.unkept if self.backoff(slot).troubled))

    def _decided(self) -> bool:
        return bool(self.current) and self.rolling is None

    @property
    def way_back_overdue(self) -> float:
        """When slots that a failed generation has taken should have gone back; NEVER where none do."""
        return self._back_by if self._going_back is not None else NEVER

    @property
    def reloading(self) -> bool:
        """Whether other code is being loaded or is taking over; not that of before, for a dead template."""
        loading = self.coming is not None and self.generations[self.coming].purpose is Purpose.RELOAD
        return loading or self.rolling is not None

    @property
    def settled(self) -> bool:
        """Whether a generation serves, no other is under way, and no stop is near."""
        near = self.draining or self.stopping
        return bool(self._announced) and self.coming is None and self.rolling is None and not near

    @property
    def departing(self) -> bool:
        """Whether a stop has been asked for; not where the service drains until one is."""
        return self.stopping or self.stop_at < NEVER

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
            self._gone_back()  # or it would be told in the middle of what follows
        return self._last

    def want_reload(self) -> None:
        """Reload, now or, while another reload is under way, after it; not when a stop is near."""
        self.reload_wanted = not (self.draining or self.stopping)

    def reload_refused(self) -> None:
        """The settings to reload with are wrong: all stays as it is."""
        self.reload_wanted = False
        self._doubt_files()

    def want_workers(self, more: int) -> None:
        """So many slots more, or fewer, and the same once a reload is through; never less than one."""
        self.wanted = max(1, self.wanted + more)
        for facts in self.generations.values():
            if facts.number in (self.coming, self.rolling):
                facts.wanted = max(1, facts.wanted + more)

    def drain(self, stop_at: float) -> None:
        """A stop follows at ``stop_at``: until then all goes on, and nothing new begins."""
        self.draining = True
        self.stop_at = stop_at
        self.reload_wanted = False
        if self.coming is not None and self.generations[self.coming].purpose is Purpose.RELOAD:
            self.coming = None

    def stop(self, now: float, retire_at: float) -> None:
        """Stop: at ``retire_at``, every worker retires."""
        self.stopping = True
        self.stop_at = NEVER
        self.retire_at = retire_at
        self.coming = self.rolling = self._going_back = None
        for worker in self.workers:
            if worker.state in UNHEARD:
                worker.deadline = min(worker.deadline, now + END_SECONDS)
                self._slots.touch(worker)

    def stop_quickly(self, now: float) -> None:
        """Stop: every worker leaves now."""
        self.stop(now, NEVER)
        self.quick = True

    # What happened to templates

    def template_started(self, generation: int, pid: int, now: float) -> Template:
        facts = self.generations[generation]
        template = Template(generation, pid, facts.shares, now + facts.times.boot)
        self.templates.append(template)
        self.forks.recovered()
        return template

    def no_process(self, why: str, now: float) -> None:
        """The kernel had no process or descriptor to give: no fault of the code, so it is waited out.

        A reload waits for ``boot_timeout``: whoever has asked for it is to hear of an end.
        """
        if not self.forks.failures:
            self._refused_since = now
        if now >= self.forks.retry_at:  # several that fail in one try count once
            self.forks.failed(now, LAST_FORK_DELAY)
        self._settle()
        number = self.rolling if self.coming is None else self.coming
        if number is None or self.generations[number].purpose is not Purpose.RELOAD:
            return
        seconds = self.generations[number].times.boot
        if now < self._refused_since + seconds:
            return
        reason = Failure(f"the system has given no process for boot_timeout ({seconds:g} s): {why}")
        if number == self.rolling:
            self._go_back(reason, now)
        else:
            self.generation_failed(number, reason, now)

    def template_loaded(self, template: Template, now: float) -> None:
        # One that has failed, or was late, and says so after that, ends all the same.
        self._move_template(
            template, Transition.LOADED, NEVER if template.state is State.LOADING else template.deadline
        )
        template.loaded_at = now
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
            self._backoffs.clear()
        self._settle()

    def template_cannot_share(self, template: Template, now: float) -> None:
        """Its import left what a fork would break: another template takes its place, and workers import themselves."""
        self.generations[template.generation].shares = False
        ending = template.state in (State.ENDING, State.KILLED)
        self._move_template(template, Transition.RETIRE, template.deadline if ending else now + END_SECONDS)

    def template_failed(self, template: Template, why: Failure, now: float) -> None:
        ending = template.state in (State.ENDING, State.KILLED)  # it may say so again and again
        self._move_template(template, Transition.LOAD_FAILED, template.deadline if ending else now + END_SECONDS)
        self.generation_failed(template.generation, why, now)

    def generation_failed(self, generation: int, why: Failure, now: float) -> None:
        """The generation that was coming does not load."""
        if generation != self.coming:
            return
        self.coming = None
        purpose = self.generations[generation].purpose
        if purpose is Purpose.REPLACE:
            self.replace_failures += 1
            self.replace_at = now + delay(self.replace_failures, self._longest_delay)
        self._tell(_FAILED[purpose], generation, why)
        if purpose is Purpose.RELOAD:
            self._doubt_files()

    def template_ending(self, template: Template, now: float) -> None:
        self._move_template(template, Transition.RETIRE, now + END_SECONDS)

    def template_unreachable(self, template: Template, now: float) -> None:
        """It has closed its channel: mostly because it is ending, and if not, it is of no use."""
        if template.state is not State.KILLED:
            template.deadline = min(template.deadline, now + END_SECONDS)

    def template_overdue(self, template: Template, now: float) -> None:
        """Its stacks were asked for, or SIGKILL was sent."""
        loading = template.state is State.LOADING
        self._move_template(template, Transition.OVERDUE, now + STACKS_SECONDS if loading else NEVER)
        if not loading:
            return
        seconds = self.generations[template.generation].times.boot
        why = Failure(f"the import took longer than boot_timeout ({seconds:g} s)")
        self.generation_failed(template.generation, why, now)

    def template_exited(self, template: Template, how: str, now: float) -> None:
        before = template.state
        self._move_template(template, Transition.EXITED, NEVER)
        self.templates.remove(template)
        if self.stopping:
            return
        if template.generation == self.rolling and self.template(self.rolling) is None:
            self._go_back(Failure(f"its template died: {how}"), now)
        elif before is State.LOADED and template.generation == self.current:
            self.template_deaths.died(now - template.loaded_at, now, self._longest_delay)
            self._tell(EventKind.TEMPLATE_DIED, template.generation, Failure(how))
        elif before is State.LOADING:
            self.generation_failed(template.generation, Failure(f"the process that imported it ended: {how}"), now)
        self._settle()

    # What happened to workers

    def worker_ordered(self, slot: int, generation: int, row: int, now: float) -> Worker:
        worker = Worker(slot, generation, row, now + self.generations[generation].times.boot)
        self.workers.append(worker)
        self._slots.add(worker)
        self._backoffs.ordered(slot, self.wanted, now)
        return worker

    def spawn_failed(self, slot: int, generation: int, why: str, now: float) -> None:
        """No worker could be ordered: there is no room."""
        if generation == self.rolling:
            self._go_back(Failure(f"no worker could be started: {why}"), now)
        else:
            self._backoffs.failed(slot, now, self._longest_delay)
            self._settle()

    def worker_forked(self, worker: Worker, pid: int) -> None:
        """The template has named its pid."""
        self._move(worker, Transition.FORKED, worker.deadline)
        worker.pid = pid
        self.forks.recovered()

    def worker_not_forked(self, worker: Worker, why: str, now: float) -> None:
        """Its template had no process for it."""
        self._move(worker, Transition.FORK_FAILED, NEVER)
        self.no_process(why, now)

    def worker_announced(self, worker: Worker, pid: int, now: float) -> None:
        """It lives, and begins to import or to start: ``boot_timeout`` counts from here."""
        booting = worker.state in BOOTING
        boot = self.generations[worker.generation].times.boot
        self._move(worker, Transition.HELLO, now + boot if booting else worker.deadline)
        worker.pid = pid

    def worker_loaded(self, worker: Worker) -> None:
        self._move(worker, Transition.LOADED, worker.deadline)

    def worker_ready(self, worker: Worker, now: float) -> None:
        before = worker.state
        self._move(worker, Transition.READY, NEVER if before is State.STARTING else worker.deadline)
        if worker.state is State.SERVING:
            worker.ready_at = now
            self._backoffs.became_ready(worker.slot, self.serving_count == 1, now)
            facts = self.generations[worker.generation]
            facts.proven, facts.stacks_shown = True, False
            self._settle()

    def limit_surplus(self, generation: int, workers: int) -> None:
        """Memory has room for so many ``workers`` of ``generation`` beside those of before: it rolls in batches."""
        self.generations[generation].beside = max(1, workers)

    def worker_load_failed(self, worker: Worker, why: Failure, now: float) -> None:
        starting = worker.state is State.STARTING
        self._move(worker, Transition.LOAD_FAILED, now + LEAVE_SECONDS if starting else worker.deadline)
        if not starting or self.stopping:
            return
        if not self._was_ready and worker.generation != self.rolling and self._load_failure is None:
            self._load_failure = why
        self._never_served(worker, why, now)
        self._settle()

    def worker_spent(self, worker: Worker, why: str, at: float) -> None:
        """At ``at`` it is to be replaced, if it has not come to that before."""
        if at < worker.spent_at:
            worker.spent_at, worker.spent_why = at, why
            self._slots.touch(worker)

    def worker_expiring(self, worker: Worker, now: float) -> None:
        """It has heard the order to end a call, and retires."""
        if worker.state in UNHEARING:
            worker.leave_by = now + self.generations[worker.generation].times.graceful
        self._move(worker, Transition.EXPIRING, worker.deadline)
        if worker.state is State.DRAINING:
            worker.deadline = worker.leave_by + REPORT_SECONDS
            self._slots.touch(worker)

    def worker_hung(self, worker: Worker, now: float) -> None:
        """A call in it lasts too long, and it was told to end that; also while it retires, for it may be stopped."""
        self._move(worker, Transition.EXPIRE, min(worker.deadline, now + HEAR_SECONDS))

    def worker_stopped(self, worker: Worker, until: float) -> None:
        """A signal has stopped it, and all that it holds waits: by ``until`` it must go on."""
        if worker.state is State.SERVING:
            worker.deadline = until
            self._slots.touch(worker)

    def worker_continued(self, worker: Worker) -> None:
        """It goes on."""
        if worker.state is State.SERVING:
            worker.deadline = NEVER
            self._slots.touch(worker)

    def worker_retiring(self, worker: Worker, now: float) -> None:
        """It is told to retire, perhaps again: then it has no more time, but there may be no siblings any more."""
        if worker.state is not State.DRAINING:
            worker.leave_by = now + self.generations[worker.generation].times.graceful
        last = worker.deadline if worker.state is State.DRAINING else worker.leave_by + REPORT_SECONDS
        self._move(worker, Transition.RETIRE, last)
        worker.hands_on = not self.stopping and self.serving_count > 0

    def worker_quitting(self, worker: Worker, now: float) -> None:
        self._move(worker, Transition.QUIT, now + LEAVE_SECONDS)

    def worker_overdue(self, worker: Worker, now: float) -> None:
        """Its stacks were asked for, or SIGKILL was sent; or there is no pid to send it to, and it is given up."""
        before, facts = worker.state, self.generations[worker.generation]
        asked = before in (State.STARTING, State.HUNG)
        shown = before is State.STARTING and facts.stacks_shown
        self._move(worker, Transition.OVERDUE, now + (0.0 if shown else STACKS_SECONDS) if asked else NEVER)
        if before is State.STARTING:
            facts.stacks_shown = facts.one_by_one = True
        if before in BOOTING:
            why = Failure(f"a worker was not ready within boot_timeout ({facts.times.boot:g} s)")
            self._never_served(worker, why, now)
        self._settle()

    def worker_exited(self, worker: Worker, how: str, now: float) -> None:
        before = worker.state
        self._move(worker, Transition.EXITED, NEVER)
        self.forks.retry_at = min(self.forks.retry_at, now)  # its end has made room for a process
        if before in BOOTING:
            self._never_served(worker, Failure(f"a worker ended before it was ready: {how}"), now)
        elif worker.ready_at < NEVER:
            self._backoffs.died(worker.slot, worker.ready_at, worker.leaving, now)
            self._crashed(worker, how, now)
            self._hasten(now)
        self._settle()

    def killed_for_memory(self, who: str, now: float) -> None:
        """The kernel has killed ``who``. A reload that is under way needs memory for two generations, and fails."""
        why = Failure(f"out of memory: the kernel killed {who} while two generations were there; {MEMORY_WAY_OUT}")
        if self.rolling is not None:
            self._go_back(why, now)
        elif self.coming is not None and self.generations[self.coming].purpose is Purpose.RELOAD:
            self.generation_failed(self.coming, why, now)
            self._settle()
        elif 0 < self._announced < self.current and self.generations[self.current].purpose is Purpose.RELOAD:
            self._tell(EventKind.COSTLY, self.current, why)

    # What follows from it

    def _move(self, worker: Worker, event: Transition, deadline: float) -> None:
        worker.state = following(WORKER, worker.state, event)
        worker.deadline = deadline
        worker.leaving |= event is not Transition.LOAD_FAILED and worker.state in (State.DRAINING, State.LEAVING)
        if worker.state in OVER:
            self.workers.remove(worker)
            self._slots.remove(worker)
        else:
            self._slots.touch(worker)

    def _move_template(self, template: Template, event: Transition, deadline: float) -> None:
        template.state = following(TEMPLATE, template.state, event)
        template.deadline = deadline

    def _never_served(self, worker: Worker, why: Failure, now: float) -> None:
        if self.stopping:
            return
        if worker.generation == self.rolling:
            self._go_back(why, now)
        elif worker.generation == self.current:
            self._backoffs.failed(worker.slot, now, self._longest_delay)

    @property
    def _longest_delay(self) -> float:
        """Seconds until what has failed is tried again, at most."""
        return LAST_DELAY if self.serving_count else URGENT_DELAY

    def _hasten(self, now: float) -> None:
        """A worker that served has ended: what may bring the next one does not wait for the rest of a long delay."""
        soon = now + URGENT_DELAY
        self.template_deaths.hasten(soon)
        if not self.serving_count:
            self._backoffs.hasten(soon)
            self.replace_at = min(self.replace_at, soon)

    def _crashed(self, worker: Worker, how: str, now: float) -> None:
        """A generation whose workers become ready and die would roll for ever; a request may kill any code's."""
        if worker.leaving:
            return
        if worker.generation != self.rolling:
            self._others_crashed_at = now
            return
        if now - worker.ready_at >= HEALTHY_SECONDS or now - self._others_crashed_at < STORM_SECONDS:
            return
        facts = self.generations[worker.generation]
        facts.early_deaths += 1
        if facts.early_deaths > MOST_EARLY_DEATHS:
            self._go_back(Failure(f"its workers end right after they were ready: {how}"), now)

    def _go_back(self, why: Failure, now: float) -> None:
        """Give the slots that the new generation has taken back to the old one."""
        assert self.rolling is not None
        kept, (failed, self.rolling) = self.keeps_old, (self.rolling, None)
        self.outdated = self._outdated_before | {failed}
        serving = any(worker.generation == failed for worker in self.serving())
        if not self.restores() and self.staying(failed):
            self._tell(EventKind.MIXED, failed, why)
        else:
            self._going_back = failed, why
            self._back_by = now + sum(self.generations[failed].times) + MARGIN_SECONDS
            if serving and not kept:
                self._tell(EventKind.GOING_BACK, failed, why)
        self._settle()
        self._doubt_files()

    def staying(self, generation: int) -> int:
        """How many workers of a ``generation`` that failed fill slots for which there is no other worker."""
        there = (each for each in self.workers if each.generation == generation and each.state in PRESENT)
        return sum(not self.keeper(each.slot) for each in there)

    def way_back_took_too_long(self) -> None:
        """Whoever waits for the end of the reload is told, while the way back goes on."""
        if self._going_back is not None:
            (failed, why), self._going_back = self._going_back, None
            self._tell(EventKind.MIXED, failed, why)

    def _doubt_files(self) -> None:
        """No other code has taken over: from now on the files on disk are not what serves."""
        if self._was_ready and not self.restores() and not self.files_changed:
            self.files_changed = True
            self._tell(EventKind.FILES_CHANGED, self._announced)

    def _gone_back(self) -> None:
        """Nothing of the generation that failed is left, or it is overtaken by the next."""
        if self._going_back is not None:
            (failed, why), self._going_back = self._going_back, None
            self._tell(EventKind.WENT_BACK, failed, why)

    def _settle(self) -> None:
        """Draw the conclusions that need no step."""
        if self._going_back is not None and not any(map(self._may_answer_back, self.workers)):
            self._gone_back()
        if self.rolling is not None and self._rolled():
            self.current, self.rolling = self.rolling, None
            self.wanted = self.generations[self.current].wanted
            self.replace_failures = 0
            self.template_deaths.recovered()
            self._backoffs.clear()
            self.files_changed = False
        self._fail_first_start()
        if self.stopping or not self.tried():
            return
        if self.whole():
            self.generations[self.current].one_by_one = False
        # Not the current one: that may have replaced a dead template, and workers only come from it in future.
        oldest = min(self._slots.generations)
        if not self._was_ready:
            self._was_ready = True
            self._announced = oldest
            self._tell(EventKind.READY, oldest)
        elif oldest > self._announced:
            self._announced = oldest
            self._tell(EventKind.SERVES, oldest)
        self._forget_generations()

    def _fail_first_start(self) -> None:
        """Where each worker of a first start has failed and the application says why, trying again would not help."""
        if self._was_ready or self.stopping or self._load_failure is None or self.serving_count or not self._decided():
            return
        if all(self.backoff(slot).failures for slot in range(self.wanted)):
            why, self._load_failure = self._load_failure, None
            self._tell(EventKind.NEVER_STARTED, self.current, why)

    def _may_answer_back(self, worker: Worker) -> bool:
        """Whether an answer of the generation that failed may still come from ``worker``."""
        return self._going_back is not None and worker.generation == self._going_back[0] and worker.state not in UNHEARD

    def _rolled(self) -> bool:
        index, slots = self.index, self.lasting_slots
        if len(index.keepers) < len(slots) or any(slot < len(slots) for slot in index.stale):
            return False
        return all(slot in index.keepers and index.keepers[slot].generation == self.rolling for slot in slots)

    def _forget_generations(self) -> None:
        kept = {self.current, self.coming, *self._slots.generations}
        kept.update(template.generation for template in self.templates)
        self.generations = {number: facts for number, facts in self.generations.items() if number in kept}
        self.outdated &= frozenset(kept)

    def _tell(self, kind: EventKind, generation: int, why: Failure | None = None) -> None:
        self._news.append(Event(kind, generation, why or Failure("")))
