"""The builder: makes a master of its parts, for a first start or to go on with the snapshot of the program before."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial

from forkserver.config import loading
from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.ipc.messages import Message
from forkserver.linux import signals, syscalls, systemd
from forkserver.linux.common.process_title import set_title
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
from forkserver.master.model.model import Model
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.exit_causes import OutOfMemory
from forkserver.master.monitoring.monitoring import Monitoring
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.processes.admin_process import AdminProcess
from forkserver.master.processes.broken_code import BrokenCode
from forkserver.master.processes.children import Children
from forkserver.master.processes.debugger_use import DebuggerUse
from forkserver.master.processes.file_watcher import FileWatcherProcess
from forkserver.master.processes.launcher import Launcher
from forkserver.master.processes.log_writer import LogWriter, LogWriterChild, take_up
from forkserver.master.processes.processes import Processes
from forkserver.master.processes.system import System
from forkserver.master.processes.unended import Unended
from forkserver.master.processes.worker_pids import WorkerPids
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.reporter import Reporter
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
    return signals.run(lambda: _restored(snapshot, argv, environ, terminal=terminal).run())


def _restored(snapshot: Snapshot, argv: Sequence[str], environ: Mapping[str, str], *, terminal: bool) -> Master:
    """The master of ``snapshot``. Raises ForkserverError, but never ConfigError."""
    settings = loading.from_snapshot(snapshot.resources.settings)
    try:
        log, writer = take_up(settings, snapshot.resources.error_log, snapshot.log_writer)
        return build(settings, log, argv, environ, snapshot, terminal=terminal, writer=writer)
    except ConfigError as error:
        # It served until now: after status 2, which stands for a mistake at a start, systemd would not start it again.
        raise ForkserverError(f"cannot go on after the upgrade: {error}") from error


def build(
    settings: Settings,
    log: ErrorLog,
    argv: Sequence[str],
    environ: Mapping[str, str],
    snapshot: Snapshot | None = None,
    *,
    terminal: bool,
    writer: LogWriterChild | None = None,
) -> Master:
    """The master, with everything open and the first generation, or a reload, begun. Raises ForkserverError."""
    first_environ = syscalls.initial_environ()  # with what is for the service manager's service, and soon taken out
    set_title(f"forkserver: master [{settings.app}]")
    syscalls.adopt_orphans(True)
    # Signals are blocked before there is something to remove at the end.
    system = System(signals.BlockedSignals(), Terminal(terminal), systemd.Notifier(environ), Children())
    opened = snapshot.resources if snapshot else None
    resources = Resources(settings, log, argv, environ, system.notifier, snapshot=opened)
    command = NewProgram(sys.orig_argv, first_environ, resources.directory, resources.environment)
    return assemble(system, resources, command, snapshot, writer)


def assemble(
    system: System,
    resources: Resources,
    command: NewProgram,
    snapshot: Snapshot | None = None,
    writer: LogWriterChild | None = None,
) -> Master:
    """The master of these parts; ``command`` is executed at an upgrade, ``writer`` writes the error log already."""
    rollout = snapshot.rollout if snapshot else Rollout(Fleet(resources.settings.workers))
    model = Model.of(rollout)
    poller: ChannelPoller[Process] = ChannelPoller(system.signals.fileno(), partial(_order_refused, resources))
    poller.wake_by(resources.control.fileno())
    poller.wake_by(resources.admin.fileno())
    if resources.settings.debugger == "on":
        system.terminal.save()
    table = WorkerTable(resources, rollout)
    processes = Processes(poller, system.children, WorkerPids(model.fleet, system.children), table)
    unended = Unended(resources, model.transitions)
    log_writer = LogWriter(resources, system, unended, writer)
    statistics = Statistics(model.fleet, table.__getitem__, snapshot=snapshot.statistics if snapshot else None)
    resources.count_lost_lines(statistics.lose_lines)
    monitoring = Monitoring(table, statistics, OutOfMemory(seen=snapshot.memory_kills if snapshot else None))
    reporter = Reporter(resources, rollout, system.notifier, statistics)
    watcher = FileWatcherProcess(resources, rollout, system, poller, unended)
    handoff = snapshot.handoff if snapshot else None
    launcher = Launcher(resources, model, processes, reporter, system, handoff, watcher)
    broken_code = BrokenCode(resources, rollout, processes, launcher, reporter)
    actions = Actions(resources, model, processes, launcher, reporter, broken_code)
    shutdown = Shutdown(resources, rollout, reporter, actions, table)
    admin = AdminProcess(resources, system, unended)
    handlers = CommandHandlers(
        resources,
        model,
        table,
        reporter,
        actions,
        shutdown,
        statistics,
        launcher.clients_wait,
        admin.status,
        monitoring.slow_requests,
        log_writer.status,
    )
    log_reopening = LogReopening(resources, poller, reporter, actions.comes_by_reload)
    handover = Handover(resources, rollout, processes, launcher, monitoring, log_reopening, log_writer.snapshot)
    upgrade = Upgrade(command, rollout, reporter, handover.snapshot, unended)
    signal_handlers = SignalHandlers(
        system.terminal,
        rollout,
        table,
        reporter,
        actions,
        shutdown,
        (admin.logs_reopened, log_reopening.begin),
        upgrade.want,
    )
    dispatch = Dispatch(
        resources,
        model,
        processes,
        monitoring,
        reporter,
        actions,
        handlers,
        log_reopening,
        upgrade,
        (admin, watcher, log_writer),
        DebuggerUse(system.terminal, model.transitions),
        unended,
    )
    if snapshot:
        handover.restore(snapshot, reporter, handlers)
    else:
        launcher.begin(Purpose.START, resources.settings)
    return Master(
        system,
        resources,
        model,
        poller,
        monitoring,
        reporter,
        actions,
        shutdown,
        dispatch,
        handlers,
        signal_handlers,
        upgrade,
        admin,
        watcher,
        log_writer,
        broken_code,
    )


def _order_refused(resources: Resources, process: Process, order: Message, error: OSError) -> None:
    """Tell it. A process that lacks an order is replaced, or its work is done by others: it never ends the master."""
    name = type(order).__name__
    resources.log.error(f"{process}: the kernel refuses to send it the order {name}: {error.strerror}")
