"""The launcher: begins generations, forks their templates, and orders workers from them.

A template is forked from the master and leaves behind what is the master's own; a worker is forked by the template of
its generation, which gets the worker's end of a channel with the order. Where the kernel has no process, descriptor or
memory to give, that is told to the model, which waits and tries again (backoff.py).
"""

from __future__ import annotations

import os
import select
import signal
import socket
from functools import partial

from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError
from forkserver.ipc import messages
from forkserver.ipc.channel import MasterChannel
from forkserver.linux import cgroups, syscalls
from forkserver.linux.process_limits import why_refused
from forkserver.linux.sockets.plain_socket import socketpair
from forkserver.master.control import listener as control_listener
from forkserver.master.model.events import Failure
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.model import Model
from forkserver.master.monitoring import memory_headroom
from forkserver.master.processes.file_watcher import FileWatcherProcess
from forkserver.master.processes.processes import Processes
from forkserver.master.processes.system import System
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.generation_config import GenerationConfig
from forkserver.master.resources.resources import Resources
from forkserver.worker import template
from forkserver.worker.development.file_reports import FileReporter
from forkserver.worker.loading.release_paths import Release, gone, moved


class Launcher:
    """Starts processes.

    ``handoff`` are the ends, give and take, of the queue of connections on their way between workers. The master holds
    them so that no connection is lost while no worker takes. They are numbers, not objects, and never closed here: the
    kernel closes what is left in the queue in the context of the last holder, and would wait there for a connection
    that lingers. Where a process ends it does not wait.
    """

    def __init__(
        self,
        resources: Resources,
        model: Model,
        processes: Processes,
        reporter: Reporter,
        system: System,
        handoff: tuple[int, int] | None = None,
        file_watcher: FileWatcherProcess | None = None,
    ) -> None:
        self._resources = resources
        self._fleet, self._rollout, self._transitions = model
        self._poller, self._children, _, self._table = processes
        self._reporter = reporter
        self._system = system
        self.handoff = handoff or _handoff_queue()
        self._file_watcher = file_watcher

    # Generations

    def begin(self, purpose: Purpose, settings: Settings) -> int:
        """Begin a generation that is to run by ``settings``; returns its number."""
        times = Times(settings.boot_timeout, settings.graceful_timeout)
        # What takes a dead template's place loads no code where its workers do that themselves.
        shares = settings.preload != "off" and (purpose is not Purpose.REPLACE or self._rollout.restores())
        number = self._rollout.begin(purpose, settings.workers, times, shares)
        if purpose is Purpose.REPLACE:
            # The code and settings of before, with the rows that fit them: a refused reload may have brought others.
            config = self._table.config(self._rollout.current)
            if not config.board.sealed:
                config = config._replace(board=self._resources.sealed_board(settings))
        else:
            release = Release.of(self._resources.directory, settings)
            config = GenerationConfig(settings, self._resources.board, self._resources.tls, release)
        self._table.add(number, config)
        return number

    def replace(self) -> None:
        """Begin a generation in place of a template that died."""
        settings = self._table.config(self._rollout.current).settings  # not those of a reload that has failed since
        generation = self.begin(Purpose.REPLACE, settings)
        self._resources.log.info(f"loading generation {generation} for the workers to come")

    def return_to_release(self) -> None:
        """Enter the directory that the current generation was loaded from, where it is known."""
        release = self._table.config(self._rollout.current).release
        if release is not None:
            self._resources.return_to(release.directory)

    # Templates

    def start_template(self, generation: int, shares: bool, now: float) -> None:
        """Fork the template of ``generation``, or tell the model why that cannot be."""
        try:
            directory, settings = self._folders(generation)
        except ForkserverError as error:
            self._rollout.generation_failed(generation, Failure(str(error), exit_status=1), now)
            return
        if not shares:
            self._fleet.processors = cgroups.usable()
            self._fleet.generations[generation].at_first = self._at_first()
        try:
            ours, theirs = MasterChannel.pair()
        except OSError as error:
            self._no_process(f"no channel for a template: {why_refused(error)}", now)
            return
        try:
            config = self._template_config(generation, shares, directory, settings, ours)
            pid = self._system.spawn(partial(template.main, config, theirs, os.getpid()))
        except OSError as error:
            ours.close()
            theirs.orders.close()
            self._no_process(f"cannot fork a template: {why_refused(error)}", now)
            return
        except ForkserverError as error:
            ours.close()
            theirs.orders.close()
            why = Failure(f"cannot start a template: {error}", exit_status=1)
            self._rollout.generation_failed(generation, why, now)
            return
        theirs.orders.close()
        started = self._transitions.template_started(generation, pid, now)
        self._poller.add(started, ours)
        try:
            self._children.hold(started, pid)
        except OSError as error:
            self._reporter.no_process(f"cannot hold a template: {why_refused(error)}", now)
            syscalls.kill(pid, signal.SIGKILL)  # a child that we have just forked and not reaped: the number is its own

    def _at_first(self) -> int:
        """How many workers of a reload begin before one has shown its size: two, where memory holds two more as now."""
        sizes = [memory_headroom.private(worker.pid) for worker in self._fleet.serving()]
        room = memory_headroom.more_workers(max(sizes, default=0), memory_headroom.available())
        return 2 if room >= 2 else 1

    def _template_config(
        self, generation: int, shares: bool, directory: str, settings: Settings, ours: MasterChannel
    ) -> template.TemplateConfig:
        resources, config = self._resources, self._table.config(generation)
        if settings.encrypted and config.tls is None:
            raise ConfigError("its certificates could not be read at the upgrade; fix them and reload")
        return template.TemplateConfig(
            settings=settings,
            generation=generation,
            shares=shares,
            oom_more=template.OOM_WHILE_LOADING if self._fleet.serving() else template.OOM_MORE,
            directory=directory,
            started_in=resources.started_in,
            environment=resources.environment,
            soft_limit=resources.open_files.soft_limit,
            credentials=settings.credentials(),
            log=resources.log,
            access=resources.access,
            board=config.board,
            tls=config.tls,
            leave_behind=partial(self._leave_behind, ours),
            file_reporter=self._file_reporter(generation),
        )

    def _file_reporter(self, generation: int) -> FileReporter | None:
        """Where to report the files of ``generation``; code of forkserver's own is not watched."""
        if self._file_watcher is None or self._rollout.waits(generation):
            return None
        return self._file_watcher.reporter()

    def _folders(self, generation: int) -> tuple[str, Settings]:
        """The directory to load ``generation`` from, and its settings, by the paths given or as they led when it began.

        Raises ForkserverError where the folders of before are gone, so that the code of others would be loaded beside
        workers that serve.
        """
        directory, config = self._resources.directory, self._table.config(generation)
        settings, before = config.settings, config.release
        move = moved(before, directory, settings) if before is not None else None
        if before is None or move is None:
            return directory, settings
        if not (missing := gone(before)):
            self._reporter.stays_with_release(generation, move)
            return before.directory, before.pin(settings)
        if self._fleet.serving_count:
            raise ForkserverError(f"{missing}, where its code was, is gone, and {move}; a reload takes the code there")
        self._reporter.takes_another_release(generation, move)
        return directory, settings

    def _leave_behind(self, ours: MasterChannel) -> None:
        """In a template: close what is the master's own, or the end of the master would not be seen."""
        ours.leave()
        self._poller.close()
        self._children.close()
        self._system.signals.close()
        self._resources.control.leave_behind()
        self._resources.admin.leave_behind()
        if self._file_watcher is not None:
            self._file_watcher.leave_behind()
        os.environ.pop(control_listener.VARIABLE, None)  # nothing for the application
        for listener in self._resources.listeners:
            listener.close()
        for end in self.handoff:
            os.close(end)

    def clients_wait(self) -> bool:
        """Whether a client waits to be accepted, or to be taken over by another worker.

        By poll(2), which does not take the lock that a reader of the queue holds: a worker could hold that for ever.
        """
        queues = self.handoff[1], *(listener.fileno() for listener in self._resources.listeners)
        return any(syscalls.has_event(number, select.POLLIN) for number in queues)

    # Workers

    def spawn(self, slot: int, generation: int, now: float) -> None:
        """Order a worker for ``slot``, or tell the model why that cannot be."""
        parent = self._fleet.template(generation)
        if parent is None:
            return  # killed by a step before; the next plan knows
        row = self._table.lease(slot, generation)
        if row is None:
            self._resources.log.error(f"no worker for slot {slot + 1}: every row of the scoreboard is taken")
            self._transitions.spawn_failed(slot, generation, "every row of the scoreboard is taken", now)
            return
        channel = self._poller.channel(parent)
        try:
            ours, theirs = MasterChannel.pair() if channel is None else channel.another()
        except OSError as error:
            self._table.give_back(generation, row)
            self._no_process(f"no channel for a worker: {why_refused(error)}", now)
            return
        sent = self._poller.order(parent, messages.Spawn(row.index, slot, generation), theirs.descriptors())
        theirs.orders.close()
        if not sent:
            ours.close()
            self._table.give_back(generation, row)
            self._no_process(f"{parent} takes no orders", now)
            return
        worker = self._transitions.worker_ordered(slot, generation, row.index, now)
        self._table.put(worker, row)
        self._poller.add(worker, ours)

    def _no_process(self, why: str, now: float) -> None:
        self._rollout.no_process(why, now)
        self._reporter.no_process(why, now)


def _handoff_queue() -> tuple[int, int]:
    give, take = socketpair(socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    return give.detach(), take.detach()
