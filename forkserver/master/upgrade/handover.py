"""The handover: the parts of a master that go on in the next program.

Each part gives a snapshot() of plain values and descriptors, and takes it up again by restore(). Processes are named by
their place in the fleet. Children keep their pids over an exec (execve(2)), so only their pidfds are opened anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from forkserver.ipc.channel import MasterChannel, OlderChannel
from forkserver.ipc.report_ring import ReportRingSnapshot
from forkserver.linux import syscalls
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.log_reopening import LogReopening
from forkserver.master.model.lifecycle import Process
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.monitoring import Monitoring
from forkserver.master.processes.children import NotOursError
from forkserver.master.processes.launcher import Launcher
from forkserver.master.processes.log_writer import LogWriterSnapshot
from forkserver.master.processes.processes import Processes
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.resources import Resources
from forkserver.master.upgrade.snapshot import Snapshot


class Handover:
    """What is written down for the next program, and taken up there."""

    def __init__(
        self,
        resources: Resources,
        rollout: Rollout,
        processes: Processes,
        launcher: Launcher,
        monitoring: Monitoring,
        log_reopening: LogReopening,
        log_writer: Callable[[], LogWriterSnapshot | None] = lambda: None,
    ) -> None:
        self._resources = resources
        self._rollout = rollout
        self._poller, self._children, self._pids, self._table = processes
        self._launcher = launcher
        self._monitoring = monitoring
        self._log_reopening = log_reopening
        self._log_writer = log_writer

    def snapshot(self, new_program: str) -> Snapshot:
        """All that the master is, for the next program, which calls itself ``new_program``."""
        places = {process: place for place, process in enumerate(self._rollout.fleet.processes)}
        strangers, claims = self._pids.snapshot(places)
        return Snapshot(
            pid=os.getpid(),
            new_program=new_program,
            rollout=self._rollout,
            resources=self._resources.snapshot(),
            handoff=self._launcher.handoff,
            generation_configs=self._table.snapshot(),
            statistics=self._monitoring.statistics.snapshot(),
            channels=self._poller.descriptors(places),
            reopening=self._log_reopening.snapshot(places),
            strangers=strangers,
            overdue=self._monitoring.timeouts.snapshot(places),
            memory_kills=self._monitoring.out_of_memory.seen,
            waiting=tuple(self._resources.control.waiting()),
            reports=self._poller.report_rings(places),
            claims=claims,
            slow_requests=self._monitoring.slow.snapshot(places),
            log_writer=self._log_writer(),
        )

    def restore(self, snapshot: Snapshot, reporter: Reporter, handlers: CommandHandlers) -> None:
        """Go on where ``snapshot`` stands, and bring its workers to this program by a reload."""
        processes = self._rollout.fleet.processes
        self._table.restore(snapshot.generation_configs)
        rings = snapshot.reports or [None] * len(processes)
        for process, descriptor, ring in zip(processes, snapshot.channels, rings, strict=True):
            if descriptor >= 0:
                self._poller.add(process, _channel(descriptor, ring))
            if process.pid:
                self._hold(process)
        self._pids.restore(snapshot.strangers, snapshot.claims, processes)
        self._log_reopening.restore(snapshot.reopening, processes)
        self._monitoring.timeouts.restore(snapshot.overdue, processes)
        self._monitoring.slow.restore(snapshot.slow_requests, processes)
        reporter.upgraded(snapshot.new_program)
        for descriptor in snapshot.waiting:
            handlers.restore_waiting(self._resources.control.adopt_client(descriptor, syscalls.clock()))
        self._rollout.upgrading = False
        self._rollout.want_reload()

    def _hold(self, process: Process) -> None:
        """Its pidfd anew: a child that is not reaped keeps its number over an exec."""
        try:
            self._children.hold(process, process.pid)
        except (OSError, NotOursError) as error:
            self._resources.log.error(f"{process} gets no signals any more: {error}")


def _channel(orders: int, ring: ReportRingSnapshot | None) -> MasterChannel | OlderChannel:
    if ring is None:
        return OlderChannel(PlainSocket(fileno=orders))
    return MasterChannel.restore(orders, ring)
