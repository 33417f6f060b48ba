"""Dispatch: what each report and each end of a process means for the model.

In a turn of the master's loop the ended children are reaped first and the channels read afterwards: the Hello of a
worker that died right after it is on its channel by then. At most ``MOST_AT_ONCE`` reports of one process are read in a
turn. A process that reports what has no place in its life is killed. A worker has a pid once its template has named it
and the kernel has confirmed that (worker_pids.py).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Final, Protocol

from forkserver.ipc import messages
from forkserver.ipc.report_ring import RING_BYTES
from forkserver.linux import syscalls
from forkserver.master.actions import Actions
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.log_reopening import LogReopening
from forkserver.master.model.events import Failure
from forkserver.master.model.lifecycle import NEVER, Process, State, Template, UnexpectedError, Worker
from forkserver.master.model.model import Model
from forkserver.master.monitoring import exit_causes
from forkserver.master.monitoring.monitoring import Monitoring
from forkserver.master.processes.children import NotHeldError
from forkserver.master.processes.debugger_use import DebuggerUse
from forkserver.master.processes.processes import Processes
from forkserver.master.processes.unended import Unended
from forkserver.master.processes.worker_pids import is_end
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import GROUP_SECONDS
from forkserver.master.upgrade.upgrade import Upgrade

MOST_AT_ONCE: Final = 64  # reports of one process that are read before the others and the control socket have a turn
REASON_CHARACTERS: Final = 200


class OtherProcess(Protocol):
    """Keeps a child of the master's that the fleet does not know: the admin process, the file watcher."""

    @property
    def pids(self) -> set[int]: ...
    def ended(self, pid: int, status: int, now: float) -> bool: ...


class Dispatch:
    """Reads what ``processes`` report, and tells each part of the master that is concerned."""

    def __init__(
        self,
        resources: Resources,
        model: Model,
        processes: Processes,
        monitoring: Monitoring,
        reporter: Reporter,
        actions: Actions,
        handlers: CommandHandlers,
        log_reopening: LogReopening,
        upgrade: Upgrade,
        others: Iterable[OtherProcess],
        debugger_use: DebuggerUse,
        unended: Unended,
    ) -> None:
        self._resources = resources
        self._fleet, self._rollout, self._transitions = model
        self._poller, self._children, self._pids, self._table = processes
        self._monitoring = monitoring
        self._reporter = reporter
        self._actions = actions
        self._handlers = handlers
        self._log_reopening = log_reopening
        self._upgrade = upgrade
        self._others = tuple(others)
        self._debugger_use = debugger_use
        self._unended = unended

    def learn(self, speakers: Iterable[Process], now: float) -> None:
        """Learn which children have ended and what the ``speakers`` report."""
        changed = self._pids.reap()
        for process in dict.fromkeys((*speakers, *self._poller.wait(0))) if changed else speakers:
            self._hear(process, now)
        for pid, status in changed:
            if is_end(status):
                self._ended(pid, status, now)
            else:
                self._stopped_or_continued(pid, status, now)
        self._pids.end_turn()

    @property
    def behind(self) -> bool:
        """Whether there is more to learn at once."""
        return self._children.behind

    # Reports

    def _hear(self, process: Process, now: float, most: int = MOST_AT_ONCE) -> None:
        """At most ``most`` reports of ``process``; what is left wakes the next turn at once."""
        try:
            for _ in range(most):
                channel = self._poller.channel(process)  # what was heard may have ended it
                report = None if channel is None else channel.receive()
                if report is None:
                    return
                if isinstance(report, messages.LogsAdopted):
                    self._log_reopening.done(process)
                elif isinstance(process, Template):
                    self._hear_template(process, report, now)
                else:
                    self._hear_worker(process, report, now)
        except EOFError:
            self._hung_up(process, now)
        except (messages.MessageError, UnexpectedError) as error:
            self._broken(process, str(error), now)

    def _hear_template(self, process: Template, report: messages.Message, now: float) -> None:
        match report:
            case messages.Loaded():
                self._actions.template_loaded(process, now)
                self._children.note_rights(process)
            case messages.LoadFailed(exit_status, message, details):
                self._transitions.template_failed(process, Failure(message, details, exit_status), now)
            case messages.Unshareable(reason) if process.state in (State.LOADING, State.STALLED):
                self._reporter.cannot_share(reason)
                self._transitions.template_cannot_share(process, now)
            case messages.Forked(row, pid):
                self._forked(process, row, pid, now)
            case messages.ForkFailed(row, why):
                if (worker := self._of_row(process, row)) is not None:
                    self._not_given(worker, f"cannot fork a worker: {why}", now)
            case other:
                raise UnexpectedError(f"{type(other).__name__} from a template that is {process.state.value}")

    def _hear_worker(self, worker: Worker, report: messages.Message, now: float) -> None:
        match report:
            case messages.Hello():
                if not worker.pid:
                    self._hear_its_template(worker, now)
                if worker not in self._fleet.workers:
                    return  # given up, by what its template has said
                try:
                    self._announced(worker, now)
                except NotHeldError as error:
                    self._not_given(worker, str(error), now)
                    return
            case messages.Loaded() if not self._actions.has_loaded(worker):
                self._transitions.worker_loaded(worker)
                self._actions.give_listeners(worker)
            case messages.Ready():
                self._ready(worker, now)
            case messages.LoadFailed(exit_status, message, details):
                why, told = Failure(message, details, exit_status), worker.state is not State.STARTING
                self._transitions.worker_load_failed(worker, why, now)
                if not told:  # one that is leaving already may say it without end
                    self._reporter.worker_failed(worker, why, now)
            case messages.Expiring():
                self._actions.expiring(worker, now)
            case messages.RecyclingDue(reason):
                self._transitions.worker_due(worker, _shortened(reason), now)
            case messages.AskedToLeave(signum):
                self._asked_to_leave(worker, syscalls.signal_name(signum), now)
            case messages.InDebugger(on) if self._resources.settings.debugger == "on":
                self._debugger_use.heard(worker, on, self._resources.log, now)
            case messages.Stacks(serial, text):
                self._handlers.stacks_came(worker, serial, text)
            case messages.CallShown(thread, since, client, place):
                self._monitoring.slow.shown(worker, thread, since, client, place)
            case other:
                raise UnexpectedError(f"{type(other).__name__} from a worker that is {worker.state.value}")
        self._table.show(worker)

    def _ready(self, worker: Worker, now: float) -> None:
        self._actions.ready(worker, now)
        self._monitoring.began_to_serve(worker, now)
        self._resources.log.debug(f"{worker} is ready")

    def _asked_to_leave(self, worker: Worker, signal_name: str, now: float) -> None:
        # Not at once: a signal to the whole process group is here in a moment, and stops the service.
        at = now + GROUP_SECONDS
        if at < worker.recycle_at:  # so a worker that says it again and again is heard once
            self._reporter.asked_to_leave(worker, signal_name)
            self._transitions.worker_due(worker, f"{signal_name} asked it to leave", at)

    def _broken(self, process: Process, why: str, now: float) -> None:
        """It reports what no process of ours does: nothing more is heard of it, and it is killed if it is ours."""
        self._poller.drop(process)
        self._log_reopening.done(process)
        if isinstance(process, Worker) and not process.pid:
            self._never_came(process, why, now)
            return
        self._resources.log.error(f"{process} is broken, the master kills it: {why}")
        if isinstance(process, Worker):
            process.sentence = process.sentence or f"it is broken: {why}"
        self._children.kill(process)
        self._unreachable(process, now)

    def _hung_up(self, process: Process, now: float) -> None:
        """The other end is closed. Whether the process has ended is for its exit to say, if it has one."""
        self._poller.drop(process)
        self._log_reopening.done(process)
        self._unreachable(process, now)
        if isinstance(process, Worker) and process.state is State.ORDERED:
            self._hear_its_template(process, now)
            if process.pid or process not in self._fleet.workers:
                return  # named, or perhaps reported dead, by that
            try:
                if self._refusal(process):
                    self._never_came(process, "it was ordered and has not come to life", now)
                else:
                    self._born(process, now)
            except NotHeldError as error:
                self._not_given(process, str(error), now)

    def _unreachable(self, process: Process, now: float) -> None:
        if isinstance(process, Template):
            self._transitions.template_unreachable(process, now)
        else:
            self._transitions.worker_unreachable(process, now)

    # How a worker gets its pid

    def _forked(self, parent: Template, row: int, pid: int, now: float) -> None:
        """A pid that a template names. It counts once it is verified, at the latest when the worker says Hello."""
        worker = self._of_row(parent, row)
        if worker is None:
            return  # it was given up, and its channel is closed: it leaves by itself
        if worker.pid not in (0, pid):
            raise UnexpectedError(f"Forked, of a worker that has the pid {worker.pid}")
        self._pids.claim(worker, pid)
        try:
            if worker.pid or not self._refusal(worker):
                self._born(worker, now)
        except NotHeldError as error:  # once more when it says Hello
            self._resources.log.debug(f"{worker}, pid {pid}: {error}")

    def _announced(self, worker: Worker, now: float) -> None:
        """Its first word. By now it is the master's child, and its template has named it. Raises NotHeldError."""
        if not worker.pid:
            if why := self._refusal(worker):
                raise UnexpectedError(f"Hello of a worker that is none of ours: {why}")
            self._born(worker, now)
        self._transitions.worker_announced(worker, worker.pid, now)

    def _born(self, worker: Worker, now: float) -> None:
        """The pid that is claimed for ``worker`` is its own."""
        pid = self._pids.take(worker)
        self._transitions.worker_forked(worker, pid)
        self._table.show(worker)
        if (status := self._pids.take_end(pid)) is not None:
            self._worker_ended(worker, status, now)

    def _refusal(self, worker: Worker) -> str:
        """Why the pid that is claimed for ``worker`` is not its own; empty where it is. Raises NotHeldError."""
        roles = {self._upgrade.pid, *self._fleet.unended, *(each.pid for each in self._fleet.processes)}
        roles.update(*(each.pids for each in self._others))
        return self._pids.refusal(worker, roles)

    def _of_row(self, parent: Template, row: int) -> Worker | None:
        """The worker that ``parent`` was to fork for that row."""
        # One that is to be named is at its beginning, or told to go since.
        for group in (self._fleet.index.booting, self._fleet.workers):
            for each in group:
                if (each.generation, each.row) == (parent.generation, row):
                    return each
        return None

    def _hear_its_template(self, worker: Worker, now: float) -> None:
        """A template names a worker before it closes its copy of the worker's channel: now it has, if ever."""
        for template in list(self._fleet.templates):
            if template.generation == worker.generation:
                self._hear(template, now, RING_BYTES)  # all that there can be

    def _not_given(self, worker: Worker, why: str, now: float) -> None:
        """The kernel has refused its process, or the descriptor to hold it by: it leaves at the end of its channel."""
        self._transitions.worker_not_forked(worker, why, now)
        self._actions.release(worker)
        self._reporter.no_process(why, now)

    def _never_came(self, worker: Worker, reason: str, now: float) -> None:
        """No process of ours is this worker."""
        self._transitions.worker_exited(worker, reason, now)
        self._actions.release(worker)
        self._reporter.worker_failed(worker, Failure(reason), now)

    # Ends

    def _stopped_or_continued(self, pid: int, status: int, now: float) -> None:
        for worker in (each for each in self._fleet.workers if each.pid == pid):
            if os.WIFSTOPPED(status):
                self._actions.stopped(worker, now)
            else:
                self._transitions.worker_continued(worker)
        for template in (each for each in self._fleet.templates if each.pid == pid):
            self._transitions.template_stopped(template, os.WIFSTOPPED(status))
            if os.WIFSTOPPED(status):  # it is killed once it was to fork a worker and has not done so
                self._resources.log.warning(
                    f"{template} was stopped by a signal: no worker can be started; kill -CONT {pid} lets it go on"
                )

    def _ended(self, pid: int, status: int, now: float) -> None:
        """A child has ended: one of ours, or an orphan of the application, of which nothing is said."""
        if self._upgrade.ended(pid, status) or any(each.ended(pid, status, now) for each in self._others):
            self._claim_kill(status)
            return
        if name := self._transitions.ended_late(pid):
            self._resources.log.info(f"{name}, which was killed before, has ended at last")
            return
        for each in self._fleet.processes:
            if each.pid == pid:
                if isinstance(each, Template):
                    self._template_ended(each, status, now)
                else:
                    self._worker_ended(each, status, now)
                return
        self._claim_kill(status)
        self._pids.add_stranger(pid, status)

    def give_up(self, process: Process, now: float) -> None:
        """SIGKILL has not ended ``process``: what held it is told, and it counts as ended from now on."""
        self._unended.give_up(process.pid, str(process))
        if isinstance(process, Template):
            self._template_ended(process, signal.SIGKILL, now)
        else:
            self._worker_ended(process, signal.SIGKILL, now)

    def _claim_kill(self, status: int) -> None:
        """The end of a process that is told without its cause must not be put down to the next one that dies."""
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            self._monitoring.out_of_memory.claim()

    def _template_ended(self, each: Template, status: int, now: float) -> None:
        self._poller.drop(each)
        self._log_reopening.done(each)
        self._children.release(each)
        killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and each.state is not State.KILLED
        for_memory = killed and self._monitoring.out_of_memory.claim()
        how = syscalls.how_it_ended(status)
        if for_memory:
            how = exit_causes.cause(status, "", for_memory)
        self._transitions.template_exited(each, how, now)
        if for_memory:
            self._rollout.killed_for_memory(str(each), now)

    def _worker_ended(self, worker: Worker, status: int, now: float) -> None:
        self._debugger_use.ended(worker)
        before = worker.state
        killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and not worker.sentence
        ordered = exit_causes.as_ordered(status, before)
        for_memory = killed and self._monitoring.out_of_memory.claim()
        cause = exit_causes.cause(status, worker.sentence, for_memory, ordered)
        row = self._table[worker]
        remains, calls = exit_causes.remains(row, now), row.calls()
        self._monitoring.statistics.ended(worker, before, cause, ordered, remains)
        self._log_reopening.done(worker)
        self._transitions.worker_exited(worker, cause, now)
        if for_memory:
            self._rollout.killed_for_memory(str(worker), now)
        self._actions.release(worker)
        if ordered:
            self._resources.log.debug(f"{worker} has left: {cause}")
        elif worker.ready_at == NEVER:
            self._reporter.worker_failed(worker, Failure(cause), now)
        else:
            self._reporter.worker_ended(worker, cause, remains, now, calls)


def _shortened(reason: str) -> str:
    """``reason`` as it fits into a line; a worker may say anything."""
    return reason if len(reason) <= REASON_CHARACTERS else f"{reason[:REASON_CHARACTERS]}…"
