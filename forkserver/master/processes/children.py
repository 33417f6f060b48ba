"""The master's own children, each held by a pidfd, which is the only way in which it sends one a signal.

A pid that another process names is a number and nothing more. It becomes that of a worker only where the kernel says
that it is a child of the master's own that was not reaped (waitid(2) on a pidfd: no other process can have the number
until it is), that has no other role here, and that runs by the rights of its template. The last keeps a program that
the application has started by other rights (setuid) and left behind from being taken for a worker. Where the template
is root's it has every right, and a worker may have given its own up already, in the hook post_fork.

Source: pidfd_open(2), waitid(2), proc(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Hashable
from typing import Final

from forkserver.linux import syscalls
from forkserver.master.model.lifecycle import Template, Worker

MOST_NEWS: Final = 64  # of children at once
_USER: Final = b"Uid:"
_RIGHTS: Final = (_USER, b"Gid:")
_PARENT: Final = b"PPid:"
_STATUS_BYTES: Final = 4096
_NO_PROCESS: Final = (errno.ESRCH, errno.EINVAL)
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)


class NotOursError(Exception):
    """A pid that is not taken for a worker's, with the reason."""


class NotHeldError(Exception):
    """No descriptor is left to hold a process by; its text says which limit that is."""


class Children:
    """Pidfds by process."""

    def __init__(self) -> None:
        self._pidfds: dict[Hashable, int] = {}  # by template, worker, or another child of the master's
        self._credentials: dict[Template, list[bytes]] = {}
        self.behind = False  # there may be more news than ``reap`` has given

    def hold(self, process: Hashable, pid: int) -> None:
        """Hold ``pid``, which the master has forked itself or has verified before. Raises OSError and NotOursError."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno in _NO_PROCESS:
                raise NotOursError(f"pid {pid} is no process") from None
            raise
        if not syscalls.is_child(pidfd):
            os.close(pidfd)
            raise NotOursError(f"pid {pid} is no child of the master's")
        self.release(process)
        self._pidfds[process] = pidfd

    def reap(self) -> list[tuple[int, int]]:
        """Children that have ended, stopped or gone on, each with its wait status.

        Not all at once (``behind``): news of what an application has left behind can come faster than they are read.
        Those that are held are never behind them.
        """
        changed: list[tuple[int, int]] = []
        while len(changed) < MOST_NEWS and (found := syscalls.reap()):
            changed.append(found)
        self.behind = len(changed) == MOST_NEWS
        if self.behind:
            changed += [found for pidfd in self._pidfds.values() if (found := syscalls.news_of(pidfd))]
        return changed

    def note_rights(self, template: Template) -> None:
        """Note by which rights ``template`` runs, now that it has taken those of the application."""
        with contextlib.suppress(OSError):  # no descriptor is left; ``adopt`` looks again
            self._credentials[template] = _credentials(template.pid)

    def adopt(self, worker: Worker, pid: int, template: Template) -> None:
        """Hold ``pid`` as that of ``worker``, which ``template`` was to fork. Raises NotOursError and OSError."""
        if pid <= 0 or pid == os.getpid():
            raise NotOursError(f"pid {pid} cannot be a worker's")
        self.hold(worker, pid)
        try:
            found = _credentials(pid)
            wanted = self._credentials.get(template) or _credentials(template.pid)
            fits = (found == wanted or _is_root(wanted)) and not _has_another_parent(pid)
        except OSError:
            self.release(worker)
            raise
        if not fits:
            self.release(worker)
            raise NotOursError(f"pid {pid} has not the rights and the parent of a worker")

    def signal(self, process: Hashable, signum: int) -> bool:
        """Send ``signum``, and say whether the process was there to get it."""
        pidfd = self._pidfds.get(process)
        return pidfd is not None and syscalls.kill_exactly(pidfd, signum)

    def signal_group(self, process: Template | Worker, signum: int) -> bool:
        """Send ``signum`` to the process group that ``process`` leads, and say whether there was one.

        A process that is held was not reaped, so its number is no other group's.
        """
        return process in self._pidfds and syscalls.kill_group(process.pid, signum)

    def kill(self, process: Hashable) -> bool:
        """Send SIGKILL, and say whether the process was there to get it."""
        return self.signal(process, signal.SIGKILL)

    def wait(self, process: Hashable, seconds: float) -> bool:
        """Wait for the end of ``process`` for ``seconds`` at most, and reap it; False where it is there after that."""
        pidfd = self._pidfds.get(process)
        if pidfd is None:
            return True
        if not syscalls.has_event(pidfd, select.POLLIN, seconds):
            return False
        syscalls.reap_exactly(pidfd)
        return True

    def release(self, process: Hashable) -> None:
        """Let go of a process that was reaped, or that was given up. Releasing twice is once."""
        pidfd = self._pidfds.pop(process, None)
        if pidfd is not None:
            os.close(pidfd)
        if isinstance(process, Template):
            self._credentials.pop(process, None)

    def close(self) -> None:
        """Let go of all; in a process just forked this leaves the master's own alone."""
        for process in list(self._pidfds):
            self.release(process)


def _credentials(pid: int) -> list[bytes]:
    """User and group ids of ``pid`` as proc(5) has them; nothing where there is no /proc, or no such process."""
    return [line for line in _status(pid) if line.startswith(_RIGHTS)]


def _is_root(credentials: list[bytes]) -> bool:
    """Whether all the user ids are root's."""
    return any(line.startswith(_USER) and set(line.removeprefix(_USER).split()) == {b"0"} for line in credentials)


def _has_another_parent(pid: int) -> bool:
    parents = [int(line.removeprefix(_PARENT)) for line in _status(pid) if line.startswith(_PARENT)]
    return parents not in ([], [os.getpid()])


def _status(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return file.read(_STATUS_BYTES).splitlines()
    except OSError as error:
        if error.errno in _NO_DESCRIPTOR:  # this says nothing of the process
            raise
        return []
