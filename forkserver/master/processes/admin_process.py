"""The admin process: a child that serves ``admin_bind``, started again where it dies or what it was given has changed.

It is no worker and no template: the fleet does not know it, no plan counts it, and its death costs no request. What it
was started with is its ``AdminTerms``; when a reload, a rotation of the logs or a moved listener gives others, it is
told to leave by the end of its channel, and the next one is started at once. At an upgrade the channel is closed by the
exec. The master believes nothing that it says: it can ask for the status, by a question without content.

What it does can be held up by its own user, the application. So the master looks at the queue of its listener: where
clients wait there all the time, and it asks for no status, it hangs, and is replaced.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from forkserver.errors import ForkserverError
from forkserver.ipc.status_channel import ClosedError, StatusAnswers
from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.process_limits import why_refused
from forkserver.linux.sockets import accept_queue
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.backoff import Backoff
from forkserver.master.processes.children import NotOursError
from forkserver.master.processes.system import System
from forkserver.master.processes.unended import LeavingChildren, Unended
from forkserver.master.resources.resources import Resources
from forkserver.worker.admin import admin_server

LEAVE_SECONDS: Final = 5.0  # a process that was told to leave is killed then
WORKERS_FIRST_SECONDS: Final = 1.0  # at the start: the workers come first
LOOK_SECONDS: Final = 5.0  # between two looks at the clients that wait for it
HUNG_SECONDS: Final = 30.0  # clients wait, and it takes none
_SETTINGS: Final = ("admin_bind", "admin_hosts", "user", "group", "umask", "env", "spool_dir", "app")


class AdminTerms(NamedTuple):
    """What an admin process was started with; others need another process. ``reopened`` counts reopened logs."""

    listener: ListeningSocket
    log: ErrorLog
    values: list[Any]
    reopened: int


class AdminChild:
    """One run of the admin process.

    At ``alive_at`` no client has waited for it, or it has asked for the status; at ``look_at`` that is looked at again.
    """

    def __init__(self, pid: int, terms: AdminTerms, started: float) -> None:
        self.pid = pid
        self.terms = terms
        self.started = self.alive_at = started
        self.look_at = started + LOOK_SECONDS


class AdminProcess:
    """Keeps one admin process alive where ``resources.admin`` has a listener for it."""

    def __init__(self, resources: Resources, system: System, unended: Unended) -> None:
        self._resources = resources
        self._system = system
        self._children = system.children
        self._child: AdminChild | None = None
        self._leaving = LeavingChildren("the admin process", system.children, unended)
        self._backoff = Backoff()
        self._not_before = system.clock() + WORKERS_FIRST_SECONDS
        self._reopened = 0

    @property
    def pids(self) -> set[int]:
        """Of the processes that are its, none of which can be a worker's."""
        return self._leaving.pids | ({self._child.pid} if self._child is not None else set())

    def status(self) -> dict[str, Any] | None:
        """For the status of the service: its pid (None while there is none) and address; None where it is off."""
        listener = self._resources.admin.listener
        if listener is None:
            return None
        return {"pid": None if self._child is None else self._child.pid, "address": listener.name}

    def logs_reopened(self) -> None:
        """The log files were opened again: the process that writes to the old ones is replaced."""
        self._reopened += 1

    @property
    def next_look(self) -> float:
        """When ``turn`` is due although nothing has happened."""
        times = [self._resources.admin.next_look, self._leaving.next_look]
        if self._child is not None:
            times.append(self._child.look_at)
        elif self._resources.admin.listener is not None:
            times.append(max(self._backoff.retry_at, self._not_before))
        return min(times)

    def turn(self, now: float, serving: bool, status: Callable[[float], Mapping[str, Any]]) -> None:
        """Start, replace or end the process, and answer its question; ``status`` gives that of the service.

        The child leaves through these frames: no ``finally`` and no ``with`` here.
        """
        self._leaving.turn(now)
        terms = self._terms()
        if self._child is not None and terms != self._child.terms:
            self._let_go(self._child, now)
            self._backoff.recovered()
        self._answer(now, status)
        self._look_at_queue(now)
        if serving:
            self._not_before = now
        if self._child is None and terms is not None and now >= max(self._backoff.retry_at, self._not_before):
            self._start(terms, now)

    def _terms(self) -> AdminTerms | None:
        resources = self._resources
        if resources.admin.listener is None:
            return None
        values = [getattr(resources.settings, name) for name in _SETTINGS]
        return AdminTerms(resources.admin.listener, resources.log, values, self._reopened)

    def _answer(self, now: float, status: Callable[[float], Mapping[str, Any]]) -> None:
        answers = self._resources.admin.answers
        try:
            if answers is not None and answers.asked(now):
                if self._child is not None:
                    self._child.alive_at = now
                answers.answer(status(now), now)
        except ClosedError as error:
            self._resources.log.debug(f"the admin process is told to leave: {error}")
            if self._child is not None:
                self._let_go(self._child, now)

    def _look_at_queue(self, now: float) -> None:
        """Replace the process where clients wait, and it takes none."""
        child = self._child
        if child is None or now < child.look_at:
            return
        child.look_at = now + LOOK_SECONDS
        waiting = accept_queue.length(child.terms.listener)
        if not waiting:
            child.alive_at = now
        elif now - child.alive_at >= HUNG_SECONDS:
            waits = "1 client waits" if waiting == 1 else f"{waiting} clients wait"
            self._resources.log.error(
                f"the admin process, pid {child.pid}, hangs: {waits}, and it has taken none for "
                f"{HUNG_SECONDS:g} s; it is replaced, and its stacks follow"
            )
            self._children.signal(child, signal.SIGUSR2)  # faulthandler writes them, whatever the process does
            self._let_go(child, now)

    def _let_go(self, child: AdminChild, now: float) -> None:
        self._resources.admin.talk(None)
        self._leaving.add(child, now + LEAVE_SECONDS)
        self._child = None

    def _start(self, terms: AdminTerms, now: float) -> None:
        resources = self._resources
        try:
            ours, theirs = StatusAnswers.pair()
        except OSError as error:
            self._failed(f"no channel for the admin process: {why_refused(error)}", now)
            return
        try:
            config = admin_server.AdminConfig(
                settings=resources.settings,
                credentials=resources.settings.credentials(),
                listener=terms.listener,
                ends=theirs,
                log=terms.log,
                environment=resources.environment,
                directory=resources.directory,
                started_in=resources.started_in,
                soft_limit=resources.open_files.soft_limit,
            )
            pid = self._system.spawn(partial(admin_server.main, config, os.getpid()))
        except (OSError, ForkserverError) as error:
            ours.close()
            theirs.close()
            why = why_refused(error) if isinstance(error, OSError) else str(error)
            self._failed(f"cannot fork the admin process: {why}", now)
            return
        theirs.close()
        self._child = AdminChild(pid, terms, now)
        resources.admin.talk(ours)
        try:
            self._children.hold(self._child, pid)
        except (OSError, NotOursError) as error:
            resources.log.warning(f"the admin process, pid {pid}, gets no signals: {error}")
        resources.log.info(f"admin process, pid {pid}, at {terms.listener.name}")

    def _failed(self, why: str, now: float) -> None:
        self._backoff.failed(now)
        self._resources.log.warning(f"{why}; trying again in {self._backoff.retry_at - now:.3g} s")

    def ended(self, pid: int, status: int, now: float) -> bool:
        """A child has ended: whether it was an admin process, and then what follows from that."""
        if self._leaving.ended(pid):
            return True
        child = self._child
        if child is None or child.pid != pid:
            return False
        self._children.release(child)
        self._child = None
        self._resources.admin.talk(None)
        self._backoff.ended(now - child.started, now)
        when = max(0.0, self._backoff.retry_at - now)
        again = f"in {when:.3g} s" if when else "at once"
        self._resources.log.warning(
            f"the admin process, pid {pid}, has ended: {syscalls.how_it_ended(status)}; it is started again {again}, "
            "and no request depends on it"
        )
        return True

    def close(self) -> None:
        """End it: the service has stopped, and leaves no child behind."""
        if self._child is not None:
            self._let_go(self._child, self._system.clock())
        self._leaving.close()
