"""The parts of a master that act and tell, without its loop and without a process."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any, cast

from forkserver.config import loading
from forkserver.config.invocation import Environment
from forkserver.ipc import messages
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.ipc.scoreboard import Scoreboard
from forkserver.linux import systemd
from forkserver.linux.terminal import Terminal
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.master.actions import Actions
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.model import model as master_model
from forkserver.master.model.events import Failure
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import Process, Worker
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.processes.broken_code import BrokenCode
from forkserver.master.processes.children import Children
from forkserver.master.processes.launcher import Launcher
from forkserver.master.processes.processes import Processes
from forkserver.master.processes.system import System
from forkserver.master.processes.worker_pids import WorkerPids
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.open_files import OpenFiles
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import Shutdown
from harness.model import Model

NOW = 1000.0
NO_PROCESS = 2**22 + 1  # above pid_max, proc(5)
BROKEN = Failure("it is broken", "Traceback")


class Parts(Model):
    """What acts and tells: launcher, actions and reporter of two slots, and the generation that starts."""

    def __init__(self) -> None:
        self.wake_up, self._woken = os.pipe()
        self.settings = loading.load(["raw:app", "-w", "2"], {})
        self.board = Scoreboard(rows=8)
        log = ErrorLog("-", "debug", "test")
        resources = SimpleNamespace(
            settings=self.settings, directory=os.getcwd(), started_in=os.getcwd(), board=self.board, listeners=[],
            tls=None, log=log, access=AccessLog(None, log.warning), open_files=OpenFiles(),
            environment=Environment(sys.prefix, sys.prefix), logs=SimpleNamespace(files=(False, False)),
        )  # fmt: skip
        held = cast("Resources", resources)
        super().__init__(Rollout(Fleet(2)))
        rollout, transitions = self.rollout, self.transitions
        self.links: ChannelPoller[Process] = ChannelPoller(self.wake_up, self._refused)
        self.children = Children()
        self.table = WorkerTable(held, rollout)
        statistics = Statistics(rollout.fleet, self.table.__getitem__)
        self.reporter = Reporter(held, rollout, systemd.Notifier({}), statistics)
        self.processes = Processes(self.links, self.children, WorkerPids(rollout.fleet, self.children), self.table)
        self.system = System(cast("Any", None), Terminal(False), systemd.Notifier({}), self.children)
        self.model = master_model.Model(rollout.fleet, rollout, transitions)
        self.launcher = Launcher(held, self.model, self.processes, self.reporter, self.system)
        broken_code = BrokenCode(held, rollout, self.processes, self.launcher, self.reporter)
        self.actions = Actions(held, self.model, self.processes, self.launcher, self.reporter, broken_code)
        self.launcher.begin(Purpose.START, self.settings)

    def _refused(self, process: Process, order: messages.Message, error: OSError) -> None:
        self.actions._resources.log.error(f"{process}: {order}: {error}")

    def handlers(self) -> CommandHandlers:
        return CommandHandlers(
            self.actions._resources,
            self.model,
            self.table,
            self.reporter,
            self.actions,
            cast("Any", None),
            cast("Any", None),
            self.launcher.clients_wait,
        )

    def stop(self) -> Shutdown:
        return Shutdown(self.actions._resources, self.rollout, self.reporter, self.actions, self.table)

    def act(self, now: float) -> None:
        for step in self.plan(now):
            self.actions.act(step, now)

    def close(self) -> None:
        self.links.close()
        for end in self.launcher.handoff:
            os.close(end)
        os.close(self.board.fd)
        os.close(self.wake_up)
        os.close(self._woken)
        self.__dict__.clear()  # the scoreboard's memory goes with the last who knows it


class Unshared:
    """Two workers of generation 1 serve, each by its own import, and generation 2 rolls."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.parts.fleet.generations[1].shares = False
        self.load(1)
        self.workers = [self.serving(slot, 1) for slot in (0, 1)]
        self.parts.rollout.take_events()
        parts.launcher.begin(Purpose.RELOAD, parts.settings)
        self.parts.fleet.generations[2].shares = False
        self.load(2)

    def load(self, generation: int) -> None:
        self.parts.transitions.template_loaded(self.parts.transitions.template_started(generation, 4711, NOW), NOW)

    def starting(self, slot: int, generation: int) -> Worker:
        """A worker that imports. No process: its pid is none that there can be."""
        row = self.parts.board.lease()
        assert row is not None
        worker = self.parts.transitions.worker_ordered(slot, generation, row.index, NOW)
        self.parts.table.put(worker, row)
        self.parts.transitions.worker_announced(worker, NO_PROCESS + slot, NOW)
        return worker

    def serving(self, slot: int, generation: int) -> Worker:
        worker = self.starting(slot, generation)
        self.parts.actions.ready(worker, NOW)
        return worker
