"""Transitions: what each event in the life of a template or a worker changes in the fleet and the rollout.

The master calls one method for each thing that happened or that it has done to a process. The method moves the process
to its next state (lifecycle.py), sets its deadline, and has the rollout draw its conclusions. An event that has no line
in the tables raises UnexpectedError and changes nothing.
"""

from __future__ import annotations

from typing import Final

from forkserver.master.model.events import EventKind, Failure
from forkserver.master.model.lifecycle import BOOTING, NEVER, UNHEARD, UNHEARING, State, Template, Transition, Worker
from forkserver.master.model.rollout import END_SECONDS, Rollout

LEAVE_SECONDS: Final = 2.0  # for a worker that was told to leave at once
STACKS_SECONDS: Final = 1.0  # between asking for stacks and the kill: long enough to write them
HEAR_SECONDS: Final = 2.0  # to say that an order was heard; a worker that does not is stopped, or stuck in C code
_GO_ON: Final = "it is killed, for kill -CONT comes too late; reload again, and send it no SIGSTOP"
_SLOW_IMPORT: Final = "its stacks in the log show where; wait for nothing there, or raise --boot-timeout"
UNENDED_SECONDS: Final = 5.0  # after SIGKILL; a process that has not ended by then is held by something outside
REPORT_SECONDS: Final = 1.0  # after its time to retire, for a worker to say what it still holds, and to leave by itself


class Transitions:
    """The events of processes, told to ``rollout`` and its fleet."""

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout
        self._fleet = rollout.fleet

    # Templates

    def template_started(self, generation: int, pid: int, now: float) -> Template:
        facts = self._fleet.generations[generation]
        template = Template(generation, pid, facts.shares, now + facts.times.boot)
        self._fleet.templates.append(template)
        self._fleet.forks.recovered()
        return template

    def template_loaded(self, template: Template, now: float) -> None:
        # One that has failed, or was late, and says so after that, ends all the same.
        deadline = NEVER if template.state is State.LOADING else template.deadline
        self._fleet.move_template(template, Transition.LOADED, deadline)
        template.loaded_at = now
        if template.state is State.LOADED:
            self._rollout.loaded(template.generation)

    def template_cannot_share(self, template: Template, now: float) -> None:
        """Its import left what a fork would break: another template takes its place, and workers import themselves."""
        self._fleet.generations[template.generation].shares = False
        self._end_template(template, Transition.RETIRE, now)

    def template_failed(self, template: Template, why: Failure, now: float) -> None:
        self._end_template(template, Transition.LOAD_FAILED, now)
        self._rollout.generation_failed(template.generation, why, now)

    def _end_template(self, template: Template, event: Transition, now: float) -> None:
        ending = template.state in (State.ENDING, State.KILLED)  # it may say so again and again
        self._fleet.move_template(template, event, template.deadline if ending else now + END_SECONDS)

    def template_ending(self, template: Template, now: float) -> None:
        self._fleet.move_template(template, Transition.RETIRE, now + END_SECONDS)

    def template_unreachable(self, template: Template, now: float) -> None:
        """It has closed its channel: mostly because it is ending, and if not, it is of no use."""
        if template.state is not State.KILLED:
            template.deadline = min(template.deadline, now + END_SECONDS)

    def template_overdue(self, template: Template, now: float) -> None:
        """Its stacks were asked for, or SIGKILL was sent."""
        loading = template.state is State.LOADING
        self._fleet.move_template(template, Transition.OVERDUE, now + (STACKS_SECONDS if loading else UNENDED_SECONDS))
        if loading:
            seconds = self._fleet.generations[template.generation].times.boot
            why = Failure(f"the import took longer than boot_timeout ({seconds:g} s); {_SLOW_IMPORT}")
            if template.stopped:
                why = Failure(f"{_stopped(template)} while it imported, for boot_timeout ({seconds:g} s); {_GO_ON}")
            self._rollout.generation_failed(template.generation, why, now)

    def template_stopped(self, template: Template, stopped: bool) -> None:
        """A signal has stopped it, or it goes on."""
        template.stopped = stopped

    def template_exited(self, template: Template, how: str, now: float) -> None:
        fleet, rollout, before = self._fleet, self._rollout, template.state
        fleet.move_template(template, Transition.EXITED, NEVER)
        if fleet.stopping:
            return
        if template.generation == rollout.rolling and fleet.template(rollout.rolling) is None:
            rollout.go_back(Failure(f"its template died: {how}"), now)
        elif before is State.LOADED and template.generation == rollout.current:
            fleet.template_deaths.died(now - template.loaded_at, now, fleet.longest_delay)
            rollout.tell(EventKind.TEMPLATE_DIED, template.generation, Failure(how))
        elif before is State.LOADING:
            why = Failure(f"the process that imported it ended: {how}")
            rollout.generation_failed(template.generation, why, now)
        rollout.settle()

    # Processes that a kill does not end

    def given_up(self, pid: int, name: str) -> None:
        """``pid`` has not ended in time although SIGKILL was sent. ``template_exited`` or ``worker_exited`` follows,
        where it is one of these.
        """
        self._fleet.unended[pid] = name

    def ended_late(self, pid: int) -> str:
        """``pid`` has ended; returns the name of the process that was given up under it, empty for none."""
        return self._fleet.unended.pop(pid, "")

    # Workers that start

    def worker_ordered(self, slot: int, generation: int, row: int, now: float) -> Worker:
        worker = Worker(slot, generation, row, now + self._fleet.generations[generation].times.boot)
        self._fleet.add(worker)
        self._fleet.backoffs.ordered(slot, self._fleet.wanted, now)
        return worker

    def spawn_failed(self, slot: int, generation: int, why: str, now: float) -> None:
        """No worker could be ordered: there is no room."""
        if generation == self._rollout.rolling:
            self._rollout.go_back(Failure(f"no worker could be started: {why}"), now)
        else:
            self._not_started(slot, Failure(f"no worker could be started: {why}"), now)
            self._rollout.settle()

    def worker_forked(self, worker: Worker, pid: int) -> None:
        """The template has named its pid."""
        self._fleet.move(worker, Transition.FORKED, worker.deadline)
        worker.pid = pid
        self._fleet.forks.recovered()

    def worker_not_forked(self, worker: Worker, why: str, now: float) -> None:
        """Its template had no process for it."""
        self._fleet.move(worker, Transition.FORK_FAILED, NEVER)
        self._rollout.no_process(why, now)

    def worker_announced(self, worker: Worker, pid: int, now: float) -> None:
        """It lives, and begins to import or to start: ``boot_timeout`` counts from here."""
        booting = worker.state in BOOTING
        boot = self._fleet.generations[worker.generation].times.boot
        self._fleet.move(worker, Transition.HELLO, now + boot if booting else worker.deadline)
        worker.pid = pid

    def worker_loaded(self, worker: Worker) -> None:
        self._fleet.move(worker, Transition.LOADED, worker.deadline)

    def worker_ready(self, worker: Worker, now: float) -> None:
        starting = worker.state is State.STARTING
        self._fleet.move(worker, Transition.READY, NEVER if starting else worker.deadline)
        if worker.state is State.SERVING:
            worker.ready_at = now
            self._fleet.backoffs.became_ready(worker.slot, self._fleet.serving_count == 1, now)
            facts = self._fleet.generations[worker.generation]
            facts.proven, facts.stacks_shown = True, False
            self._rollout.settle()

    def worker_load_failed(self, worker: Worker, why: Failure, now: float) -> None:
        rollout, starting = self._rollout, worker.state is State.STARTING
        self._fleet.move(worker, Transition.LOAD_FAILED, now + LEAVE_SECONDS if starting else worker.deadline)
        if not starting or self._fleet.stopping:
            return
        wanted = rollout.files_changed if rollout.was_ready else rollout.load_failure is None
        if wanted and worker.generation != rollout.rolling:
            rollout.load_failure = why
        self._never_served(worker, why, now)
        rollout.settle()

    def _never_served(self, worker: Worker, why: Failure, now: float) -> None:
        if self._fleet.stopping:
            return
        if worker.generation == self._rollout.rolling:
            self._rollout.go_back(why, now)
        elif worker.generation == self._rollout.current:
            self._not_started(worker.slot, why, now)

    def _not_started(self, slot: int, why: Failure, now: float) -> None:
        """A worker of code that has taken over did not become ready: it is tried again later."""
        fleet = self._fleet
        fleet.backoffs.failed(slot, now, fleet.longest_delay)
        if self._rollout.rolling is None and all(fleet.backoffs.of(each).troubled for each in fleet.index.unkept):
            self._rollout.tell_unfinished(why)

    # Workers that serve, retire or end

    def worker_due(self, worker: Worker, why: str, at: float) -> None:
        """At ``at`` it is to be replaced, if it has not come to that before."""
        if at < worker.recycle_at:
            worker.recycle_at, worker.recycle_why = at, why
            self._fleet.index.touch(worker)

    def worker_hung(self, worker: Worker, now: float) -> None:
        """A call in it lasts too long, and it was told to end that; also while it retires, for it may be stopped."""
        self._fleet.move(worker, Transition.EXPIRE, min(worker.deadline, now + HEAR_SECONDS))

    def worker_expiring(self, worker: Worker, now: float) -> None:
        """It has heard the order to end a call, and retires."""
        if worker.state in UNHEARING:
            worker.leave_by = now + self._fleet.generations[worker.generation].times.graceful
        self._fleet.move(worker, Transition.EXPIRING, worker.deadline)
        if worker.state is State.DRAINING:
            self._fleet.touch(worker, deadline=worker.leave_by + REPORT_SECONDS)

    def worker_stopped(self, worker: Worker, until: float) -> None:
        """A signal has stopped it, and all that it holds waits: by ``until`` it must go on."""
        if worker.state is State.SERVING:
            self._fleet.touch(worker, deadline=until)

    def worker_continued(self, worker: Worker) -> None:
        """It goes on."""
        if worker.state is State.SERVING:
            self._fleet.touch(worker, deadline=NEVER)

    def worker_retiring(self, worker: Worker, now: float) -> None:
        """It is told to retire, perhaps again: then its time stays as it was, but there may be no siblings left.

        Where it hung and none serves beside it, what waits there is for the one that starts in its place.
        """
        hung = worker.state is State.DRAINING and not self._fleet.stopping
        if worker.state is not State.DRAINING:
            worker.leave_by = now + self._fleet.generations[worker.generation].times.graceful
        if worker.in_debugger:
            worker.leave_by = NEVER
        last = worker.deadline if worker.state is State.DRAINING else worker.leave_by + REPORT_SECONDS
        self._fleet.move(worker, Transition.RETIRE, last)
        worker.hands_on = hung or (not self._fleet.stopping and self._fleet.serving_count > 0)

    def worker_in_debugger(self, worker: Worker, on: bool, now: float) -> None:
        """A person has begun to use a debugger in one of its calls, or has ended that: until then it has all time."""
        worker.in_debugger = on
        if worker.state is State.DRAINING:
            worker.leave_by = NEVER if on else now + self._fleet.generations[worker.generation].times.graceful
            self._fleet.touch(worker, deadline=worker.leave_by + REPORT_SECONDS)

    def worker_unreachable(self, worker: Worker, now: float) -> None:
        """It has closed its channel: mostly because it is ending, and if not, it is of no use."""
        if worker.state is State.SERVING:  # in any other state it has a deadline
            self._fleet.touch(worker, deadline=min(worker.deadline, now + LEAVE_SECONDS))

    def worker_quitting(self, worker: Worker, now: float) -> None:
        self._fleet.move(worker, Transition.QUIT, now + LEAVE_SECONDS)

    def worker_overdue(self, worker: Worker, now: float) -> None:
        """Its stacks were asked for, or SIGKILL was sent; or there is no pid to send it to, and it is given up."""
        before, facts = worker.state, self._fleet.generations[worker.generation]
        asked = before in (State.STARTING, State.HUNG)
        shown = before is State.STARTING and facts.stacks_shown
        deadline = now + (0.0 if shown else STACKS_SECONDS) if asked else now + UNENDED_SECONDS
        self._fleet.move(worker, Transition.OVERDUE, deadline)
        if before is State.STARTING:
            facts.stacks_shown = facts.one_by_one = True
        if before in BOOTING:
            why = Failure(f"a worker was not ready within boot_timeout ({facts.times.boot:g} s)")
            parent = self._fleet.parent(worker)
            if before in UNHEARD and parent is not None and parent.stopped:
                why = Failure(f"{_stopped(parent)} and forked no worker in boot_timeout ({facts.times.boot:g} s)")
            self._never_served(worker, why, now)
        self._rollout.settle()

    def worker_exited(self, worker: Worker, how: str, now: float) -> None:
        fleet, before = self._fleet, worker.state
        fleet.move(worker, Transition.EXITED, NEVER)
        fleet.forks.retry_at = min(fleet.forks.retry_at, now)  # its end has made room for a process
        if before in BOOTING:
            self._never_served(worker, Failure(f"a worker ended before it was ready: {how}"), now)
        elif worker.ready_at < NEVER:
            fleet.backoffs.died(worker.slot, worker.ready_at, worker.leaving, now)
            self._rollout.crashed(worker, how, now)
            self._rollout.hasten(now)
        self._rollout.settle()


def _stopped(template: Template) -> str:
    return f"its process, pid {template.pid}, was stopped by a signal (SIGSTOP, as kill -STOP sends it)"
