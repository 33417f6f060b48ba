"""The master: wait, learn, decide, act.

A turn of its loop waits for reports, signals, commands or a time; has the dispatch tell the model what happened; takes
the steps of the plan until there is none; and tells the operator. The master never runs code of the application and
never touches a connection. At its end it has no child left. ``builder.py`` makes it.
"""

from __future__ import annotations

import traceback

from forkserver.errors import ConfigError, ForkserverError, LoadError
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.linux import process_info, syscalls
from forkserver.linux.signals import BlockedSignals
from forkserver.master.actions import Actions
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.control.signal_handlers import SignalHandlers
from forkserver.master.dispatch import Dispatch
from forkserver.master.model.events import Event, EventKind, Failure
from forkserver.master.model.lifecycle import Process
from forkserver.master.model.plan import plan, wake_at
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import Transitions
from forkserver.master.monitoring.memory import MemoryWatch
from forkserver.master.monitoring.request_timeouts import RequestTimeouts
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.reporting.systemd_status import SystemdStatus
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import Shutdown
from forkserver.master.upgrade.upgrade import Upgrade


class Master:
    """The loop over its parts, which are given whole."""

    def __init__(
        self,
        resources: Resources,
        rollout: Rollout,
        transitions: Transitions,
        signals: BlockedSignals,
        poller: ChannelPoller[Process],
        table: WorkerTable,
        reporter: Reporter,
        actions: Actions,
        shutdown: Shutdown,
        dispatch: Dispatch,
        handlers: CommandHandlers,
        signal_handlers: SignalHandlers,
        statistics: Statistics,
        timeouts: RequestTimeouts,
        memory: MemoryWatch,
        systemd_status: SystemdStatus,
        upgrade: Upgrade,
    ) -> None:
        self._resources = resources
        self._rollout = rollout
        self._fleet = rollout.fleet
        self._transitions = transitions
        self._signals = signals
        self._poller = poller
        self._table = table
        self._reporter = reporter
        self._actions = actions
        self._shutdown = shutdown
        self._dispatch = dispatch
        self._handlers = handlers
        self._signal_handlers = signal_handlers
        self._statistics = statistics
        self._timeouts = timeouts
        self._memory = memory
        self._systemd_status = systemd_status
        self._upgrade = upgrade
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
            return 1
        self._handlers.close("the service has stopped")
        self._reporter.tell_counted(syscalls.clock())
        self._resources.tidy()
        self._reporter.left_alive(process_info.living())
        if self._failure is not None:
            raise self._failure
        self._resources.log.info("stopped")
        return 0

    def turn(self) -> None:
        """One turn of the loop."""
        self._learn(self._wait())
        now = syscalls.clock()
        self._look_at_calls(now)
        self._look_at_memory(now)
        for client in self._resources.control.turn(now):
            self._handlers.serve(client, now)
        self._handlers.look(now)
        self._reporter.look(now)
        leaving = self._shutdown.proceed(now)
        self._upgrade.serve_reload()
        self._upgrade.turn(now)
        while steps := plan(self._fleet, self._rollout, now):
            for step in steps:
                self._actions.act(step, now)
        self._actions.settle_listeners(now)
        if leaving:
            self._actions.close_listeners()
        self._tell()
        self._look_at_upgrade(now)
        self._systemd_status.beat(now)

    # Wait and learn

    def _wait(self) -> list[Process]:
        """The processes that have reported, once one has, a signal came, or the time has come for something."""
        now = syscalls.clock()
        if plan(self._fleet, self._rollout, now):
            return self._poller.wait(0)
        resources = self._resources
        looks = [self._timeouts.next_look, self._memory.next_look, resources.listener_set.drop_at]
        looks += resources.control.next_look, self._handlers.next_look, self._systemd_status.next_look
        looks += self._upgrade.deadline, self._reporter.next_look
        return self._poller.wait(min(wake_at(self._fleet, self._rollout, now), *looks) - now)

    def _learn(self, speakers: list[Process]) -> None:
        taken = self._signals.take()  # obeyed last, for they came last
        self._dispatch.learn(speakers)
        for received in taken:
            self._signal_handlers.obey(received, syscalls.clock())

    # Decide, beside the plan

    def _look_at_calls(self, now: float) -> None:
        if now < self._timeouts.next_look:
            return
        for call in self._timeouts.look(self._table.watched_calls(), now):
            self._reporter.hung(call.worker, call.line, call.seconds)
            self._statistics.hung(call.worker)
            self._actions.expire(call, now)

    def _look_at_memory(self, now: float) -> None:
        if now < self._memory.next_look:
            return
        for worker, why in self._memory.look(self._table.watched_sizes(now), now):
            self._transitions.worker_due(worker, why, now)

    def _look_at_upgrade(self, now: float) -> None:
        self._upgrade.turn(now)
        if self._upgrade.due:
            # What has happened until now is learnt first; what happens from now on is for the next program to learn.
            self._learn(list(self._poller))
        if self._upgrade.due:
            self._handlers.close_questions("the master becomes the next program; ask again")
            self._upgrade.become()

    # Tell

    def _tell(self) -> None:
        for event in self._rollout.take_events():
            self._reporter.tell(event)
            if event.kind in (EventKind.READY, EventKind.SERVES, EventKind.MIXED):
                self._actions.decided()
            if event.kind is EventKind.NEVER_STARTED and self._failure is None:
                self._fail(event)

    def _fail(self, event: Event) -> None:
        why = event.why._replace(details="") if self._reporter.told(event.why) else event.why
        self._failure = _as_error(why)
        self._rollout.stop_quickly(syscalls.clock())


def _as_error(why: Failure) -> ForkserverError:
    """What the program ends with where the first start fails."""
    if why.exit_status == ConfigError.exit_status:
        return ConfigError(why.reason)
    if why.exit_status == LoadError.exit_status:
        return LoadError(why.reason, why.details)
    return ForkserverError(why.reason)
