"""The rollout: which generation serves, which is being loaded, which takes over the slots, and what goes back.

A generation is one loading of the application's code. ``current`` is the one that workers come from; ``coming`` is
being loaded; ``rolling`` is loaded and taking over the slots; ``Fleet.outdated`` ones are to be replaced slot by slot.
A generation whose worker does not start gives its slots back.

Where the import of ``current`` is not shared, each worker loads the files on disk, and one that has retired cannot be
brought back. So the workers of before serve until every slot has a new one; and after a reload that failed
(``files_changed``) no worker is replaced but one that has crashed.

``settle`` draws the conclusions that need no step, after each change; what an operator is told of them are ``Event``s.
"""

from __future__ import annotations

from typing import Final

from forkserver.linux.common.records import Record, fresh
from forkserver.master.model.backoff import HEALTHY_SECONDS, LAST_FORK_DELAY, URGENT_DELAY, delay
from forkserver.master.model.events import Event, EventKind, Failure
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import FAILED, MARGIN_SECONDS, Generation, Purpose, Times
from forkserver.master.model.lifecycle import NEVER, UNHEARD, Worker

END_SECONDS: Final = 5.0  # for a template that holds nothing any more
MEMORY_WAY_OUT: Final = "raise the memory limit, have fewer workers, or restart instead"
MOST_EARLY_DEATHS: Final = 1  # of a generation that takes over; one may have been kill -9
_EARLY_DEATHS: Final = (
    "{} of its workers that had been ready ended within {:g} s, the last: {}; "
    "the log has the end of each, with the requests that it was serving"
)
STORM_SECONDS: Final = 10.0  # after a crash of other code, for which a crash says nothing against what takes over


class Rollout(Record):
    """The generations of ``fleet``, by number."""

    fleet: Fleet
    current: int = 0
    coming: int | None = None
    rolling: int | None = None
    reload_wanted: bool = False
    files_changed: bool = False  # a reload has failed, so a worker that imports may load other code than its siblings
    upgrading: bool = False  # the next program is tried, which is to load the next generation: none begins here
    replace_failures: int = 0  # generations in a row that could not replace a dead template
    replace_at: float = 0.0
    serving_generation: int = 0  # the newest that the log has said to serve
    was_ready: bool = False
    last_generation: int = 0
    outdated_before: frozenset[int] = frozenset()  # before the generation that rolls
    going_back: tuple[int, Failure] | None = None  # a generation that failed, while some of it still serves
    back_by: float = NEVER  # when callers that wait for the way back are told that it goes on; NEVER for none
    no_process_since: float = 0.0  # when the kernel had none to give for the first time in a row
    others_crashed_at: float = -STORM_SECONDS  # when a worker of other code than what takes over last crashed
    waiting_generation: int = 0  # serves in place of a first one that did not load, until files change
    load_failure: Failure | None = None  # why it does not load, in a first start or after a reload that has failed
    pending_events: list[Event] = fresh(default_factory=list)

    # What can be asked

    def take_events(self) -> list[Event]:
        """What there is to tell since the last time."""
        taken, self.pending_events = self.pending_events, []
        return taken

    def told_next(self, why: Failure, watched: bool) -> bool:
        """Whether an event has ``why`` told next, with what follows from it.

        That is the end of a first start, and where files are ``watched``, the end of a reload, too.
        """
        goes_back = watched and self.going_back is not None and self.going_back[1] == why
        return goes_back or any(
            event.why == why and (watched or event.kind is EventKind.NEVER_STARTED) for event in self.pending_events
        )

    @property
    def lasting_slots(self) -> range:
        """The slots that there will be when a roll is done, as far as there are workers for them already."""
        wanted = self.fleet.wanted
        after = wanted if self.rolling is None else self.fleet.generations[self.rolling].wanted
        return range(min(wanted, after))

    def whole(self) -> bool:
        """Whether every slot is served by code that is still wanted."""
        return self._decided() and not self.fleet.index.unkept

    def tried(self) -> bool:
        """Whether a worker serves, and every slot is served by code that is still wanted, or its worker has failed.

        Where the kernel has refused processes twice in a row, it has failed those that are missing.
        """
        if not self._decided():
            return False
        fleet = self.fleet
        unkept, refused = fleet.index.unkept, fleet.forks.failures > 1
        return len(unkept) < fleet.wanted and (refused or all(fleet.backoffs.of(slot).troubled for slot in unkept))

    @property
    def failing(self) -> tuple[int, ...]:
        """The slots that are not served, and whose workers have failed."""
        return tuple(sorted(slot for slot in self.fleet.index.unkept if self.fleet.backoffs.of(slot).troubled))

    def _decided(self) -> bool:
        return bool(self.current) and self.rolling is None

    def restores(self) -> bool:
        """Whether workers of the current generation come with its own code, whatever the files hold by now."""
        facts = self.fleet.generations.get(self.current)
        return facts is None or facts.shares

    @property
    def keeps_old(self) -> bool:
        """Whether the workers of before serve on beside the new ones until every slot has a new one."""
        if self.rolling is None or not self.current:
            return False
        new = self.fleet.generations[self.rolling]
        return not (new.shares and self.restores()) and not new.beside

    @property
    def reloading(self) -> bool:
        """Whether other code is being loaded or is taking over; not that of before, for a dead template."""
        return self._coming_by_reload() or self.rolling is not None

    def _coming_by_reload(self) -> bool:
        return self.coming is not None and self._is_reload(self.coming)

    def _is_reload(self, generation: int) -> bool:
        return self.fleet.generations[generation].purpose is Purpose.RELOAD

    @property
    def waiting(self) -> bool:
        """Whether no code of the application has loaded yet, and files are waited for."""
        return self.waits(self.serving_generation)

    @property
    def broken(self) -> bool:
        """Whether files are waited for and no worker is there that has loaded others: every request is answered 503."""
        return self.waiting and all(self.waits(each.generation) for each in self.fleet.serving())

    def waits(self, generation: int) -> bool:
        """Whether ``generation`` is of forkserver's own code, which waits for files."""
        return 0 < self.waiting_generation == self.fleet.origin(generation)

    @property
    def settled(self) -> bool:
        """Whether a generation serves, no other is under way, and no stop is near."""
        near = self.fleet.draining or self.fleet.stopping
        return bool(self.serving_generation) and self.coming is None and self.rolling is None and not near

    # What was decided

    def begin(self, purpose: Purpose, wanted: int, times: Times, shares: bool) -> int:
        """A generation is to be loaded; returns its number."""
        number = self.coming = self.last_generation = self.last_generation + 1
        origin = self.fleet.origin(self.current) if purpose is Purpose.REPLACE else 0
        if purpose is Purpose.START:
            self.current = 0  # the very first one, or one in its place
        self.fleet.generations[number] = Generation(number, purpose, wanted, times, shares, origin=origin)
        if purpose is Purpose.RELOAD:
            self.reload_wanted = False
            self.leave_way_back(EventKind.WENT_BACK)  # or it would be told in the middle of what follows
        return number

    def want_reload(self) -> None:
        """Reload, now or, while another reload is under way, after it; not when a stop is near."""
        self.reload_wanted = not (self.fleet.draining or self.fleet.stopping)

    def reload_refused(self) -> None:
        """The settings to reload with are wrong: all stays as it is."""
        self.reload_wanted = False
        self._doubt_files()

    def want_workers(self, more: int) -> None:
        """So many slots more, or fewer, and the same once a reload is through; never less than one."""
        self.fleet.want(max(1, self.fleet.wanted + more))
        for facts in self.fleet.generations.values():
            if facts.number in (self.coming, self.rolling):
                facts.wanted = max(1, facts.wanted + more)
        self.settle()  # the slot that a roll, or a first start, waited for may be gone

    def limit_surplus(self, generation: int, workers: int) -> None:
        """Memory has room for so many ``workers`` of ``generation`` beside those of before: it rolls in batches."""
        self.fleet.generations[generation].beside = max(1, workers)

    def drain(self, stop_at: float) -> None:
        """A stop follows at ``stop_at``: until then all goes on, and nothing new begins."""
        self.fleet.draining = True
        self.fleet.stop_at = stop_at
        self.reload_wanted = False
        if self._coming_by_reload():
            self.coming = None

    def stop(self, now: float, retire_at: float) -> None:
        """Stop: at ``retire_at``, every worker retires."""
        fleet = self.fleet
        fleet.stopping, fleet.stop_at, fleet.retire_at = True, NEVER, retire_at
        self.coming = self.rolling = self.going_back = None
        self.back_by = NEVER
        for worker in fleet.workers:
            if worker.state in UNHEARD:
                fleet.touch(worker, deadline=min(worker.deadline, now + END_SECONDS))

    def stop_quickly(self, now: float) -> None:
        """Stop: every worker leaves now."""
        self.stop(now, NEVER)
        self.fleet.quick = True

    def loaded(self, generation: int) -> None:
        """The template of ``generation`` has loaded its code, and workers may come from it."""
        if generation != self.coming:
            return
        self.coming, self.replace_failures = None, 0
        fleet = self.fleet
        if self._is_reload(generation):
            self.rolling = generation
            self.outdated_before = fleet.outdated
            fleet.replace(frozenset(fleet.generations) - {generation})
        else:
            self.current = generation
            fleet.backoffs.clear()
        self.settle()

    # What has failed

    def generation_failed(self, generation: int, why: Failure, now: float) -> None:
        """The generation that was coming does not load."""
        if generation != self.coming:
            return
        self.coming = None
        purpose = self.fleet.generations[generation].purpose
        if purpose is Purpose.REPLACE:
            self.replace_failures += 1
            self.replace_at = now + delay(self.replace_failures, self.fleet.longest_delay)
        self.tell(FAILED[purpose], generation, why)
        if purpose is Purpose.RELOAD:
            self._doubt_files()

    def no_process(self, why: str, now: float) -> None:
        """The kernel had no process or descriptor to give: no fault of the code, so it is waited out.

        A reload waits for ``boot_timeout``: the caller that has asked for it is to hear of an end.
        """
        forks = self.fleet.forks
        if not forks.failures:
            self.no_process_since = now
        if now >= forks.retry_at:  # several that fail in one try count once
            forks.failed(now, LAST_FORK_DELAY)
        self.settle()
        number = self.rolling if self.coming is None else self.coming
        if number is None or not self._is_reload(number):
            return
        seconds = self.fleet.generations[number].times.boot
        if now < self.no_process_since + seconds:
            return
        reason = Failure(f"the system has given no process for boot_timeout ({seconds:g} s): {why}")
        if number == self.rolling:
            self.go_back(reason, now)
        else:
            self.generation_failed(number, reason, now)

    def killed_for_memory(self, name: str, now: float) -> None:
        """The kernel has killed process ``name``. A reload under way needs memory for two generations, and fails."""
        why = Failure(f"out of memory: the kernel killed {name} while two generations were there; {MEMORY_WAY_OUT}")
        if self.rolling is not None:
            self.go_back(why, now)
        elif self.coming is not None and self._coming_by_reload():
            self.generation_failed(self.coming, why, now)
            self.settle()
        elif 0 < self.serving_generation < self.current and self._is_reload(self.current):
            self.tell(EventKind.COSTLY, self.current, why)

    def crashed(self, worker: Worker, how: str, now: float) -> None:
        """A generation whose workers become ready and die would roll for ever; a request may kill any code's."""
        if worker.leaving:
            return
        if worker.generation != self.rolling:
            self.others_crashed_at = now
            return
        if now - worker.ready_at >= HEALTHY_SECONDS or now - self.others_crashed_at < STORM_SECONDS:
            return
        facts = self.fleet.generations[worker.generation]
        facts.early_deaths += 1
        if facts.early_deaths > MOST_EARLY_DEATHS:
            self.go_back(Failure(_EARLY_DEATHS.format(facts.early_deaths, HEALTHY_SECONDS, how)), now)

    def tell_unfinished(self, why: Failure) -> None:
        """A reload has taken over, and then lost its workers: the callers that wait for its end are told, once."""
        fleet, facts = self.fleet, self.fleet.generations.get(self.current)
        if facts is None or facts.purpose is not Purpose.RELOAD or not 0 < self.serving_generation < self.current:
            return
        if fleet.lost and not facts.unfinished:
            facts.unfinished = True
            self.tell(EventKind.MIXED, self.current, why)

    def hasten(self, now: float) -> None:
        """A worker that served has ended: what may bring the next one does not wait for the rest of a long delay."""
        soon = now + URGENT_DELAY
        self.fleet.template_deaths.hasten(soon)
        if not self.fleet.serving_count:
            self.fleet.backoffs.hasten(soon)
            self.replace_at = min(self.replace_at, soon)

    def go_back(self, why: Failure, now: float) -> None:
        """Give the slots that the new generation has taken back to the old one."""
        assert self.rolling is not None
        fleet = self.fleet
        kept, (failed, self.rolling) = self.keeps_old, (self.rolling, None)
        fleet.replace(self.outdated_before | {failed})
        serving = any(worker.generation == failed for worker in fleet.serving())
        if not self.restores() and fleet.staying(failed):
            self.tell(EventKind.MIXED, failed, why)
        else:
            self.going_back = failed, why
            self.back_by = now + sum(fleet.generations[failed].times) + MARGIN_SECONDS
            if serving and not kept:
                self.tell(EventKind.GOING_BACK, failed, why)
        self.settle()
        self._doubt_files()

    def leave_way_back(self, how: EventKind) -> None:
        """The callers that wait for the end of the reload are told ``how`` that stands."""
        self.back_by = NEVER
        if self.going_back is not None:
            (failed, why), self.going_back = self.going_back, None
            self.tell(how, failed, why)

    def _doubt_files(self) -> None:
        """No other code has taken over: from now on the files on disk are not what serves."""
        if self.was_ready and not self.restores() and not self.files_changed and not self.broken:
            self.files_changed = True
            self.tell(EventKind.FILES_CHANGED, self.serving_generation)
            if any(each.generation < self.current for each in self.fleet.serving()):
                self.tell_unfinished(Failure("a later reload failed; until one succeeds no worker is replaced"))

    # What follows

    def settle(self) -> None:
        """Draw the conclusions that need no step."""
        fleet = self.fleet
        if self.going_back is not None and not any(map(self._may_answer_back, fleet.workers)):
            self.leave_way_back(EventKind.WENT_BACK)
        if self.rolling is not None and self._rolled():
            self.current, self.rolling = self.rolling, None
            fleet.want(fleet.generations[self.current].wanted)
            self.replace_failures, self.files_changed = 0, False
            fleet.template_deaths.recovered()
            fleet.backoffs.clear()
        self._tell_that_none_loads()
        if fleet.stopping or not self.tried():
            return
        if self.whole():
            fleet.generations[self.current].one_by_one = False
        self._announce()
        self._forget_generations()

    def _announce(self) -> None:
        # Not the current one: that may have replaced a dead template, and workers only come from it in future.
        oldest = min(self.fleet.index.generations)
        if not self.was_ready:
            self.was_ready, self.serving_generation = True, oldest
            self.tell(EventKind.READY, oldest)
        elif oldest > self.serving_generation:
            self.serving_generation = oldest
            self.files_changed = self.files_changed and not self.broken  # what waits loads nothing of the application
            self.tell(EventKind.SERVES, oldest)

    def _tell_that_none_loads(self) -> None:
        """Where each worker has failed and the application says why, trying again would not help.

        In a first start, or with files whose reload has failed, which each worker imports for itself.
        """
        fleet = self.fleet
        if self.load_failure is None or fleet.stopping or fleet.draining or fleet.serving_count:
            return
        if not self._decided() or self.coming is not None or (self.was_ready and not self.files_changed):
            return
        if all(fleet.backoffs.of(slot).failures for slot in range(fleet.wanted)):
            why, self.load_failure = self.load_failure, None
            self.tell(EventKind.NONE_LEFT if self.was_ready else EventKind.NEVER_STARTED, self.current, why)

    def _may_answer_back(self, worker: Worker) -> bool:
        """Whether an answer of the generation that failed may still come from ``worker``."""
        return self.going_back is not None and worker.generation == self.going_back[0] and worker.state not in UNHEARD

    def _rolled(self) -> bool:
        index, slots = self.fleet.index, self.lasting_slots
        if len(index.keepers) < len(slots) or any(slot < len(slots) for slot in index.stale):
            return False
        return all(slot in index.keepers and index.keepers[slot].generation == self.rolling for slot in slots)

    def _forget_generations(self) -> None:
        fleet = self.fleet
        kept = {self.current, self.coming, *fleet.index.generations, *(each.generation for each in fleet.templates)}
        fleet.generations = {number: facts for number, facts in fleet.generations.items() if number in kept}
        fleet.replace(fleet.outdated & frozenset(kept))

    def tell(self, kind: EventKind, generation: int, why: Failure | None = None) -> None:
        """Something that the operator is to be told has happened."""
        self.pending_events.append(Event(kind, generation, why or Failure("")))
