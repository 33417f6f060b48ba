"""The master: wait, learn, decide, act.

A turn of its loop waits for reports, signals, commands or a time; has the dispatch tell the model what happened; takes
the steps of the plan until there is none; and tells the operator. The master never runs code of the application and
never touches a connection. At its end it has no child left, but for one that a kill does not end. ``builder.py`` makes
it.
"""

from __future__ import annotations

import traceback

from forkserver.errors import ConfigError, ForkserverError, LoadError
from forkserver.ipc import messages
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.linux import process_info
from forkserver.master.actions import Actions
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.control.signal_handlers import SignalHandlers
from forkserver.master.dispatch import Dispatch
from forkserver.master.model.events import Event, EventKind, Failure
from forkserver.master.model.lifecycle import Process
from forkserver.master.model.model import Model
from forkserver.master.model.plan import GiveUp, Step, plan, wake_at
from forkserver.master.monitoring.monitoring import Monitoring
from forkserver.master.processes.admin_process import AdminProcess
from forkserver.master.processes.broken_code import BrokenCode
from forkserver.master.processes.file_watcher import FileWatcherProcess
from forkserver.master.processes.log_writer import LogWriter
from forkserver.master.processes.system import System
from forkserver.master.reporting import slow_log
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import Shutdown
from forkserver.master.upgrade.upgrade import Upgrade


class Master:
    """The loop over its parts, which are given whole."""

    def __init__(
        self,
        system: System,
        resources: Resources,
        model: Model,
        poller: ChannelPoller[Process],
        monitoring: Monitoring,
        reporter: Reporter,
        actions: Actions,
        shutdown: Shutdown,
        dispatch: Dispatch,
        handlers: CommandHandlers,
        signal_handlers: SignalHandlers,
        upgrade: Upgrade,
        admin: AdminProcess,
        watcher: FileWatcherProcess,
        log_writer: LogWriter,
        broken_code: BrokenCode,
    ) -> None:
        self._system = system
        self._resources = resources
        self._fleet, self._rollout, self._transitions = model
        self._poller = poller
        self._monitoring = monitoring
        self._reporter = reporter
        self._actions = actions
        self._shutdown = shutdown
        self._dispatch = dispatch
        self._handlers = handlers
        self._signal_handlers = signal_handlers
        self._upgrade = upgrade
        self._admin = admin
        self._watcher = watcher
        self._log_writer = log_writer
        self._broken_code = broken_code
        self._failure: ForkserverError | None = None

    # No ``finally`` and no ``with`` between here and the fork of a template: it leaves through these frames too.

    def run(self) -> int:
        """Serve until a stop has come to its end. Returns the exit status. Raises ForkserverError."""
        try:
            while self._upgrade.trying or not self._fleet.finished:
                self.turn()
        except Exception:
            # Our own fault. The children see end-of-file and finish what they hold.
            self._resources.log.critical("the master cannot go on", details=traceback.format_exc())
            self._resources.tidy()
            self._log_writer.close()
            return 1
        self._handlers.close("the service has stopped")
        self._admin.close()
        self._watcher.close()
        self._reporter.tell_counted(self._system.clock())
        self._resources.tidy()
        known = {*self._fleet.unended, *self._log_writer.pids}
        self._reporter.left_alive([pid for pid in process_info.living() if pid not in known])
        self._tell_unended()
        if self._failure is None:
            self._resources.log.info("stopped")
        self._log_writer.close()
        if self._failure is not None:
            raise self._failure
        return 0

    def turn(self) -> None:
        """One turn of the loop."""
        self._learn(self._wait())
        now = self._system.clock()
        self._look_at_workers(now)
        self._handlers.turn(now)
        leaving = self._shutdown.proceed(now)
        self._upgrade.turn(now)
        self._watcher.turn(now)
        self._log_writer.turn(now)
        while steps := plan(self._fleet, self._rollout, now):
            for step in steps:
                self._take(step, now)
        self._actions.settle_listeners(now)
        if leaving:
            self._actions.close_listeners()
        self._broken_code.turn()
        self._tell(now)
        self._admin.turn(now, bool(self._rollout.serving_generation), self._handlers.admin_status)
        self._look_at_upgrade(now)
        self._reporter.look(now)

    def _take(self, step: Step, now: float) -> None:
        if isinstance(step, GiveUp):
            self._dispatch.give_up(step.process, now)  # as the end that it counts as
        else:
            self._actions.act(step, now)

    # Wait and learn

    def _wait(self) -> list[Process]:
        """The processes that have reported, once one has, a signal came, or the time has come for something."""
        now = self._system.clock()
        if self._dispatch.behind or plan(self._fleet, self._rollout, now):
            return self._poller.wait(0)
        parts = self._monitoring, self._handlers, self._actions, self._upgrade, self._reporter, self._admin
        looks = [self._watcher.next_look, self._log_writer.next_look, *(part.next_look for part in parts)]
        return self._poller.wait(min(wake_at(self._fleet, self._rollout, now), *looks) - now)

    def _learn(self, speakers: list[Process]) -> None:
        now, taken = self._system.clock(), self._system.signals.take()  # obeyed last, for they came last
        self._dispatch.learn(speakers, now)
        for received in taken:
            self._signal_handlers.obey(received, now)

    # Decide, beside the plan

    def _look_at_workers(self, now: float) -> None:
        for worker, how in self._monitoring.standing_still(now):
            self._actions.stands_still(worker, how, now)
        for call in self._monitoring.timed_out(now):
            self._reporter.hung(call.worker, call.request, call.seconds)
            self._actions.expire(call, now)
        self._log_slow_requests(now)
        for worker, why in self._monitoring.grown(now):
            self._transitions.worker_due(worker, why, now)

    def _log_slow_requests(self, now: float) -> None:
        for call in self._monitoring.unseen_slow_calls(now):
            self._resources.log.warning(slow_log.unseen(call), about=call.facts())
        if count := self._monitoring.slow.left_out(now):
            self._resources.log.warning(slow_log.left_out(count))
        for worker, thread, since in self._monitoring.passed_slow_log(now):
            self._poller.order(worker, messages.ShowCall(thread, since))

    def _look_at_upgrade(self, now: float) -> None:
        self._upgrade.turn(now)
        if self._upgrade.due:
            # What has happened until now is learnt first; what happens from now on is for the next program to learn.
            self._learn(list(self._poller))
        if self._upgrade.due:
            self._handlers.close_questions("the master becomes the next program; ask again")
            self._upgrade.become(now)

    # Tell

    def _tell_unended(self) -> None:
        for pid, name in self._fleet.unended.items():
            self._resources.log.warning(f"{name} was killed and has not ended: {process_info.why_unended(pid)}")

    def _tell(self, now: float) -> None:
        for event in self._rollout.take_events():
            waits = self._broken_code.waits(event)
            self._broken_code.tell(event)
            if waits:
                continue
            self._reporter.tell(event, now)
            self._broken_code.told()
            if event.kind in (EventKind.READY, EventKind.SERVES, EventKind.MIXED):
                self._actions.decided()
            if event.kind is EventKind.NEVER_STARTED and self._failure is None:
                self._fail(event, now)

    def _fail(self, event: Event, now: float) -> None:
        why = event.why._replace(details="") if self._reporter.told(event.why) else event.why
        self._failure = _as_error(why)
        self._rollout.stop_quickly(now)


def _as_error(why: Failure) -> ForkserverError:
    """What the program ends with where the first start fails."""
    if why.exit_status == ConfigError.exit_status:
        return ConfigError(why.reason)
    if why.exit_status == LoadError.exit_status:
        return LoadError(why.reason, why.details)
    return ForkserverError(why.reason)
