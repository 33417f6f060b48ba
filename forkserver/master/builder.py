"""The builder: makes a master of its parts, for a first start or to go on with the snapshot of the program before."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from setproctitle import setproctitle

from forkserver.config import settings as settings_table
from forkserver.config.settings import Settings
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.linux import signals, syscalls, systemd
from forkserver.linux.terminal import Terminal
from forkserver.logs.error_log import ErrorLog
from forkserver.master.actions import Actions
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.control.signal_handlers import SignalHandlers
from forkserver.master.dispatch import Dispatch
from forkserver.master.log_reopening import LogReopening
from forkserver.master.master import Master
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import Process
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import Transitions
from forkserver.master.monitoring.exit_causes import OutOfMemory
from forkserver.master.monitoring.memory import MemoryWatch
from forkserver.master.monitoring.request_timeouts import RequestTimeouts
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.processes.children import Children
from forkserver.master.processes.launcher import Launcher
from forkserver.master.processes.worker_pids import WorkerPids
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.reporting.systemd_status import SystemdStatus
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import Shutdown
from forkserver.master.upgrade.handover import Handover
from forkserver.master.upgrade.new_program import NewProgram
from forkserver.master.upgrade.snapshot import Snapshot
from forkserver.master.upgrade.upgrade import Upgrade


def serve(settings: Settings, log: ErrorLog, argv: Sequence[str], environ: Mapping[str, str], *, terminal: bool) -> int:
    """Serve ``settings.app`` until a stop; in a process forked below, be that process. Returns the exit status.

    ``argv`` and ``environ`` are where the settings are read from again; ``terminal`` says whether the program was
    started at one. Raises ForkserverError where the start fails.
    """
    return signals.run(lambda: build(settings, log, argv, environ, terminal=terminal).run())


def go_on(snapshot: Snapshot, argv: Sequence[str], environ: Mapping[str, str], *, terminal: bool) -> int:
    """As ``serve``, in place of the program before, which has written ``snapshot``."""
    settings = settings_table.from_snapshot(snapshot.resources.settings)
    opened = snapshot.resources.error_log
    log = ErrorLog(settings.error_log, settings.log_level, opened=opened, service=settings.service_uid)
    return signals.run(lambda: build(settings, log, argv, environ, snapshot, terminal=terminal).run())


def build(
    settings: Settings,
    log: ErrorLog,
    argv: Sequence[str],
    environ: Mapping[str, str],
    snapshot: Snapshot | None = None,
    *,
    terminal: bool,
) -> Master:
    """The master, with everything open and the first generation, or a reload, begun. Raises ForkserverError."""
    first_environ = dict(environ)  # with what is for the service manager's service, and soon taken out
    setproctitle(f"forkserver: master [{settings.app}]")
    syscalls.become_subreaper()
    blocked = signals.BlockedSignals()  # before there is something to remove at the end
    notifier = systemd.Notifier(environ)
    resources = Resources(settings, log, argv, environ, notifier, snapshot=snapshot.resources if snapshot else None)
    poller: ChannelPoller[Process] = ChannelPoller(blocked.fileno())
    poller.wake_by(resources.control.fileno())
    children = Children()
    rollout = snapshot.rollout if snapshot else Rollout(Fleet(settings.workers))
    transitions = Transitions(rollout)
    reporter = Reporter(resources, rollout, notifier)
    table = WorkerTable(resources, rollout)
    handoff = snapshot.handoff if snapshot else None
    launcher = Launcher(resources, rollout, transitions, table, reporter, poller, children, blocked, handoff)
    actions = Actions(resources, rollout, transitions, table, launcher, reporter, poller, children)
    shutdown = Shutdown(resources, rollout, reporter, actions, table)
    statistics = Statistics(rollout.fleet, table.__getitem__, snapshot=snapshot.statistics if snapshot else None)
    resources.count_lost_lines(statistics.lose_lines)
    handlers = CommandHandlers(resources, rollout, transitions, reporter, actions, table, shutdown, statistics)
    timeouts, memory = RequestTimeouts(), MemoryWatch()
    out_of_memory = OutOfMemory(seen=snapshot.memory_kills if snapshot else None)
    pids = WorkerPids(rollout.fleet, children)
    log_reopening = LogReopening(resources, poller, reporter, actions.comes_by_reload)
    handover = Handover(
        resources, rollout, poller, children, pids, table, launcher, statistics, timeouts, out_of_memory, log_reopening
    )
    command = NewProgram(sys.orig_argv, first_environ, resources.directory, resources.environment)
    upgrade = Upgrade(command, rollout, reporter, handover.snapshot)
    signal_handlers = SignalHandlers(
        Terminal(terminal),
        rollout,
        table,
        reporter,
        actions,
        shutdown,
        reopen_logs=log_reopening.begin,
        upgrade=upgrade.want,
    )
    dispatch = Dispatch(
        resources,
        rollout,
        transitions,
        poller,
        children,
        pids,
        table,
        reporter,
        actions,
        handlers,
        statistics,
        timeouts,
        memory,
        out_of_memory,
        log_reopening,
        upgrade,
    )
    if snapshot:
        handover.restore(snapshot, reporter, handlers)
    else:
        launcher.begin(Purpose.START, settings)
    return Master(
        resources,
        rollout,
        transitions,
        blocked,
        poller,
        table,
        reporter,
        actions,
        shutdown,
        dispatch,
        handlers,
        signal_handlers,
        statistics,
        timeouts,
        memory,
        SystemdStatus(notifier, rollout, statistics, reporter.status),
        upgrade,
    )
