"""The steps of a plan, taken: what the master does to processes.

It promises that the roster hears of every step, so that no plan names it twice. It refuses to decide: which steps, and
when, stands in plan.py.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from functools import partial
from typing import Final, NamedTuple

from forkserver.config.settings import SURPLUS, Settings
from forkserver.errors import ConfigError, ForkserverError, own_files_missing
from forkserver.ipc import messages, scoreboard
from forkserver.ipc.channel import MasterChannel
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.ipc.scoreboard import Row
from forkserver.linux import cgroups, process_limits, signals, syscalls
from forkserver.master.children import Children
from forkserver.master.control import socket as control_socket
from forkserver.master.model import plan
from forkserver.master.model.events import Failure
from forkserver.master.model.fleet import HEAR_SECONDS, LEAVE_SECONDS, Roster
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.lifecycle import UNHEARING, State, Template, Worker
from forkserver.master.monitoring import memory_headroom
from forkserver.master.monitoring.memory import end_of_life
from forkserver.master.monitoring.request_timeouts import TimedOutRequest
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources import generation_config as generation_configs
from forkserver.master.resources.generation_config import GenerationConfig, GenerationConfigs
from forkserver.master.resources.resources import Resources
from forkserver.worker import template
from forkserver.worker.loading.release import Release, gone, moved

# The longest timeout that can be set. By its deadline a stopped worker is known to status and watchdog, so it has one
# where calls have no limit, too.
LONGEST_STOP: Final = 365 * 86400.0

_ROW_STATES: Final = {
    State.ORDERED: scoreboard.STARTING,
    State.STARTING: scoreboard.STARTING,
    State.SERVING: scoreboard.SERVING,
}


class ActionsSnapshot(NamedTuple):
    """What the next program is told, by numbers of descriptors."""

    handoff: tuple[int, int]
    generation_configs: list[generation_configs.GenerationConfigsSnapshot]

    def descriptors(self) -> list[int]:
        """What has to stay open."""
        return [*self.handoff, *(each.board for each in self.generation_configs)]


class Actions:
    """The master's hands. ``noted`` are its signals, which a template leaves behind.

    ``held`` is what the program before has in its hands.
    """

    def __init__(
        self,
        resources: Resources,
        facts: Roster,
        reporter: Reporter,
        links: ChannelPoller,
        children: Children,
        noted: signals.BlockedSignals,
        held: ActionsSnapshot | None = None,
    ) -> None:
        self._resources = resources
        self._facts = facts
        self._reporter = reporter
        self._links = links
        self._children = children
        self._loaded: set[Worker] = set()  # who were given what they are to serve
        self._signals = noted
        self._given = GenerationConfigs(resources.board)
        self._rows: dict[Worker, Row] = {}
        self._reload_to = 0  # the generation of the last reload
        # Connections on their way between workers: give, take. Ours too, so that none is lost while nobody takes.
        # Numbers, no objects, and never closed here: the kernel closes what is left in the queue in the context of the
        # last who holds it, and would wait there for a connection that lingers. Where a process ends it does not wait.
        if held is None:
            ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            self._handoff = ends[0].detach(), ends[1].detach()
        else:
            self._take(held)

    def _take(self, held: ActionsSnapshot) -> None:
        self._handoff = held.handoff
        self._given.take(held.generation_configs, self._facts.current, self._resources.tls_of)
        self._rows = {worker: self._given[worker.generation].board.keep(worker.row) for worker in self._facts.workers}

    def held(self) -> ActionsSnapshot:
        """What the next program is told."""
        return ActionsSnapshot(self._handoff, self._given.held(self._facts.generations))

    def act(self, step: plan.Step, now: float) -> None:
        """Take one step."""
        match step:
            case plan.Reload():
                self._reload(now)
            case plan.Replace():
                settings = self._given[self._facts.current].settings  # not those of a reload that has failed since
                self._reporter.replacing(self.begin(Purpose.REPLACE, settings))
            case plan.StartTemplate(generation, shares):
                self._start_template(generation, shares, now)
            case plan.EndTemplate(each):
                self._end_template(each, now)
            case plan.AskForStacks(process):
                self._ask_for_stacks(process, now)
            case plan.AskForLastWords(worker):
                heard = syscalls.hears(worker.pid, signals.LAST_WORDS)
                follows = "where it stands follows" if heard else "where it stands it cannot say (stopped by a signal?)"
                self._resources.log.error(f"{worker} does not hear that; {follows}, then it is killed")
                self._children.signal(worker, signals.LAST_WORDS)
                self._facts.worker_overdue(worker, now)
            case plan.EndWayBack():
                self._facts.way_back_took_too_long()
            case plan.KillTemplate(each):
                late = "forked a worker within boot_timeout" if each.state is State.LOADED else "ended in time"
                self._resources.log.error(f"{each} has not {late}; the master kills it")
                self._children.kill(each)
                self._facts.template_overdue(each, now)
            case plan.SpawnWorker(slot, generation):
                self._spawn(slot, generation, now)
            case plan.Recycle(worker, generation):
                self._reporter.recycling(worker)
                self._spawn(worker.slot, generation, now)
            case plan.RetireWorker(worker):
                self._retire(worker, now)
            case plan.KeepConnections(worker):
                self._order_to_retire(worker, now)
            case plan.QuitWorker(worker):
                self._children.signal(worker, signals.LEAVE_NOW)
                self._facts.worker_quitting(worker, now)
            case plan.KillWorker(worker):
                self.kill(worker, self._sentence(worker), now)
            case plan.AbandonWorker(worker):
                self._resources.log.error(f"{worker} was ordered and never forked; it is given up")
                self._facts.worker_overdue(worker, now)
                self.release(worker)

    def begin(self, purpose: Purpose, settings: Settings) -> int:
        """Begin a generation that is to run by ``settings``; returns its number."""
        times = Times(settings.boot_timeout, settings.graceful_timeout)
        # What takes a dead template's place loads no code where its workers do that themselves.
        shares = settings.preload != "off" and (purpose is not Purpose.REPLACE or self._facts.restores())
        number = self._facts.begin(purpose, settings.workers, times, shares)
        # The code and settings of before, with the rows that fit them: a refused reload may have brought others.
        newest = self._resources.board
        if purpose is Purpose.REPLACE:
            given = self._given[self._facts.current]
            if not given.board.sealed:
                given = given._replace(board=self._resources.sealed_board(settings))
        else:
            release = Release.of(self._resources.directory, settings)
            given = GenerationConfig(settings, newest, self._resources.tls, release)
        self._given.add(number, given, self._facts.generations, newest)
        return number

    def most_seconds(self, worker: Worker) -> float:
        """How many seconds a call of ``worker`` may last."""
        return self._given[worker.generation].settings.timeout

    def watched_calls(self) -> list[tuple[Worker, Row, float]]:
        """The workers that may be in a call, each with its row and how many seconds a call may last."""
        return [
            (worker, self._rows[worker], self._given[worker.generation].settings.timeout)
            for worker in self._facts.workers
            if worker.state in (State.SERVING, *UNHEARING, State.DRAINING)
        ]

    def watched_sizes(self, now: float) -> list[tuple[Worker, int]]:
        """The workers that serve and are not spent yet, each with the bytes of memory that it may have."""
        return [
            (worker, self._given[worker.generation].settings.max_worker_memory)
            for worker in self._facts.serving()
            if worker.spent_at > now
        ]

    def kill(self, worker: Worker, why: str, now: float) -> None:
        """SIGKILL. ``why`` is told when the worker has ended."""
        worker.sentence = why
        self._resources.log.debug(f"the master kills {worker}: {why}")
        self._children.kill(worker)
        self._facts.worker_overdue(worker, now)

    def end(self, process: Template | Worker) -> None:
        """SIGKILL, by its pidfd; what becomes of it is told when it has ended."""
        self._children.kill(process)

    def stopped(self, worker: Worker, now: float) -> None:
        """A signal has stopped it: it may stand still for as long as a call may last."""
        self._resources.log.warning(f"{worker} was stopped by a signal; kill -CONT {worker.pid} lets it go on")
        limit = self._given[worker.generation].settings.timeout
        self._facts.worker_stopped(worker, now + min(limit, LONGEST_STOP))

    def template_stopped(self, each: Template) -> None:
        """A signal has stopped it. It is killed once it was to fork a worker and has not done so."""
        self._resources.log.warning(
            f"{each} was stopped by a signal: no worker can be started; kill -CONT {each.pid} lets it go on"
        )

    def _sentence(self, worker: Worker) -> str:
        times = self._facts.generations[worker.generation].times
        match worker.state:
            case State.FORKED | State.STALLED:
                return f"it was not ready within boot_timeout ({times.boot:g} s)"
            case State.DEAF | State.DRAINING if worker.deadline < worker.leave_by:
                return f"it did not hear within {HEAR_SECONDS:g} s that its call takes too long; stopped, or in C code"
            case State.SERVING:
                return f"a signal had stopped it for timeout ({self._given[worker.generation].settings.timeout:g} s)"
            case State.LEAVING:
                return f"it had not left within {LEAVE_SECONDS:g} s"
            case _:
                return f"it had not left within graceful_timeout ({times.graceful:g} s)"

    def expire(self, call: TimedOutRequest, now: float) -> None:
        """Have the call's worker write its stacks, and end the call."""
        self._links.order(call.worker, messages.Expire(call.thread, call.since))
        self._facts.worker_hung(call.worker, now)
        self.show(call.worker)

    def expiring(self, worker: Worker, now: float) -> None:
        """It has heard that: it retires."""
        hung = worker.state in UNHEARING
        self._facts.worker_expiring(worker, now)
        if hung:
            self._order_to_retire(worker, now)

    def ready(self, worker: Worker, now: float) -> None:
        """It has begun to serve."""
        self._measure(worker)
        self._facts.worker_ready(worker, now)
        if worker.generation != self._facts.rolling or not self._facts.keeps_old:
            self._treat_as_serving(worker)
        lifetime = self._given[worker.generation].settings.max_worker_lifetime
        if worker.state is State.SERVING and lifetime:
            why = f"its age (max_worker_lifetime: {lifetime:g} s)"
            self._facts.worker_spent(worker, why, end_of_life(lifetime, now))
        if self._facts.draining:
            self._links.order(worker, messages.Drain())

    def template_loaded(self, each: Template, now: float) -> None:
        """It has loaded the code."""
        self._facts.template_loaded(each, now)
        self.give_listeners(each)
        if each.generation != self._facts.rolling:
            self._treat_as_serving(each)

    def decided(self) -> None:
        """A generation has taken over, or has failed to: what serves now is what is to be spared."""
        facts = self._facts
        serving: list[Template | Worker] = [*facts.serving(), *facts.templates]
        for process in serving:
            if process.generation not in (facts.coming, facts.rolling):
                self._treat_as_serving(process)

    def _treat_as_serving(self, process: Template | Worker) -> None:
        """Have the kernel, where memory runs out, spare it as it spares what serves: see OOM_WHILE_LOADING.

        The master does that: a process that has changed its user may not write there itself, see proc(5).
        """
        try:
            syscalls.set_oom_score(process.pid, syscalls.oom_score() + template.OOM_MORE)
        except OSError as error:  # it has just ended, or a sandbox without a writable /proc
            self._resources.log.debug(f"{process}: oom_score_adj cannot be lowered: {error.strerror}")

    def _measure(self, worker: Worker) -> None:
        """After the first worker of a generation that takes over: whether all of them fit beside those of before."""
        facts, begun = self._facts, self._facts.generations[worker.generation]
        if worker.generation != facts.rolling or begun.proven or begun.shares or not facts.keeps_old:
            return
        size, left = memory_headroom.private(worker.pid), memory_headroom.available()
        room = memory_headroom.more_workers(size, left)
        if room + 1 < len(facts.lasting_slots):
            facts.limit_surplus(worker.generation, int(room) + 1)
            self._reporter.in_batches(worker.generation, int(room) + 1, size, left)

    def pass_on(self, signum: int) -> None:
        """Send a signal of the terminal to the process groups of the application, which the terminal does not reach.

        Our own processes do nothing about it; programs that the application has started end as at any terminal.
        """
        processes: list[Template | Worker] = [*self._facts.templates, *self._facts.workers]
        for process in processes:
            self._children.signal_group(process, signum)  # each leads a group, once it has a session of its own

    def resize(self, more: int) -> str:
        """Want so many workers more, or fewer; returns what may keep some of them from starting, else nothing."""
        self._facts.want_workers(more)
        why = self._resources.make_room_for(self._facts.wanted)
        self._reporter.resized()
        return why

    def drain(self) -> None:
        """A stop is near: answers are to close their connections."""
        for worker in self._facts.serving():
            self._links.order(worker, messages.Drain())

    def maintain(self, on: bool) -> None:
        """Have 503 answered in place of the application, by those to come too, or the application again."""
        self._facts.maintenance = on
        for worker in self._facts.workers:
            self._links.order(worker, messages.Maintain(on))

    def ask_for_stacks(self, worker: Worker, serial: int) -> bool:
        """Have ``worker`` report where its threads are; whether it could be asked."""
        return self._links.order(worker, messages.ShowStacks(serial))

    @property
    def in_force(self) -> Settings:
        """What workers run by, not what a reload has brought that was refused since."""
        current = self._facts.current
        return self._given[current].settings if current else self._resources.settings

    @property
    def most_workers(self) -> int:
        """How many workers the settings allow, and the scoreboard has room for while they are replaced."""
        return min(self.in_force.most_workers, self._given.fewest_rows // SURPLUS)

    def row(self, worker: Worker) -> Row:
        """What it last wrote of itself."""
        return self._rows[worker]

    def comes_by_reload(self, process: Template | Worker) -> bool:
        """Whether ``process`` runs the code of the last reload, by its settings."""
        return process.generation == self._reload_to

    def has_loaded(self, worker: Worker) -> bool:
        """Whether it was given its listeners already."""
        return worker in self._loaded

    def give_listeners(self, process: Template | Worker) -> None:
        """To a worker, to serve them; to a template, to end our own ones if the master dies."""
        listeners = self._resources.listeners
        if isinstance(process, Template):
            own = [listener.fileno() for listener in listeners if listener.ends]
            self._links.order(process, messages.Guard(), own)
        elif listeners and process.state is State.STARTING and not self._superfluous(process):
            self._loaded.add(process)
            numbers = ",".join(str(listener.told) for listener in listeners)
            order = messages.Serve(siblings=True, maintenance=self._facts.maintenance, numbers=numbers)
            descriptors = [listener.fileno() for listener in listeners]
            self._links.order(process, order, [*descriptors, *self._handoff])

    def _superfluous(self, worker: Worker) -> bool:
        """Whether it comes from a roll that has failed meanwhile, and others serve in its place: it is retired next."""
        return worker.generation in self._facts.outdated and self._facts.keeper(worker.slot) is not None

    def settle_listeners(self, now: float) -> None:
        """Keep what a reload has changed about the listeners once its code has taken over, or else take it back."""
        facts = self._facts
        undecided = facts.stopping or self._reload_to in (facts.coming, facts.rolling)  # a stop closes all of them
        if self._resources.changing and not undecided:
            taken = facts.current == self._reload_to
            if self._resources.changing_logs and not taken:
                self._reporter.logs_go_back()
            self._resources.settle(taken, now)
        if now >= self._resources.listener_set.drop_at:
            for number in self._resources.drop_listeners():
                for worker in facts.workers:
                    self._links.order(worker, messages.Drop(number))
            self._guard_listeners()

    def _guard_listeners(self) -> None:
        for each in self._facts.templates:
            if each.state is State.LOADED:
                self.give_listeners(each)

    def close_listeners(self) -> None:
        """Everyone has the order to retire: nobody but the workers is to hold a listener any more."""
        if self._resources.listeners:
            self._resources.close_listeners()
            for each in self._facts.templates:
                self._links.order(each, messages.Guard())

    def show(self, worker: Worker) -> None:
        """Show the worker's pid and state on the scoreboard."""
        row = self._rows[worker]
        row.set(scoreboard.PID, worker.pid)
        row.set(scoreboard.STATE, _ROW_STATES.get(worker.state, scoreboard.DRAINING))
        self._count()

    def release(self, worker: Worker) -> None:
        """Give back what a worker had that is no more."""
        self._links.drop(worker)
        self._children.release(worker)
        self._loaded.discard(worker)
        self._given[worker.generation].board.release(self._rows.pop(worker))
        self._count()

    def _count(self) -> None:
        self._resources.board.serving = self._facts.serving_count

    # Templates

    def _reload(self, now: float) -> None:
        self.settle_listeners(now)
        try:
            self._resources.reload()
        except (ForkserverError, ImportError) as error:
            self._facts.reload_refused()
            self._reporter.settings_refused(own_files_missing(error) or str(error))
            return
        except Exception as error:  # no memory, or a fault of ours: no reason to end what serves
            self._facts.reload_refused()
            self._resources.log.error("a fault in a reload", details=traceback.format_exc())
            self._reporter.settings_refused(f"a fault of forkserver's, or of this machine: {error!r}")
            return
        self._reload_to = self.begin(Purpose.RELOAD, self._resources.settings)
        self._guard_listeners()
        self._reporter.reloading(self._reload_to)

    def _start_template(self, generation: int, shares: bool, now: float) -> None:
        try:
            directory, settings = self._folders(generation)
        except ForkserverError as error:
            self._facts.generation_failed(generation, Failure(str(error), exit_status=1), now)
            return
        if not shares:
            self._facts.processors = cgroups.usable()
        try:
            ours, theirs = MasterChannel.pair()
        except OSError as error:
            self._no_process(f"no channel for a template: {process_limits.why_refused(error)}", now)
            return
        try:
            if settings.encrypted and self._given[generation].tls is None:
                raise ConfigError("its certificates could not be read at the upgrade; fix them and reload")
            template_config = template.TemplateConfig(
                settings=settings,
                generation=generation,
                shares=shares,
                oom_more=template.OOM_WHILE_LOADING if self._facts.serving() else template.OOM_MORE,
                directory=directory,
                started_in=self._resources.started_in,
                environment=self._resources.environment,
                soft_limit=self._resources.open_files.given,
                credentials=settings.credentials(),
                log=self._resources.log,
                access=self._resources.access,
                board=self._given[generation].board,
                tls=self._given[generation].tls,
                leave_behind=partial(self._leave_behind, ours),
            )
            pid = signals.spawn(partial(template.main, template_config, theirs, os.getpid()))
        except OSError as error:
            ours.close()
            theirs.orders.close()
            self._no_process(f"cannot fork a template: {process_limits.why_refused(error)}", now)
            return
        except ForkserverError as error:
            ours.close()
            theirs.orders.close()
            self._facts.generation_failed(generation, Failure(f"cannot start a template: {error}", exit_status=1), now)
            return
        theirs.orders.close()
        started = self._facts.template_started(generation, pid, now)
        self._links.add(started, ours)
        try:
            self._children.hold(started, pid)
        except OSError as error:
            self._reporter.no_process(f"cannot hold a template: {process_limits.why_refused(error)}", now)
            syscalls.kill(pid, signal.SIGKILL)  # a child that we have just forked and not reaped: the number is its own

    def _folders(self, generation: int) -> tuple[str, Settings]:
        """The directory to load ``generation`` from, and its settings, by the paths given or as they led when it began.

        Raises ForkserverError where the folders of before are gone, so that the code of others would be loaded beside
        workers that serve.
        """
        directory, given = self._resources.directory, self._given[generation]
        settings, before = given.settings, given.release
        move = moved(before, directory, settings) if before is not None else None
        if before is None or move is None:
            return directory, settings
        if not (missing := gone(before)):
            self._reporter.stays_with_release(generation, move)
            return before.directory, before.pin(settings)
        if self._facts.serving_count:
            raise ForkserverError(f"{missing}, where its code was, is gone, and {move}; a reload takes the code there")
        self._reporter.takes_another_release(generation, move)
        return directory, settings

    def _leave_behind(self, ours: MasterChannel) -> None:
        """In a template: close what is the master's own, or the end of the master would not be seen."""
        ours.leave()
        self._links.close()
        self._children.close()
        self._signals.close()
        self._resources.control.leave_behind()
        os.environ.pop(control_socket.VARIABLE, None)  # nothing for the application
        for listener in self._resources.listeners:
            listener.close()
        for end in self._handoff:
            os.close(end)

    def _end_template(self, each: Template, now: float) -> None:
        # While it imports it hears no order; the signal ends it there.
        if each.state is not State.LOADED or not self._links.order(each, messages.Retire(0, handoff=False)):
            self._children.signal(each, signals.LEAVE)
        self._facts.template_ending(each, now)

    def _ask_for_stacks(self, process: Template | Worker, now: float) -> None:
        if isinstance(process, Worker) and self._facts.generations[process.generation].stacks_shown:
            self._resources.log.debug(f"{process} has not started within boot_timeout, as one before it; it is killed")
        else:
            heard = syscalls.hears(process.pid, signal.SIGUSR2)
            follows = "its stacks follow" if heard else "it cannot write its stacks (stopped, or SIGUSR2 is blocked)"
            self._resources.log.error(f"{process} has not started within boot_timeout; {follows}, then it is killed")
            self._children.signal(process, signal.SIGUSR2)
        if isinstance(process, Template):
            self._facts.template_overdue(process, now)
        else:
            self._facts.worker_overdue(process, now)

    # Workers

    def _spawn(self, slot: int, generation: int, now: float) -> None:
        parent = self._facts.template(generation)
        if parent is None:
            return  # killed by a step before; the next plan knows
        board = self._given[generation].board
        row = board.lease()
        if row is None:
            self._resources.log.error(f"no worker for slot {slot + 1}: every row of the scoreboard is taken")
            self._facts.spawn_failed(slot, generation, "every row of the scoreboard is taken", now)
            return
        row.set(scoreboard.SLOT, slot)
        row.set(scoreboard.GENERATION, generation)
        channel = self._links.channel(parent)
        try:
            ours, theirs = MasterChannel.pair() if channel is None else channel.another()
        except OSError as error:
            board.release(row)
            self._no_process(f"no channel for a worker: {process_limits.why_refused(error)}", now)
            return
        sent = self._links.order(parent, messages.Spawn(row.index, slot, generation), theirs.descriptors())
        theirs.orders.close()
        if not sent:
            ours.close()
            board.release(row)
            self._no_process(f"{parent} takes no orders", now)
            return
        worker = self._facts.worker_ordered(slot, generation, row.index, now)
        self._rows[worker] = row
        self._links.add(worker, ours)

    def _no_process(self, why: str, now: float) -> None:
        self._facts.no_process(why, now)
        self._reporter.no_process(why, now)

    def _retire(self, worker: Worker, now: float) -> None:
        starting = worker.state is State.STARTING
        # Before it serves it may be importing, and hear only a signal.
        if not self._order_to_retire(worker, now) or starting:
            self._children.signal(worker, signals.LEAVE)
        self.show(worker)

    def _order_to_retire(self, worker: Worker, now: float) -> bool:
        """Have it finish within its grace, and hand on what it holds, where others serve on."""
        self._facts.worker_retiring(worker, now)
        return self._links.order(worker, messages.Retire(max(0.0, worker.leave_by - now), worker.hands_on))
