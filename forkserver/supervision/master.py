"""The master: wake, learn, decide, act.

It promises that it never runs code of the application, that what it does follows from the roster, and that at its end
no child of its own is left. It refuses to serve: connections are the workers' business.
"""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from setproctitle import setproctitle

from forkserver import kernel, scoreboard, systemd
from forkserver.errors import ConfigError, ForkserverError, LoadError
from forkserver.logs import ErrorLog
from forkserver.scoreboard import Row
from forkserver.settings import Settings
from forkserver.supervision import messages, plan, roster, signals, template
from forkserver.supervision.calls import Calls
from forkserver.supervision.herald import Herald
from forkserver.supervision.listeners import SYN_SECONDS
from forkserver.supervision.lives import NEVER, State, Template, UnexpectedError, Worker
from forkserver.supervision.messages import Arrival, Channel
from forkserver.supervision.resources import Resources
from forkserver.supervision.roster import Failure, Purpose, Roster, Times

_ROW_STATES: Final = {
    State.ORDERED: scoreboard.STARTING,
    State.STARTING: scoreboard.STARTING,
    State.SERVING: scoreboard.SERVING,
}


class Master:
    """Serves ``settings.app`` until it is told to stop.

    ``argv`` and ``environ`` are where the settings are read from again. ``run`` returns the exit status and raises
    ForkserverError where the start fails.
    """

    def __init__(self, settings: Settings, log: ErrorLog, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._log = log
        self._settings = settings
        self._sources = argv, environ
        self._failure: ForkserverError | None = None

    def run(self) -> int:
        """Serve; in a process forked below, be that process. Returns the exit status. Raises ForkserverError."""
        return signals.run(self._main)

    # No ``finally`` and no ``with`` between here and the fork of a template: it leaves through these frames too.

    def _main(self) -> int:
        self._begin()
        try:
            while not self.roster.finished:
                self._turn()
        except Exception:
            # Our own fault. The children see end-of-file and finish what they hold.
            self.resources.log.critical("the master cannot go on", details=traceback.format_exc())
            self.resources.tidy()
            return 1
        self.resources.tidy()
        if self._failure is not None:
            raise self._failure
        self.resources.log.info("stopped")
        return 0

    def _begin(self) -> None:
        setproctitle(f"forkserver: master [{self._settings.app}]")
        kernel.become_subreaper()
        self.resources = Resources(self._settings, self._log, *self._sources)
        self.signals = signals.Signals(signals.HANDLED)
        self.roster = Roster(self._settings.workers)
        self.herald = Herald(self.resources, self.roster, systemd.Notifier(self._sources[1]))
        self.calls = Calls()
        self._settings_of: dict[int, Settings] = {}
        self._rows: dict[Worker, Row] = {}
        self._channels: dict[Template | Worker, Channel] = {}
        self._by_descriptor: dict[int, Template | Worker] = {}
        self._epoll = select.epoll()
        self._epoll.register(self.signals.fileno(), select.EPOLLIN)
        self._new_generation(Purpose.START)

    def _new_generation(self, purpose: Purpose) -> int:
        settings = self.resources.settings
        times = Times(settings.boot_timeout, settings.graceful_timeout)
        number = self.roster.begin(purpose, settings.workers, times, settings.preload != "off")
        self._settings_of[number] = settings
        return number

    def _turn(self) -> None:
        self._learn(self._wait())
        now = kernel.clock()
        self._look_at_calls(now)
        if self.roster.stopping and now >= self.roster.retire_at:
            self.resources.refuse_arrivals(unix=True)
        while steps := self.roster.plan(now):
            for step in steps:
                self._act(step, now)
        if self.roster.stopping and (self.roster.quick or now >= self.roster.retire_at):
            self._close_listeners()
        self._tell()

    def _wait(self) -> set[int]:
        """The descriptors that are readable, once one is or the time has come for something."""
        now = kernel.clock()
        if self.roster.plan(now):
            return set()
        until = min(self.roster.wake_at(now), self.calls.next_look)
        return {number for number, _ in self._epoll.poll(None if until == NEVER else max(0.0, until - now))}

    def _close_listeners(self) -> None:
        """All have their orders to retire: nobody but them is to hold a listener."""
        if self.resources.listeners:
            self.resources.close_listeners()
            for each in self.roster.templates:
                self._order(each, messages.Guard())

    # Learn

    def _learn(self, readable: set[int]) -> None:
        taken = self.signals.take()
        ended = []
        while found := kernel.reap():
            ended.append(found)
        # Reaped first, heard afterwards: the Hello of one that died right after it is on its channel by now.
        heard = self._by_descriptor if ended else readable & self._by_descriptor.keys()
        for number in list(heard):
            self._hear(self._by_descriptor[number])
        for pid, status in ended:
            self._ended(pid, kernel.how_it_ended(status))
        for signum in taken:
            self._heed(signum)

    def _hear(self, process: Template | Worker) -> None:
        """Everything that is on the channel of ``process``."""
        channel, now = self._channels[process], kernel.clock()
        try:
            while arrival := channel.receive():
                messages.close_all(arrival.descriptors)
                if isinstance(process, Template):
                    self._hear_template(process, arrival, now)
                else:
                    self._hear_worker(process, arrival, now)
        except EOFError:
            self._hang_up(process)
            if isinstance(process, Template):
                self.roster.template_unreachable(process, now)
            elif process.state is State.ORDERED:
                self.roster.worker_exited(process, "it was never forked", now)
                self._release(process)
        except (messages.MessageError, UnexpectedError) as error:
            self.resources.log.error(f"{process} is broken and killed: {error}")
            self._hang_up(process)
            if process.pid:
                kernel.kill(process.pid, signal.SIGKILL)

    def _hear_template(self, process: Template, arrival: Arrival, now: float) -> None:
        match arrival.message:
            case messages.Loaded():
                self.roster.template_loaded(process)
                own = [listener.fileno() for listener in self.resources.listeners if listener.own]
                self._order(process, messages.Guard(), own)
            case messages.LoadFailed(exit_status, message, details):
                self.roster.template_failed(process, Failure(message, details, exit_status), now)
            case messages.Unshareable(reason):
                self.resources.log.warning(
                    f"the import left {reason}: each worker imports for itself (preload=auto); "
                    "open them when first used, and the workers share memory"
                )
                self.roster.template_cannot_share(process, now)
            case other:
                raise UnexpectedError(f"{other} from a template")

    def _hear_worker(self, worker: Worker, arrival: Arrival, now: float) -> None:
        match arrival.message:
            case messages.Hello():
                self.roster.worker_announced(worker, arrival.pid)
                self._rows[worker].words[scoreboard.PID] = arrival.pid
            case messages.Loaded():
                self.roster.worker_loaded(worker)
                if worker.state is State.STARTING:
                    order = messages.Serve(siblings=self.roster.wanted > 1)
                    self._order(worker, order, [listener.fileno() for listener in self.resources.listeners])
            case messages.Ready():
                self.roster.worker_ready(worker)
                self.calls.next_look = 0.0
                self.resources.log.debug(f"{worker} is ready")
            case messages.LoadFailed(exit_status, message, details):
                self.resources.log.error(f"{worker} did not start: {message}", details=details)
                self.roster.worker_load_failed(worker, Failure(message, details, exit_status), now)
            case other:
                raise UnexpectedError(f"{other} from a worker")
        self._show_state(worker)

    def _ended(self, pid: int, how: str) -> None:
        """A child has ended: one of ours, or an orphan of the application, of which nothing is said."""
        now = kernel.clock()
        for each in self.roster.templates:
            if each.pid == pid:
                self._hang_up(each)
                self.roster.template_exited(each, how, now)
                return
        for worker in self.roster.workers:
            if worker.pid == pid:
                self._tell_of_end(worker, how)
                self._hang_up(worker)
                self.roster.worker_exited(worker, how, now)
                self._release(worker)
                return

    def _tell_of_end(self, worker: Worker, how: str) -> None:
        log = self.resources.log
        if worker.state is State.SERVING:
            log.error(f"{worker} ended: {how}; it is replaced")
        elif worker.state is State.STARTING:
            log.error(f"{worker} ended before it was ready: {how}")
        else:
            log.debug(f"{worker} has left: {how}")

    def _heed(self, signum: signal.Signals) -> None:
        now = kernel.clock()
        match signum:
            case signal.SIGHUP:
                self.roster.want_reload()
            case signal.SIGTERM:
                self._stop(now)
            case signal.SIGINT | signal.SIGQUIT:
                self._stop_quickly(signum.name, now)
            case signal.SIGTTIN | signal.SIGTTOU:
                self.roster.want_workers(1 if signum is signal.SIGTTIN else -1)
                self.herald.resized()
            case signal.SIGUSR1:
                self._reopen_logs()
            case signal.SIGUSR2:
                self.resources.log.warning("SIGUSR2: there is no upgrade in place yet; restart instead")

    def _stop(self, now: float) -> None:
        if self.roster.stopping:
            self._stop_quickly("second SIGTERM", now)
            return
        self.herald.stopping("SIGTERM; finishing what is held")
        # Who has begun to connect gets into a queue and is served; closing under them would be a reset.
        filtered = self.resources.refuse_arrivals(unix=False)
        self.roster.stop(now, now + SYN_SECONDS if filtered else now)

    def _stop_quickly(self, why: str, now: float) -> None:
        if not self.roster.quick:
            self.herald.stopping(f"{why}; at once")
            self.roster.stop_quickly(now)

    def _reopen_logs(self) -> None:
        error, access = self.resources.log_files
        descriptors = self.resources.reopen_logs()
        for process in self._channels if descriptors else ():
            if not self._order(process, messages.LogFiles(error, access), descriptors):
                self.resources.log.error(f"{process} does not take the new log files; it writes to the old ones")
        self.herald.logs_reopened()

    # Decide, beside the roster

    def _look_at_calls(self, now: float) -> None:
        if now < self.calls.next_look:
            return
        watched = [
            (worker, self._rows[worker], self._settings_of[worker.generation].timeout)
            for worker in self.roster.workers
            if worker.state in (State.SERVING, State.DRAINING)
        ]
        for call in self.calls.look(watched, now):
            told = f"{call.worker}: {call.line!r} has taken {call.seconds:.1f} s, longer than timeout"
            if call.condemned:
                self.resources.log.error(f"{told}; the master kills this worker")
                self._kill(call.worker, now)
            else:
                self.resources.log.error(f"{told}; the stacks of its threads follow")
                kernel.kill(call.worker.pid, signal.SIGUSR2)

    def _tell(self) -> None:
        for news in self.roster.news():
            self.herald.tell(news)
            if news.kind == roster.NEVER_STARTED and self._failure is None:
                self._failure = _as_error(news.why)
                self.roster.stop_quickly(kernel.clock())

    # Act

    def _act(self, step: plan.Step, now: float) -> None:
        match step:
            case plan.Reload():
                self._reload()
            case plan.Replace():
                self.herald.replacing(self._new_generation(Purpose.REPLACE))
            case plan.StartTemplate(generation, shares):
                self._start_template(generation, shares, now)
            case plan.EndTemplate(each):
                self._end_template(each, now)
            case plan.AskForStacks(process):
                self._ask_for_stacks(process, now)
            case plan.KillTemplate(each):
                self.resources.log.error(f"{each} has not ended in time; the master kills it")
                kernel.kill(each.pid, signal.SIGKILL)
                self.roster.template_overdue(each, now)
            case plan.SpawnWorker(slot, generation):
                self._spawn(slot, generation, now)
            case plan.RetireWorker(worker):
                self._retire(worker, now)
            case plan.QuitWorker(worker):
                kernel.kill(worker.pid, signal.SIGINT)
                self.roster.worker_quitting(worker, now)
            case plan.KillWorker(worker):
                self.resources.log.error(f"{worker} has not left in time; the master kills it")
                self._kill(worker, now)
            case plan.AbandonWorker(worker):
                self.resources.log.error(f"{worker} was ordered and never forked; it is given up")
                self.roster.worker_overdue(worker, now)
                self._hang_up(worker)
                self._release(worker)

    def _reload(self) -> None:
        try:
            self.resources.reload()
        except ForkserverError as error:
            self.roster.reload_refused()
            self.herald.settings_refused(str(error))
            return
        self.herald.reloading(self._new_generation(Purpose.RELOAD))

    def _start_template(self, generation: int, shares: bool, now: float) -> None:
        resources = self.resources
        ours, theirs = Channel.pair()
        legacy = template.Legacy(
            settings=self._settings_of[generation],
            generation=generation,
            shares=shares,
            directory=resources.directory,
            started_in=resources.started_in,
            rights=resources.rights,
            log=resources.log,
            access=resources.access,
            board=resources.board,
            leave_behind=partial(self._leave_behind, ours),
        )
        try:
            pid = signals.spawn(partial(template.main, legacy, Channel(theirs), os.getpid()))
        except OSError as error:
            ours.close()
            theirs.close()
            self.roster.generation_failed(generation, Failure(f"cannot fork: {error.strerror}", exit_status=1), now)
            return
        theirs.close()
        self._listen_to(self.roster.template_started(generation, pid, now), ours)

    def _leave_behind(self, ours: Channel) -> None:
        """In a template: close what is the master's own, or the end of the master would not be seen."""
        for channel in (ours, *self._channels.values()):
            channel.close()
        self._epoll.close()
        self.signals.close()
        for listener in self.resources.listeners:
            listener.close()

    def _end_template(self, each: Template, now: float) -> None:
        # While it imports it hears no order; the signal ends it there.
        if each.state is not State.LOADED or not self._order(each, messages.Retire(0)):
            kernel.kill(each.pid, signal.SIGTERM)
        self.roster.template_ending(each, now)

    def _ask_for_stacks(self, process: Template | Worker, now: float) -> None:
        self.resources.log.error(f"{process} has not started within boot_timeout; its stacks follow, then it is killed")
        kernel.kill(process.pid, signal.SIGUSR2)
        if isinstance(process, Template):
            self.roster.template_overdue(process, now)
        else:
            self.roster.worker_overdue(process, now)

    def _spawn(self, slot: int, generation: int, now: float) -> None:
        parent = self.roster.template(generation)
        row = self.resources.lease_row()
        if parent is None or row is None:
            self.resources.log.error(f"no worker for slot {slot + 1}: {'no template' if row else 'no free row'}")
            self.roster.spawn_failed(now)
            return
        row.words[scoreboard.SLOT], row.words[scoreboard.GENERATION] = slot, generation
        ours, theirs = Channel.pair()
        sent = self._order(parent, messages.Spawn(row.index, slot, generation), [theirs.fileno()])
        theirs.close()
        if not sent:
            ours.close()
            row.clear()
            self.resources.log.error(f"{parent} takes no orders")
            self.roster.spawn_failed(now)
            return
        worker = self.roster.worker_ordered(slot, generation, row.index, now)
        self._rows[worker] = row
        self._listen_to(worker, ours)

    def _retire(self, worker: Worker, now: float) -> None:
        grace = self._settings_of[worker.generation].graceful_timeout
        # Before it serves it may be importing, and hear only a signal.
        if not self._order(worker, messages.Retire(grace)) or worker.state is State.STARTING:
            kernel.kill(worker.pid, signal.SIGTERM)
        self.roster.worker_retiring(worker, now)
        self._show_state(worker)

    def _kill(self, worker: Worker, now: float) -> None:
        kernel.kill(worker.pid, signal.SIGKILL)
        self.roster.worker_overdue(worker, now)

    # Bookkeeping

    def _order(self, process: Template | Worker, order: messages.Message, descriptors: Iterable[int] = ()) -> bool:
        """Send ``order``, and say whether it went: the process may have closed its end, or not be reading."""
        channel = self._channels.get(process)
        return channel is not None and channel.send(order, descriptors)

    def _listen_to(self, process: Template | Worker, channel: Channel) -> None:
        self._channels[process] = channel
        self._by_descriptor[channel.fileno()] = process
        self._epoll.register(channel.fileno(), select.EPOLLIN)

    def _hang_up(self, process: Template | Worker) -> None:
        channel = self._channels.pop(process, None)
        if channel is not None:
            self._epoll.unregister(channel.fileno())
            del self._by_descriptor[channel.fileno()]
            channel.close()

    def _release(self, worker: Worker) -> None:
        self._rows.pop(worker).clear()

    def _show_state(self, worker: Worker) -> None:
        self._rows[worker].words[scoreboard.STATE] = _ROW_STATES.get(worker.state, scoreboard.DRAINING)


def _as_error(why: Failure) -> ForkserverError:
    """What the program ends with where the first start fails."""
    if why.exit_status == ConfigError.exit_status:
        return ConfigError(why.reason)
    if why.exit_status == LoadError.exit_status:
        return LoadError(why.reason, why.details)
    return ForkserverError(why.reason)
