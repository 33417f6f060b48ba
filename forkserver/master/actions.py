"""Actions: what the master does to processes, one for each step of a plan, and the orders beside it.

Each action signals a process (by its pidfd), sends it an order, or has the launcher start one, and tells the model of
it, so that no plan names the step twice. Which steps are taken, and when, stands in plan.py.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable
from typing import Final

from forkserver.errors import ForkserverError, own_files_missing
from forkserver.ipc import messages
from forkserver.linux import process_info, signals, syscalls
from forkserver.master.model import plan
from forkserver.master.model.events import EventKind
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import UNHEARING, Process, State, Template, Worker
from forkserver.master.model.model import Model
from forkserver.master.model.transitions import HEAR_SECONDS, LEAVE_SECONDS
from forkserver.master.monitoring import memory_headroom
from forkserver.master.monitoring.memory import end_of_life
from forkserver.master.monitoring.request_timeouts import TimedOutRequest
from forkserver.master.processes.broken_code import BrokenCode
from forkserver.master.processes.launcher import Launcher
from forkserver.master.processes.processes import Processes
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.resources import Resources
from forkserver.worker import template

# The longest timeout that can be set. By its deadline a stopped worker is known to status and watchdog, so it has one
# where calls have no limit, too.
LONGEST_STOP: Final = 365 * 86400.0


class Actions:
    """Acts on ``processes``, which ``launcher`` starts, and tells ``model`` of it."""

    def __init__(
        self,
        resources: Resources,
        model: Model,
        processes: Processes,
        launcher: Launcher,
        reporter: Reporter,
        broken_code: BrokenCode,
    ) -> None:
        self._resources = resources
        self._fleet, self._rollout, self._transitions = model
        self._processes = processes
        self._poller, self._children, _, self._table = processes
        self._launcher = launcher
        self._reporter = reporter
        self._broken_code = broken_code
        self._loaded: set[Worker] = set()  # were given what they are to serve
        self._reload_to = 0  # the generation of the last reload
        self._entered = False  # whether a reload may have entered another directory than what serves was loaded from

    def act(self, step: plan.Step, now: float) -> None:
        """Take one step."""
        match step:
            case plan.Reload():
                self._reload(now)
            case plan.Replace():
                self._launcher.replace()
            case plan.StartTemplate(generation, shares):
                self._launcher.start_template(generation, shares, now)
            case plan.EndTemplate(each):
                self._end_template(each, now)
            case plan.AskForStacks(process):
                self._ask_for_stacks(process, now)
            case plan.AskForLastWords(worker):
                heard = syscalls.hears(worker.pid, signals.LAST_WORDS)
                follows = "where it stands follows" if heard else "where it stands it cannot say (stopped by a signal?)"
                self._resources.log.error(f"{worker} does not hear that; {follows}, then it is killed")
                self._children.signal(worker, signals.LAST_WORDS)
                self._transitions.worker_overdue(worker, now)
            case plan.EndWayBack():
                self._rollout.leave_way_back(EventKind.MIXED)  # it goes on
            case plan.KillTemplate(each):
                late = "forked a worker within boot_timeout" if each.state is State.LOADED else "ended in time"
                why = ": a signal had stopped it" if each.stopped else ""
                self._resources.log.error(f"{each} has not {late}{why}; the master kills it")
                self._children.kill(each)
                self._transitions.template_overdue(each, now)
            case plan.SpawnWorker(slot, generation):
                self._launcher.spawn(slot, generation, now)
            case plan.Recycle(worker, generation):
                self._resources.log.info(f"{worker} is recycled: {worker.recycle_why}")
                self._launcher.spawn(worker.slot, generation, now)
            case plan.RetireWorker(worker):
                self._retire(worker, now)
            case plan.KeepConnections(worker):
                self._order_to_retire(worker, now)
            case plan.QuitWorker(worker):
                self._children.signal(worker, signals.LEAVE_NOW)
                self._transitions.worker_quitting(worker, now)
            case plan.KillWorker(worker):
                self.kill(worker, self._sentence(worker), now)
            case plan.AbandonWorker(worker):
                self._resources.log.error(f"{worker} was ordered and never forked; it is given up")
                self._transitions.worker_overdue(worker, now)
                self.release(worker)

    def kill(self, worker: Worker, why: str, now: float) -> None:
        """SIGKILL. ``why`` is told when the worker has ended."""
        worker.sentence = why
        self._resources.log.debug(f"the master kills {worker}: {why}")
        self._children.kill(worker)
        self._transitions.worker_overdue(worker, now)

    def end(self, process: Process) -> None:
        """SIGKILL, by its pidfd; what becomes of it is told when it has ended."""
        self._children.kill(process)

    def stopped(self, worker: Worker, now: float) -> None:
        """A signal has stopped it: it may stand still for as long as a call may last."""
        self._resources.log.warning(f"{worker} was stopped by a signal; kill -CONT {worker.pid} lets it go on")
        limit = self._table.settings_of(worker).timeout
        self._transitions.worker_stopped(worker, now + min(limit, LONGEST_STOP))

    def stands_still(self, worker: Worker, how: str, now: float) -> None:
        """A debugger holds it, which is told; or its main thread has ended, and it is of no use."""
        why = process_info.why_unended(worker.pid)
        if how == process_info.STOPPED:
            self._resources.log.warning(f"{worker} is stopped, and all that it holds waits: {why}")
        else:
            self.kill(worker, f"its main thread had ended, and its process had not: {why}", now)

    def _sentence(self, worker: Worker) -> str:
        times = self._fleet.generations[worker.generation].times
        match worker.state:
            case State.FORKED | State.STALLED:
                return f"it was not ready within boot_timeout ({times.boot:g} s)"
            case State.DEAF | State.DRAINING if worker.deadline < worker.leave_by:
                return f"it did not hear within {HEAR_SECONDS:g} s that its call takes too long; stopped, or in C code"
            case State.SERVING if self._poller.channel(worker) is None:
                return (
                    f"it had closed its channel to the master and not ended within {LEAVE_SECONDS:g} s: it runs "
                    "another program (execve), its descriptors were closed, or its exit waits for threads"
                )
            case State.SERVING:
                return f"a signal had stopped it for timeout ({self._table.settings_of(worker).timeout:g} s)"
            case State.LEAVING:
                return f"it had not left within {LEAVE_SECONDS:g} s"
            case _:
                return f"it had not left within graceful_timeout ({times.graceful:g} s)"

    def expire(self, call: TimedOutRequest, now: float) -> None:
        """Have the call's worker write its stacks, and end the call."""
        self._poller.order(call.worker, messages.Expire(call.thread, call.since))
        self._transitions.worker_hung(call.worker, now)
        self._table.show(call.worker)

    def expiring(self, worker: Worker, now: float) -> None:
        """It has heard that: it retires."""
        hung = worker.state in UNHEARING
        self._transitions.worker_expiring(worker, now)
        if hung:
            self._order_to_retire(worker, now)

    def ready(self, worker: Worker, now: float) -> None:
        """It has begun to serve."""
        self._measure(worker)
        self._transitions.worker_ready(worker, now)
        if worker.generation != self._rollout.rolling or not self._rollout.keeps_old:
            self._treat_as_serving(worker)
        lifetime = self._table.settings_of(worker).max_worker_lifetime
        if worker.state is State.SERVING and lifetime:
            why = f"its age (max_worker_lifetime: {lifetime:g} s)"
            self._transitions.worker_due(worker, why, end_of_life(lifetime, now))
        if self._fleet.draining:
            self._poller.order(worker, messages.Drain())

    def template_loaded(self, each: Template, now: float) -> None:
        """It has loaded the code."""
        self._transitions.template_loaded(each, now)
        self.give_listeners(each)
        if each.generation != self._rollout.rolling:
            self._treat_as_serving(each)

    def decided(self) -> None:
        """A generation has taken over, or has failed to: what serves now is what is to be spared."""
        for process in self._fleet.processes:
            serves = isinstance(process, Template) or process.state is State.SERVING
            if serves and process.generation not in (self._rollout.coming, self._rollout.rolling):
                self._treat_as_serving(process)

    def _treat_as_serving(self, process: Process) -> None:
        """Have the kernel, where memory runs out, spare it as it spares what serves: see OOM_WHILE_LOADING.

        The master does that: a process that has changed its user may not write there itself, see proc(5).
        """
        try:
            syscalls.set_oom_score(process.pid, syscalls.oom_score() + template.OOM_MORE)
        except OSError as error:  # it has just ended, or a sandbox without a writable /proc
            self._resources.log.debug(f"{process}: oom_score_adj cannot be lowered: {error.strerror}")

    def _measure(self, worker: Worker) -> None:
        """After the first worker of a generation that takes over: whether all of them fit beside those of before."""
        rollout, begun = self._rollout, self._fleet.generations[worker.generation]
        if worker.generation != rollout.rolling or begun.proven or begun.shares or not rollout.keeps_old:
            return
        size, left = memory_headroom.private(worker.pid), memory_headroom.available()
        room = memory_headroom.more_workers(size, left)
        if room + 1 < len(rollout.lasting_slots):
            rollout.limit_surplus(worker.generation, int(room) + 1)
            self._reporter.in_batches(worker.generation, int(room) + 1, size, left)

    def pass_on(self, signum: int) -> None:
        """Send a signal of the terminal to the process groups of the application, which the terminal does not reach.

        Our own processes do nothing about it; programs that the application has started end as at any terminal.
        """
        for process in self._fleet.processes:
            self._children.signal_group(process, signum)  # each leads a group, once it has a session of its own

    def resize(self, more: int) -> str:
        """Want so many workers more, or fewer; returns what may keep some of them from starting, else nothing."""
        self._rollout.want_workers(more)
        resources = self._resources
        why = resources.make_room(resources.settings.nofile, self._fleet.wanted, len(resources.listeners))
        self._reporter.resized()
        return why

    def drain(self) -> None:
        """A stop is near: answers are to close their connections."""
        for worker in self._fleet.serving():
            self._poller.order(worker, messages.Drain())

    def maintain(self, on: bool) -> None:
        """Have 503 answered in place of the application, by those to come too, or the application again."""
        self._fleet.maintenance = on
        for worker in self._fleet.workers:
            self._poller.order(worker, messages.Maintain(on))

    def ask_for_stacks(self, worker: Worker, serial: int) -> bool:
        """Have ``worker`` report where its threads are; whether it could be asked."""
        return self._poller.order(worker, messages.ShowStacks(serial))

    def begin_profile(self, worker: Worker, order: messages.BeginProfile, descriptors: Iterable[int]) -> bool:
        """Have ``worker`` sample itself, with ``descriptors`` for that; whether it could be told."""
        return self._poller.order(worker, order, descriptors)

    def comes_by_reload(self, process: Process) -> bool:
        """Whether ``process`` runs the code of the last reload, by its settings."""
        return process.generation == self._reload_to

    def has_loaded(self, worker: Worker) -> bool:
        """Whether it was given its listeners already."""
        return worker in self._loaded

    def give_listeners(self, process: Process) -> None:
        """To a worker, to serve them; to a template, to end our own ones if the master dies."""
        listeners = self._resources.listeners
        if isinstance(process, Template):
            own = [listener.fileno() for listener in listeners if listener.ends]
            self._poller.order(process, messages.Guard(), own)
        elif listeners and process.state is State.STARTING and not self._superfluous(process):
            self._loaded.add(process)
            numbers = ",".join(str(listener.told) for listener in listeners)
            order = messages.Serve(siblings=True, maintenance=self._fleet.maintenance, numbers=numbers)
            descriptors = [listener.fileno() for listener in listeners]
            self._poller.order(process, order, [*descriptors, *self._launcher.handoff])

    def _superfluous(self, worker: Worker) -> bool:
        """Whether it comes from a roll that has failed meanwhile, and others serve in its place: it is retired next."""
        return worker.generation in self._fleet.outdated and self._fleet.keeper(worker.slot) is not None

    @property
    def next_look(self) -> float:
        """When ``settle_listeners`` is due although nothing has happened."""
        return self._resources.listener_set.drop_at

    def settle_listeners(self, now: float) -> None:
        """Keep what a reload has changed once its code has taken over, or else take it back.

        That is listeners, logs, and the directory that it has entered.
        """
        fleet, rollout = self._fleet, self._rollout
        undecided = fleet.stopping or self._reload_to in (rollout.coming, rollout.rolling)  # a stop closes all of them
        if self._resources.changing and not undecided:
            taken = rollout.current == self._reload_to
            if self._resources.logs.changing and not taken:
                self._reporter.forget_errors()
            self._resources.settle(taken, now)
        if self._entered and not undecided and rollout.current:
            self._entered = False
            if rollout.current != self._reload_to:
                self._launcher.return_to_release()
        if now >= self._resources.listener_set.drop_at:
            for number in self._resources.drop_listeners():
                for worker in fleet.workers:
                    self._poller.order(worker, messages.Drop(number))
            self._guard_listeners()

    def _guard_listeners(self) -> None:
        for each in self._fleet.templates:
            if each.state is State.LOADED:
                self.give_listeners(each)

    def close_listeners(self) -> None:
        """Every worker has the order to retire: from now on the workers alone hold the listeners."""
        if self._resources.listeners:
            self._resources.listener_set.close()
            for each in self._fleet.templates:
                self._poller.order(each, messages.Guard())

    def release(self, worker: Worker) -> None:
        """Give back what a worker had that has ended."""
        self._loaded.discard(worker)
        self._processes.release(worker)

    # Templates

    def _reload(self, now: float) -> None:
        self.settle_listeners(now)
        self._entered = True
        try:
            self._resources.reload()
        except (ForkserverError, ImportError) as error:
            self._rollout.reload_refused()
            reason = own_files_missing(error) or str(error)
            self._reporter.settings_refused(reason)
            self._broken_code.settings_refused(reason)
            return
        except Exception as error:  # no memory, or a fault of ours: no reason to end what serves
            self._rollout.reload_refused()
            self._resources.log.error("a fault in a reload", details=traceback.format_exc())
            self._reporter.settings_refused(f"a fault of forkserver's, or of this machine: {error!r}")
            return
        self._reload_to = self._launcher.begin(Purpose.RELOAD, self._resources.settings)
        self._guard_listeners()
        self._reporter.reloading(self._reload_to)

    def _end_template(self, each: Template, now: float) -> None:
        # While it imports it hears no order; the signal ends it there.
        if each.state is not State.LOADED or not self._poller.order(each, messages.Retire(0, handoff=False)):
            self._children.signal(each, signals.LEAVE)
        self._transitions.template_ending(each, now)

    def _ask_for_stacks(self, process: Process, now: float) -> None:
        if isinstance(process, Worker) and self._fleet.generations[process.generation].stacks_shown:
            self._resources.log.debug(f"{process} has not started within boot_timeout, as one before it; it is killed")
        else:
            heard = syscalls.hears(process.pid, signal.SIGUSR2)
            follows = "its stacks follow" if heard else "it cannot write its stacks (stopped, or SIGUSR2 is blocked)"
            self._resources.log.error(f"{process} has not started within boot_timeout; {follows}, then it is killed")
            self._children.signal(process, signal.SIGUSR2)
        if isinstance(process, Template):
            self._transitions.template_overdue(process, now)
        else:
            self._transitions.worker_overdue(process, now)

    def _retire(self, worker: Worker, now: float) -> None:
        starting = worker.state is State.STARTING
        # Before it serves it may be importing, and hear only a signal.
        if not self._order_to_retire(worker, now) or starting:
            self._children.signal(worker, signals.LEAVE)
        self._table.show(worker)

    def _order_to_retire(self, worker: Worker, now: float) -> bool:
        """Have it finish within its grace, and hand on what it holds, where others serve on."""
        self._transitions.worker_retiring(worker, now)
        grace, why = max(0.0, worker.leave_by - now), self._fleet.reason_to_leave(worker)
        return self._poller.order(worker, messages.Retire(grace, worker.hands_on, why))
