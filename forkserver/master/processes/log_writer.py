"""The log writer: a child that writes the error log, where the application runs as another user than the master.

A process that has a pipe's or file's descriptor, such as each of the application's has that of the error log, can have
the kernel hold its lock: splice(2) from a socket with nothing to read is enough. A master that writes there, or opens
it, then waits until that process ends, and no signal ends it before. So where the application has a user of its own,
the master touches neither. It sends its lines by a queue, without waiting, and this child writes them (log_pump.py).
The child keeps open what pipes the master has, so that no close(2) of the master's is the last and waits. So there is
one wherever there is such a pipe, also where the error log is a socket, which the master writes to itself.

Each file has a queue and a child of its own. Both ends of the queue are the master's: lines wait there for the next
child where one has ended. They are no other process's: forked children close them. What is full drops lines, which are
counted as ever (log_output.py). The next program takes up queue and child. A child that hangs is left behind with what
it hangs at, and at most ``MOST_LEFT`` of them.
"""

from __future__ import annotations

import os
import signal
import socket
import weakref
from functools import partial
from typing import Final

from forkserver.config.settings import Settings
from forkserver.linux import signals, syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.process_limits import why_refused
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair
from forkserver.logs import log_output
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.backoff import Backoff
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.processes.children import NotOursError
from forkserver.master.processes.system import System
from forkserver.master.processes.unended import LeavingChildren, Unended
from forkserver.master.resources.log_set import inherited_error_log
from forkserver.master.resources.resources import Resources
from forkserver.worker.forking import log_pump

LEAVE_SECONDS: Final = 5.0  # for the rest of a log that is not written any longer
FLUSH_SECONDS: Final = 2.0  # for the last lines of the master
GONE_SECONDS: Final = 0.5  # within which a killed process ends
MOST_LEFT: Final = 3  # children that hang; no other is started beside so many
_QUEUE_BYTES: Final = 2 << 20
_NO_FILE: Final = (0, 0)  # in place of device and inode, for a child that has no lines to write
_SO_SNDBUFFORCE: Final = 32  # socket(7)


def is_wanted(settings: Settings) -> bool:
    """Whether the application of ``settings`` runs as another user than this process."""
    return settings.user is not None and settings.service_uid != os.geteuid()


class LogQueue:
    """Lines on their way to the child. Raises OSError."""

    def __init__(self, ours: PlainSocket, theirs: PlainSocket) -> None:
        self.ours = ours
        self.theirs = theirs
        _queues.add(self)

    @classmethod
    def make(cls) -> LogQueue:
        ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        try:
            ours.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _QUEUE_BYTES)
        except PermissionError:  # a container without CAP_NET_ADMIN
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
        return cls(ours, theirs)

    @classmethod
    def restore(cls, snapshot: LogWriterSnapshot) -> LogQueue:
        return cls(PlainSocket(fileno=snapshot.ours), PlainSocket(fileno=snapshot.theirs))

    def finish(self, deadline: float) -> bool:
        """Send nothing more, and wait until all is written or ``deadline`` (CLOCK_MONOTONIC); whether it is."""
        self.ours.shutdown(socket.SHUT_WR)
        try:
            while (left := deadline - syscalls.clock()) > 0:
                self.ours.settimeout(left)
                if self.ours.recv(256) == log_pump.WRITTEN:
                    return True
        except TimeoutError:
            pass
        return False

    def close(self) -> None:
        """Close both ends, in this process."""
        self.ours.close()
        self.theirs.close()


_queues: Final[weakref.WeakSet[LogQueue]] = weakref.WeakSet()


def _leave_behind() -> None:
    for queue in tuple(_queues):
        queue.close()


os.register_at_fork(after_in_child=_leave_behind)


def _needs_child(log: ErrorLog) -> bool:
    """Whether ``log`` is to be written by a child, or is there while pipes are to be kept open by one."""
    return log.can_be_held or bool(log_output.pipes())


def _key(log: ErrorLog) -> tuple[int, int]:
    """By which the child for ``log`` is found: device and inode of the file that it writes."""
    return log.inode() if log.can_be_held else _NO_FILE


class LogWriterSnapshot(NamedTuple):
    """The queue's ends and the child's pid, 0 for none."""

    ours: int
    theirs: int
    pid: int


class LogWriterChild:
    """The queue of one file, and the child that writes it; ``pid`` is 0 while there is none."""

    def __init__(self, log: ErrorLog, queue: LogQueue, pid: int = 0) -> None:
        self.log = log
        self.queue = queue
        self.pid = pid
        self.started = 0.0


def take_up(
    settings: Settings, opened: int, snapshot: LogWriterSnapshot | None
) -> tuple[ErrorLog, LogWriterChild | None]:
    """In the next program: the error log of the one before, ``opened`` as for inherited_error_log, and its child.

    Neither is touched where the application can hold it. Raises OSError, ConfigError and ForkserverError.
    """
    if snapshot is not None or is_wanted(settings):
        log_output.leave_to_writer()
    queue = None if snapshot is None else LogQueue.restore(snapshot)
    log = inherited_error_log(settings, opened)
    if not log_output.leaves_to_writer() or not _needs_child(log):
        return log, None
    child = LogWriterChild(log, queue or LogQueue.make(), 0 if snapshot is None else snapshot.pid)
    log.write_by(child.queue.ours)
    return log, child


class LogWriter:
    """Keeps a child for the error log of ``resources``; ``inherited`` is that of the program before."""

    def __init__(
        self, resources: Resources, system: System, unended: Unended, inherited: LogWriterChild | None = None
    ) -> None:
        self._resources = resources
        self._system = system
        self._children = system.children
        self._logs: dict[tuple[int, int], LogWriterChild] = {}  # by ``_key``
        self._leaving = LeavingChildren("the log writer", system.children, unended)
        self._given_up: set[int] = set()  # pids of children that a kill has not ended
        self._backoff = Backoff()
        resources.logs.opened = self._join
        if inherited is not None:
            self._logs[_key(inherited.log)] = inherited
            if inherited.pid:
                self._hold(inherited)

    @property
    def pids(self) -> set[int]:
        """Of the processes that are its, none of which can be a worker's."""
        return self._leaving.pids | {each.pid for each in self._logs.values() if each.pid}

    @property
    def next_look(self) -> float:
        """When ``turn`` is due although nothing has happened."""
        missing = [self._backoff.retry_at for each in self._logs.values() if self._may_start(each)]
        return min([NEVER, *missing, self._leaving.next_look])

    def status(self) -> int | None:
        """The pid of the child that writes the error log, or keeps pipes open; None where there is none."""
        found = self._logs.get(_key(self._resources.log))
        return found.pid or None if found is not None else None

    def snapshot(self) -> LogWriterSnapshot | None:
        """What the next program is told; the rest of other files is written while it begins, by children that leave."""
        child = self._logs.get(_key(self._resources.log))
        for other in self._logs.values():
            if other is not child:
                self._children.signal(other, signals.LEAVE)
        if child is None:
            return None
        return LogWriterSnapshot(child.queue.ours.fileno(), child.queue.theirs.fileno(), child.pid)

    def turn(self, now: float) -> None:
        """Start a child for each file, and end those of files that are not written any more.

        The child leaves through these frames: no ``finally`` and no ``with`` here.
        """
        if not log_output.leaves_to_writer() and not is_wanted(self._resources.settings):
            return
        logs = self._resources.logs.error_logs
        for log in logs:
            self._join(log)
        wanted = {_key(log) for log in logs if _needs_child(log)}
        for key in [key for key in self._logs if key not in wanted]:
            self._let_go(self._logs.pop(key), now)
        self._given_up.update(self._leaving.turn(now))
        for child in self._logs.values():
            if self._may_start(child) and now >= self._backoff.retry_at:
                self._start(child, now)
        if not log_output.leaves_to_writer() and all(child.pid for child in self._logs.values()):
            log_output.leave_to_writer()  # before any code of the application runs

    def _may_start(self, child: LogWriterChild) -> bool:
        return not child.pid and len(self._leaving.pids) + len(self._given_up) < MOST_LEFT

    def _join(self, log: ErrorLog) -> None:
        """Have the lines of ``log`` written by a child, where they can be held up, or pipes kept open by one."""
        if not _needs_child(log) or not (log_output.leaves_to_writer() or is_wanted(self._resources.settings)):
            return
        child = self._logs.get(_key(log))
        if child is None:
            try:
                child = LogWriterChild(log, LogQueue.make())
            except OSError:  # no descriptor is left: lines are dropped and counted, until a turn makes it
                return
            self._logs[_key(log)] = child
        child.log = log
        log.write_by(child.queue.ours)

    def _start(self, child: LogWriterChild, now: float) -> None:
        log = self._resources.log
        try:
            queue = os.dup(child.queue.theirs.fileno())
        except OSError as error:
            self._failed(f"no descriptor for the log writer: {why_refused(error)}", now)
            return
        config = log_pump.PumpConfig(queue, child.log, str(self._resources.settings.app), os.getpid())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, log_pump.ORDERS)  # in the child until it waits for them
        try:
            child.pid = self._system.spawn(partial(log_pump.main, config))
        except OSError as error:
            self._failed(f"cannot fork the log writer: {why_refused(error)}", now)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(queue)
        if not child.pid:
            return
        child.started = now
        self._hold(child)
        does = f"writes error_log {child.log.target!r}" if child.log.can_be_held else "keeps pipes open"
        log.debug(f"the log writer, pid {child.pid}, {does}")

    def _hold(self, child: LogWriterChild) -> None:
        try:
            self._children.hold(child, child.pid)
        except (OSError, NotOursError) as error:
            self._resources.log.warning(f"the log writer, pid {child.pid}, gets no signals: {error}")

    def _failed(self, why: str, now: float) -> None:
        self._backoff.failed(now)
        self._resources.log.warning(f"{why}; trying again in {self._backoff.retry_at - now:.3g} s")

    def _let_go(self, child: LogWriterChild, now: float) -> None:
        """It writes what it was sent, and leaves at the end of its queue."""
        child.queue.close()
        if child.pid:
            self._children.signal(child, signals.LEAVE)
            self._leaving.add(child, now + LEAVE_SECONDS)

    def ended(self, pid: int, status: int, now: float) -> bool:
        """A child has ended: whether it was a log writer, and then what follows from that."""
        self._given_up.discard(pid)
        if self._leaving.ended(pid):
            return True
        child = next((each for each in self._logs.values() if each.pid == pid), None)
        if child is None:
            return False
        self._children.release(child)
        child.pid = 0
        self._backoff.ended(now - child.started, now)
        self._resources.log.warning(
            f"the log writer, pid {pid}, has ended: {syscalls.how_it_ended(status)}; it is started again, and lines "
            "wait for it"
        )
        return True

    def close(self) -> None:
        """Have the last lines written, for which the master waits ``FLUSH_SECONDS`` at most; it writes none after."""
        deadline = syscalls.clock() + FLUSH_SECONDS
        for child in self._logs.values():
            if not child.pid:
                self._start(child, self._system.clock())
        for child in self._logs.values():
            if child.pid and not child.queue.finish(deadline):
                self._children.signal(child, signals.LEAVE_NOW)  # once the master has ended: it keeps pipes open
        self._leaving.close(GONE_SECONDS)
