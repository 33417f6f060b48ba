"""The file watcher: a child that has the code loaded again when its files change, where ``reload_on_change`` is on.

As the admin process it is no worker and no template, and the master believes nothing that it says: it adds to a
counter, which asks for a reload. Templates and workers report the files that they have read to it, not to the master.
Where it dies it is started again, and the code is loaded again, so that the next one learns those files.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any, Final

from forkserver.errors import ForkserverError
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.process_limits import why_refused
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.backoff import Backoff
from forkserver.master.model.lifecycle import NEVER, Process
from forkserver.master.model.rollout import Rollout
from forkserver.master.processes.children import NotOursError
from forkserver.master.processes.system import System
from forkserver.master.processes.unended import LeavingChildren, Unended
from forkserver.master.resources.resources import Resources
from forkserver.worker.development import file_reports, file_watcher
from forkserver.worker.development.file_reports import FileReporter
from forkserver.worker.development.file_watcher import WatcherConfig, WatcherEnds

LEAVE_SECONDS: Final = 5.0  # a process that was told to leave is killed then
_SETTINGS: Final = (
    "reload_on_change", "reload_extra_files", "env_file", "chdir", "user", "group", "umask", "app",
)  # fmt: skip


class WatcherTerms(NamedTuple):
    """What a watcher was started with; others need another process."""

    log: ErrorLog
    values: list[Any]
    config_path: str | None


class WatcherChild:
    """One run of the process, and the master's ends of its channels."""

    def __init__(self, terms: WatcherTerms, bell: int, leash: PlainSocket, reports: PlainSocket) -> None:
        self.pid = 0
        self.terms = terms
        self.started = 0.0
        self.bell = bell
        self.leash = leash
        self.reports = reports

    def close(self) -> None:
        os.close(self.bell)
        self.leash.close()
        self.reports.close()


class FileWatcherProcess:
    """Keeps one watcher alive, and has ``rollout`` reload when it rings."""

    def __init__(
        self,
        resources: Resources,
        rollout: Rollout,
        system: System,
        poller: ChannelPoller[Process],
        unended: Unended,
    ) -> None:
        self._resources = resources
        self._rollout = rollout
        self._system = system
        self._poller = poller
        self._children = system.children
        self._child: WatcherChild | None = None
        self._leaving = LeavingChildren("the file watcher", system.children, unended)
        self._backoff = Backoff()

    @property
    def pids(self) -> set[int]:
        """Of the processes that are its, none of which can be a worker's."""
        return self._leaving.pids | ({self._child.pid} if self._child is not None else set())

    @property
    def next_look(self) -> float:
        """When ``turn`` is due although nothing has happened."""
        start = self._backoff.retry_at if self._child is None and self._wanted else NEVER
        return min(start, self._leaving.next_look)

    @property
    def _wanted(self) -> bool:
        return self._resources.settings.reload_on_change == "on"

    def reporter(self) -> FileReporter | None:
        """Where a template, and its workers, report what they have read; None where no watcher is there."""
        return None if self._child is None else FileReporter(self._child.reports)

    def turn(self, now: float) -> None:
        """Start, replace or end the process, and obey it.

        The child leaves through these frames: no ``finally`` and no ``with`` here.
        """
        self._leaving.turn(now)
        terms = self._terms()
        child = self._child
        if child is not None and terms != child.terms:
            self._let_go(child, now)
            self._backoff.recovered()
        elif child is not None and syscalls.take_count(child.bell):
            self._rollout.want_reload()
            if self._rollout.fleet.in_debugger:
                self._resources.log.info("the code is loaded again when the call in the debugger is over")
        if self._child is None and terms is not None and now >= self._backoff.retry_at:
            self._start(terms, now)

    def _terms(self) -> WatcherTerms | None:
        if not self._wanted or self._rollout.fleet.departing:
            return None
        settings = self._resources.settings
        values = [getattr(settings, name) for name in _SETTINGS]
        return WatcherTerms(self._resources.log, values, settings.config_path)

    def _start(self, terms: WatcherTerms, now: float) -> None:
        try:
            child, ends = _channels(terms)
        except OSError as error:
            self._failed(f"no channel for the file watcher: {why_refused(error)}", now)
            return
        resources = self._resources
        try:
            config = WatcherConfig(
                resources.settings, resources.settings.credentials(), ends, terms.log, resources.directory
            )
            child.pid = self._system.spawn(partial(file_watcher.main, config, os.getpid()))
        except (OSError, ForkserverError) as error:
            child.close()
            ends.close()
            why = why_refused(error) if isinstance(error, OSError) else str(error)
            self._failed(f"cannot fork the file watcher: {why}", now)
            return
        ends.close()
        child.started = now
        if self._child is None and self._rollout.current:  # what was loaded before is not known to this one
            self._rollout.want_reload()
        self._child = child
        self._poller.wake_by(child.bell)
        try:
            self._children.hold(child, child.pid)
        except (OSError, NotOursError) as error:
            resources.log.warning(f"the file watcher, pid {child.pid}, gets no signals: {error}")

    def _failed(self, why: str, now: float) -> None:
        self._backoff.failed(now)
        self._resources.log.warning(f"{why}; trying again in {self._backoff.retry_at - now:.3g} s")

    def _let_go(self, child: WatcherChild, now: float) -> None:
        """It leaves at the end of its channel."""
        child.close()
        self._leaving.add(child, now + LEAVE_SECONDS)
        self._child = None

    def ended(self, pid: int, status: int, now: float) -> bool:
        """A child has ended: whether it was a watcher, and then what follows from that."""
        if self._leaving.ended(pid):
            return True
        child = self._child
        if child is None or child.pid != pid:
            return False
        self._children.release(child)
        child.close()
        self._child = None
        self._backoff.ended(now - child.started, now)
        self._resources.log.warning(
            f"the file watcher, pid {pid}, has ended: {syscalls.how_it_ended(status)}; it is started again, and the "
            "code is loaded again then"
        )
        return True

    def leave_behind(self) -> None:
        """In a process just forked: close what is the master's own; reports may still be sent."""
        if self._child is not None:
            os.close(self._child.bell)
            self._child.leash.close()

    def close(self) -> None:
        """End it: the service has stopped, and leaves no child behind."""
        if self._child is not None:
            self._let_go(self._child, self._system.clock())
        self._leaving.close()


def _channels(terms: WatcherTerms) -> tuple[WatcherChild, WatcherEnds]:
    """The channels of a new watcher: the master's ends, and its own. Raises OSError."""
    bell = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        leash, theirs = socketpair(socket.SOCK_STREAM)
    except OSError:
        os.close(bell)
        raise
    leash.shutdown(socket.SHUT_RD)
    try:
        hears, reports = file_reports.pair()
    except OSError:
        os.close(bell)
        leash.close()
        theirs.close()
        raise
    return WatcherChild(terms, bell, leash, reports), WatcherEnds(os.dup(bell), theirs, hears)
