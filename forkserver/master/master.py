"""The master: wake, learn, decide, act.

It promises that it never runs code of the application, that what it does follows from the roster, and that at its end
no child of its own is left. It refuses to serve: connections are the workers' business.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from setproctitle import setproctitle

from forkserver.config import settings as settings_table
from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError, LoadError
from forkserver.ipc import messages
from forkserver.ipc.channel_poller import ChannelPoller, Process
from forkserver.ipc.report_ring import RING_BYTES
from forkserver.linux import process_info, signals, syscalls, systemd
from forkserver.linux.process_limits import why_refused
from forkserver.linux.terminal import Terminal
from forkserver.logs.error_log import ErrorLog
from forkserver.master.actions import Actions
from forkserver.master.children import Children, NotHeldError, NotOursError
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.model.events import EventKind, Failure
from forkserver.master.model.fleet import MEMORY_WAY_OUT, Roster
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import NEVER, State, Template, UnexpectedError, Worker
from forkserver.master.monitoring import exit_causes
from forkserver.master.monitoring.memory import LOOK_SECONDS, MemoryWatch
from forkserver.master.monitoring.request_timeouts import RequestTimeouts
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.reporting.systemd_status import SystemdStatus
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import GROUP_SECONDS, Shutdown
from forkserver.master.upgrade import snapshot
from forkserver.master.upgrade.new_program import NewProgram
from forkserver.master.upgrade.snapshot import Snapshot
from forkserver.master.upgrade.upgrade import Upgrade

MOST_AT_ONCE: Final = 64  # reports of one process that are heard before the others and the control socket have a turn
MOST_STRANGERS: Final = 1024
REASON_CHARACTERS: Final = 200


class Master:
    """Serves ``settings.app`` until it is told to stop.

    ``argv`` and ``environ`` are where the settings are read from again; ``carried`` is the state of the program before,
    to go on with; ``terminal`` says whether the program was started at one. ``run`` returns the exit status and raises
    ForkserverError where the start fails.
    """

    def __init__(
        self,
        settings: Settings,
        log: ErrorLog,
        argv: Sequence[str],
        environ: Mapping[str, str],
        carried: Snapshot | None = None,
        *,
        terminal: bool,
    ) -> None:
        self._carried = carried
        self.terminal = Terminal(terminal)
        self._first_environ = dict(environ)  # with what is for the service manager's service, and soon taken out
        self._log = log
        self._settings = settings
        self._sources = argv, environ
        self._failure: ForkserverError | None = None
        self.reopening: set[Process] | None = None  # who has not yet said that it writes to the new log files

    @classmethod
    def going_on(cls, carried: Snapshot, argv: Sequence[str], environ: Mapping[str, str], *, terminal: bool) -> Master:
        """The master that the program before has written down as ``carried``."""
        settings = settings_table.from_snapshot(carried.resources.settings)
        log = ErrorLog(
            settings.error_log, settings.log_level, opened=carried.resources.error_log, service=settings.service_uid
        )
        return cls(settings, log, argv, environ, carried, terminal=terminal)

    def run(self) -> int:
        """Serve; in a process forked below, be that process. Returns the exit status. Raises ForkserverError."""
        return signals.run(self._main)

    # No ``finally`` and no ``with`` between here and the fork of a template: it leaves through these frames too.

    def _main(self) -> int:
        self._begin()
        try:
            while self.upgrade.trying or not self.roster.finished:
                self._turn()
        except Exception:
            # Our own fault. The children see end-of-file and finish what they hold.
            self.resources.log.critical("the master cannot go on", details=traceback.format_exc())
            self.resources.tidy()
            return 1
        self.handlers.close("the service has stopped")
        self.reporter.tell_counted(syscalls.clock())
        self.resources.tidy()
        self.reporter.left_alive(process_info.living())
        if self._failure is not None:
            raise self._failure
        self.resources.log.info("stopped")
        return 0

    def _begin(self) -> None:
        setproctitle(f"forkserver: master [{self._settings.app}]")
        syscalls.become_subreaper()
        self.signals = signals.BlockedSignals()  # before there is something to remove at the end
        carried, self._carried = self._carried, None
        notifier = systemd.Notifier(self._sources[1])
        self.resources = Resources(
            self._settings, self._log, *self._sources, notifier, held=carried.resources if carried else None
        )
        self.links = ChannelPoller(self.signals.fileno())
        self.children = Children()
        self.claims: dict[Worker, int] = {}  # pids that templates have named, and that are not verified yet
        self._reaped: dict[int, int] = {}  # children that were reaped in this turn, with their wait status
        self.roster = carried.roster if carried else Roster(self._settings.workers)
        self.reporter = Reporter(self.resources, self.roster, notifier)
        self.actions = Actions(
            self.resources,
            self.roster,
            self.reporter,
            self.links,
            self.children,
            self.signals,
            held=carried.actions if carried else None,
        )
        self.shutdown = Shutdown(self.resources, self.roster, self.reporter, self.actions)
        self.statistics = Statistics(self.roster, self.actions.row, held=carried.statistics if carried else None)
        self.resources.count_lost_lines(self.statistics.lose_lines)
        self.handlers = CommandHandlers(
            self.resources, self.roster, self.reporter, self.actions, self.shutdown, self.statistics
        )
        self.pulse = SystemdStatus(notifier, self.roster, self.statistics, self.reporter.status)
        self.links.wake_by(self.resources.control.fileno())
        self.calls = RequestTimeouts()
        self.memory = MemoryWatch()
        self.out_of_memory = exit_causes.OutOfMemory(seen=carried.memory_kills if carried else None)
        self.strangers: dict[int, int] = {}  # children that ended before anybody named them, with their wait status
        directory, environment = self.resources.directory, self.resources.environment
        command = NewProgram(sys.orig_argv, self._first_environ, directory, environment)
        self.upgrade = Upgrade(command, self.roster, self.reporter, partial(snapshot.write, self))
        if carried:
            snapshot.take_up(self, carried)
        else:
            self.actions.begin(Purpose.START, self._settings)

    def _turn(self) -> None:
        self._learn(self._wait())
        now = syscalls.clock()
        self._look_at_calls(now)
        self._look_at_memory(now)
        for client in self.resources.control.turn(now):
            self.handlers.serve(client, now)
        self.handlers.look(now)
        self.reporter.look(now)
        leaving = self.shutdown.proceed(now)
        self.upgrade.serve_reload()
        self.upgrade.turn(now)
        while steps := self.roster.plan(now):
            for step in steps:
                self.actions.act(step, now)
        self.actions.settle_listeners(now)
        if leaving:
            self.actions.close_listeners()
        self._tell()
        self._look_at_upgrade(now)
        self.pulse.beat(now)

    def _wait(self) -> list[Process]:
        """Who has said something, once somebody has, a signal came, or the time has come for something."""
        now = syscalls.clock()
        if self.roster.plan(now):
            return self.links.wait(0)
        looks = [self.calls.next_look, self.memory.next_look, self.resources.listener_set.drop_at]
        looks += self.resources.control.next_look, self.handlers.next_look, self.pulse.next_look, self.upgrade.deadline
        looks += (self.reporter.next_look,)
        return self.links.wait(min(self.roster.wake_at(now), *looks) - now)

    # Learn

    def _learn(self, speakers: Iterable[Process]) -> None:
        taken = self.signals.take()
        changed = []
        while found := syscalls.reap():
            changed.append(found)
        self._reaped = {pid: status for pid, status in changed if _is_end(status)}
        # Reaped first, heard afterwards: the Hello of one that died right after it is on its channel by now.
        for process in dict.fromkeys((*speakers, *self.links.wait(0))) if changed else speakers:
            self._hear(process)
        for pid, status in changed:
            if _is_end(status):
                self._ended(pid, status)
            else:
                self._stopped_or_continued(pid, status)
        self._reaped = {}
        unnamed = any(worker.state is State.ORDERED for worker in self.roster.index.booting)
        if not unnamed:
            self.claims.clear()
            self.strangers.clear()  # nobody is unnamed, and the next to be named may get one of these numbers again
        for received in taken:
            self._heed(received)

    def _hear(self, process: Process, most: int = MOST_AT_ONCE) -> None:
        """At most ``most`` reports of ``process``; what is left wakes the next turn at once."""
        now = syscalls.clock()
        try:
            for _ in range(most):
                channel = self.links.channel(process)  # what was heard may have ended it
                report = None if channel is None else channel.receive()
                if report is None:
                    return
                if isinstance(report, messages.LogsAdopted):
                    self._reopened(process)
                elif isinstance(process, Template):
                    self._hear_template(process, report, now)
                else:
                    self._hear_worker(process, report, now)
        except EOFError:
            self._hung_up(process, now)
        except (messages.MessageError, UnexpectedError) as error:
            self._broken(process, str(error), now)

    def _broken(self, process: Process, why: str, now: float) -> None:
        """It says what no process of ours says: nothing more is heard of it, and it is killed if it is ours."""
        self.links.drop(process)
        self._reopened(process)
        if isinstance(process, Worker) and not process.pid:
            self._never_came(process, why, now)
            return
        self.resources.log.error(f"{process} is broken, the master kills it: {why}")
        if isinstance(process, Worker):
            process.sentence = process.sentence or f"it is broken: {why}"
        self.children.kill(process)

    def _hear_template(self, process: Template, report: messages.Message, now: float) -> None:
        match report:
            case messages.Loaded():
                self.actions.template_loaded(process, now)
                self.children.note_rights(process)
            case messages.LoadFailed(exit_status, message, details):
                self.roster.template_failed(process, Failure(message, details, exit_status), now)
            case messages.Unshareable(reason) if process.state in (State.LOADING, State.STALLED):
                self.reporter.cannot_share(reason)
                self.roster.template_cannot_share(process, now)
            case messages.Forked(row, pid):
                self._forked(process, row, pid, now)
            case messages.ForkFailed(row, why):
                self._fork_failed(process, row, why, now)
            case other:
                raise UnexpectedError(f"{type(other).__name__} from a template that is {process.state.value}")

    def _forked(self, parent: Template, row: int, pid: int, now: float) -> None:
        """A pid that a template names. It counts once it is verified, at the latest when the worker says Hello."""
        worker = self._of_row(parent, row)
        if worker is None:
            return  # it was given up, and its channel is closed: it leaves by itself
        if worker.pid not in (0, pid):
            raise UnexpectedError(f"Forked, of a worker that has the pid {worker.pid}")
        self.claims[worker] = pid
        try:
            if worker.pid or not self._refusal(worker):
                self._born(worker, pid)
        except NotHeldError as error:  # once more when it says Hello
            self.resources.log.debug(f"{worker}, pid {pid}: {error}")

    def _born(self, worker: Worker, pid: int) -> None:
        self.claims.pop(worker, None)
        self.roster.worker_forked(worker, pid)
        self.actions.show(worker)
        if pid in self.strangers:
            self._worker_ended(worker, self.strangers.pop(pid))

    def _refusal(self, worker: Worker) -> str:
        """Why the pid that was named for ``worker`` is not taken for its own; empty where it is, and is held.

        Raises NotHeldError.
        """
        pid = self.claims.get(worker)
        parent = self.roster.parent(worker)
        if pid is None or parent is None:
            return "no template has named it"
        if pid in self._roles():
            return f"pid {pid} has another role"
        if pid in self._reaped or pid in self.strangers:
            return ""  # the kernel has just told its end to us, so it was our child
        try:
            self.children.adopt(worker, pid, parent)
        except NotOursError as error:
            return str(error)
        except OSError as error:
            raise NotHeldError(f"cannot hold a worker: {why_refused(error)}") from None
        return ""

    def _roles(self) -> set[int]:
        """Pids of processes that are something else than a worker to come."""
        known: list[Process] = [*self.roster.templates, *self.roster.workers]
        return {self.upgrade.pid, *(each.pid for each in known)}

    def _fork_failed(self, parent: Template, row: int, why: str, now: float) -> None:
        worker = self._of_row(parent, row)
        if worker is not None:
            self._not_given(worker, f"cannot fork a worker: {why}", now)

    def _not_given(self, worker: Worker, why: str, now: float) -> None:
        """The kernel has refused its process, or the descriptor to hold it by: it leaves at the end of its channel."""
        self.claims.pop(worker, None)
        self.roster.worker_not_forked(worker, why, now)
        self.actions.release(worker)
        self.reporter.no_process(why, now)

    def _of_row(self, parent: Template, row: int) -> Worker | None:
        """The worker that ``parent`` was to fork for that row."""
        # One that is to be named is at its beginning, or told to go since.
        for group in (self.roster.index.booting, self.roster.workers):
            for each in group:
                if (each.generation, each.row) == (parent.generation, row):
                    return each
        return None

    def _hear_worker(self, worker: Worker, report: messages.Message, now: float) -> None:
        match report:
            case messages.Hello():
                try:
                    self._announced(worker, now)
                except NotHeldError as error:
                    self._not_given(worker, str(error), now)
                    return
            case messages.Loaded() if not self.actions.has_loaded(worker):
                self.roster.worker_loaded(worker)
                self.actions.give_listeners(worker)
            case messages.Ready():
                self.actions.ready(worker, now)
                self.calls.next_look = min(self.calls.next_look, now + self.actions.most_seconds(worker))
                self.memory.next_look = min(self.memory.next_look, now + LOOK_SECONDS)
                self.resources.log.debug(f"{worker} is ready")
            case messages.LoadFailed(exit_status, message, details):
                why, told = Failure(message, details, exit_status), worker.state is not State.STARTING
                self.roster.worker_load_failed(worker, why, now)
                if not told:  # one that is leaving already may say it without end
                    self.reporter.worker_failed(worker, why, now)
            case messages.Expiring():
                self.actions.expiring(worker, now)
            case messages.Spent(reason):
                self.roster.worker_spent(worker, _shortened(reason), now)
            case messages.AskedToLeave(signum):
                self._asked_to_leave(worker, syscalls.signal_name(signum), now)
            case messages.Stacks(serial, text):
                self.handlers.stacks_came(worker, serial, text)
            case other:
                raise UnexpectedError(f"{type(other).__name__} from a worker that is {worker.state.value}")
        self.actions.show(worker)

    def _announced(self, worker: Worker, now: float) -> None:
        """Its first word. By now it is the master's child, and its template has named it. Raises NotHeldError."""
        if not worker.pid:
            self._hear_its_template(worker)
        if not worker.pid:
            if why := self._refusal(worker):
                raise UnexpectedError(f"Hello of a worker that is none of ours: {why}")
            self._born(worker, self.claims[worker])
        self.roster.worker_announced(worker, worker.pid, now)

    def _asked_to_leave(self, worker: Worker, signal_name: str, now: float) -> None:
        # Not at once: a signal to the whole process group is here in a moment, and stops the service.
        at = now + GROUP_SECONDS
        if at < worker.spent_at:  # so a worker that says it again and again is heard once
            self.reporter.asked_to_leave(worker, signal_name)
            self.roster.worker_spent(worker, f"{signal_name} asked it to leave", at)

    def _hung_up(self, process: Process, now: float) -> None:
        """Nobody holds the other end any more. Whether the process has ended is for its exit to say, if it has one."""
        self.links.drop(process)
        self._reopened(process)
        if isinstance(process, Template):
            self.roster.template_unreachable(process, now)
        elif process.state is State.ORDERED:
            self._hear_its_template(process)
            if process.pid or process not in self.roster.workers:
                return  # named, or perhaps reported dead, by that
            try:
                if self._refusal(process):
                    self._never_came(process, "it was ordered and has not come to life", now)
                else:
                    self._born(process, self.claims[process])
            except NotHeldError as error:
                self._not_given(process, str(error), now)

    def _never_came(self, worker: Worker, reason: str, now: float) -> None:
        """No process of ours is this worker."""
        self.claims.pop(worker, None)
        why = Failure(reason)
        self.roster.worker_exited(worker, reason, now)
        self.actions.release(worker)
        self.reporter.worker_failed(worker, why, now)

    def _hear_its_template(self, worker: Worker) -> None:
        """A template names a worker before it closes its copy of the worker's channel: now it has, if ever."""
        for template in list(self.roster.templates):
            if template.generation == worker.generation:
                self._hear(template, RING_BYTES)  # all that there can be

    def _stopped_or_continued(self, pid: int, status: int) -> None:
        now = syscalls.clock()
        for worker in (each for each in self.roster.workers if each.pid == pid):
            if os.WIFSTOPPED(status):
                self.actions.stopped(worker, now)
            else:
                self.roster.worker_continued(worker)
        for template in (each for each in self.roster.templates if each.pid == pid and os.WIFSTOPPED(status)):
            self.actions.template_stopped(template)

    def _ended(self, pid: int, status: int) -> None:
        """A child has ended: one of ours, or an orphan of the application, of which nothing is said."""
        now = syscalls.clock()
        if self.upgrade.ended(pid, status):
            self._claim_kill(status)
            return
        for each in self.roster.templates:
            if each.pid == pid:
                self._template_ended(each, status, now)
                return
        for worker in self.roster.workers:
            if worker.pid == pid:
                self._worker_ended(worker, status)
                return
        self._claim_kill(status)
        self.strangers[pid] = status
        if len(self.strangers) > MOST_STRANGERS:
            del self.strangers[next(iter(self.strangers))]  # an application can leave any number behind

    def _claim_kill(self, status: int) -> None:
        """The end of a process that is told without its cause must not be put down to the next who dies."""
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            self.out_of_memory.claim()

    def _template_ended(self, each: Template, status: int, now: float) -> None:
        self.links.drop(each)
        self._reopened(each)
        self.children.release(each)
        killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and each.state is not State.KILLED
        for_memory = killed and self.out_of_memory.claim()
        how = syscalls.how_it_ended(status)
        if for_memory:
            how = f"{exit_causes.cause(status, '', for_memory)}; {MEMORY_WAY_OUT}"
        self.roster.template_exited(each, how, now)
        if for_memory:
            self.roster.killed_for_memory(str(each), now)

    def _worker_ended(self, worker: Worker, status: int) -> None:
        now, before = syscalls.clock(), worker.state
        killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and not worker.sentence
        ordered = exit_causes.as_ordered(status, before)
        for_memory = killed and self.out_of_memory.claim()
        cause = exit_causes.cause(status, worker.sentence, for_memory, ordered)
        row = self.actions.row(worker)
        remains, requests = exit_causes.remains(row, now), exit_causes.requests(row)
        self.statistics.ended(worker, before, cause, ordered)
        self._reopened(worker)
        self.roster.worker_exited(worker, cause, now)
        if for_memory:
            self.roster.killed_for_memory(str(worker), now)
        self.actions.release(worker)
        if ordered:
            self.reporter.worker_left(worker, cause)
        elif worker.ready_at == NEVER:
            self.reporter.worker_failed(worker, Failure(cause), now)
        else:
            self.reporter.worker_ended(worker, cause, remains, now, requests)

    def _heed(self, received: signals.Received) -> None:
        now = syscalls.clock()
        if received.from_kernel and received.signum in signals.OF_A_TERMINAL:
            self.actions.pass_on(received.signum)
        match received.signum:
            case signal.SIGHUP if self.terminal.closed(received):
                if not self.shutdown.under_way:  # the shell and the kernel say it, one after the other
                    self.shutdown.ask(f"{received}, the terminal has closed", now, wait=False)
            case signal.SIGHUP:
                self.reporter.asked_to_reload(str(received))
                self.roster.want_reload()
            case signal.SIGTERM:
                self.shutdown.ask(str(received), now, received.signum.name)
            case signal.SIGINT:
                self.shutdown.ask(str(received), now, received.signum.name, wait=False)
            case signal.SIGQUIT:
                self.shutdown.quickly(str(received), now)
            case signal.SIGTTIN if self.roster.wanted >= self.actions.most_workers:
                self.reporter.not_resized(str(received), self.actions.most_workers)
            case signal.SIGTTIN | signal.SIGTTOU:
                self.actions.resize(1 if received.signum is signal.SIGTTIN else -1)
            case signal.SIGUSR1:
                self._reopen_logs()
            case signal.SIGUSR2:
                self.upgrade.want()

    # Log files

    def _reopen_logs(self) -> None:
        newest, serving = self.resources.reopen_logs()
        told = []
        for each in self.links:
            error, access, descriptors = newest if self.actions.comes_by_reload(each) else serving
            if self.links.order(each, messages.LogFiles(error, access), descriptors):
                told.append(each)
        # Who has not started yet answers when it has; nobody waits for that.
        self.reopening = {each for each in told if each.state in (State.LOADED, State.SERVING, State.DRAINING)}
        self._reopened(None)

    def _reopened(self, process: Process | None) -> None:
        """``process`` writes to the new files, or to none any more; said when that is true of everyone."""
        if self.reopening is None:
            return
        self.reopening -= {process}
        if not self.reopening:
            self.reopening = None
            self.reporter.logs_reopened()

    # Decide, beside the roster

    def _look_at_calls(self, now: float) -> None:
        if now < self.calls.next_look:
            return
        for call in self.calls.look(self.actions.watched_calls(), now):
            self.reporter.hung(call.worker, call.line, call.seconds)
            self.statistics.hung(call.worker)
            self.actions.expire(call, now)

    def _look_at_upgrade(self, now: float) -> None:
        self.upgrade.turn(now)
        if self.upgrade.due:
            self._become_next()

    def _become_next(self) -> None:
        """What has happened until now is learnt first; what happens from now on is for the next program to learn."""
        self._learn(self.links)
        if self.upgrade.due:
            self.handlers.close_questions("the master becomes the next program; ask again")
            self.upgrade.become()

    def _look_at_memory(self, now: float) -> None:
        if now < self.memory.next_look:
            return
        for worker, why in self.memory.look(self.actions.watched_sizes(now), now):
            self.roster.worker_spent(worker, why, now)

    def _tell(self) -> None:
        for news in self.roster.news():
            self.reporter.tell(news)
            if news.kind in (EventKind.READY, EventKind.SERVES, EventKind.MIXED):
                self.actions.decided()
            if news.kind == EventKind.NEVER_STARTED and self._failure is None:
                self._failure = _as_error(news.why._replace(details="") if self.reporter.told(news.why) else news.why)
                self.roster.stop_quickly(syscalls.clock())


def _is_end(status: int) -> bool:
    return not (os.WIFSTOPPED(status) or os.WIFCONTINUED(status))


def _shortened(reason: str) -> str:
    """``reason`` as it fits into a line; a worker may say anything."""
    return reason if len(reason) <= REASON_CHARACTERS else f"{reason[:REASON_CHARACTERS]}…"


def _as_error(why: Failure) -> ForkserverError:
    """What the program ends with where the first start fails."""
    if why.exit_status == ConfigError.exit_status:
        return ConfigError(why.reason)
    if why.exit_status == LoadError.exit_status:
        return LoadError(why.reason, why.details)
    return ForkserverError(why.reason)
