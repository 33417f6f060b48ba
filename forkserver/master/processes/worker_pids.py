"""Which pid is which worker's: a template names it, and the kernel has to confirm it.

A pid that a template has named is a claim. It becomes the worker's once ``Children`` holds it as a child of the
master's own, at the latest when the worker says Hello. A child may end before it is named: its wait status is kept
until no worker is unnamed any more, for the kernel may then give its number to the next process.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from typing import Final

from forkserver.linux.process_limits import why_refused
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import Process, State, Worker
from forkserver.master.processes.children import Children, NotHeldError, NotOursError

MOST_STRANGERS: Final = 1024  # an application can leave any number of processes behind


class WorkerPids:
    """Claims by worker, and the ends of children that no worker is known to be."""

    def __init__(self, fleet: Fleet, children: Children) -> None:
        self._fleet = fleet
        self._children = children
        self._claims: dict[Worker, int] = {}
        self._reaped: set[int] = set()  # children whose end was learnt in this turn
        self._strangers: dict[int, int] = {}  # children that ended before they were named, with their wait status

    def snapshot(self, places: Mapping[Process, int]) -> tuple[dict[int, int], dict[int, int]]:
        """What the next program is told: the strangers, and the claims by the places of their workers."""
        return self._strangers, {places[worker]: pid for worker, pid in self._claims.items() if worker in places}

    def restore(self, strangers: Mapping[int, int], claims: Mapping[int, int], processes: Sequence[Process]) -> None:
        """Go on with those of the program before."""
        named = ((processes[at], pid) for at, pid in claims.items())
        self._claims = {worker: pid for worker, pid in named if isinstance(worker, Worker)}
        self._strangers = dict(strangers)

    def reap(self) -> list[tuple[int, int]]:
        """The children that have ended, stopped or gone on, each with its wait status. ``end_turn`` follows."""
        changed = self._children.reap()
        self._reaped = {pid for pid, status in changed if is_end(status)}
        return changed

    def end_turn(self) -> None:
        """Forget what no worker to come can need."""
        self._reaped = set()
        if not any(worker.state is State.ORDERED for worker in self._fleet.index.booting):
            self._claims.clear()
            self._strangers.clear()

    def claim(self, worker: Worker, pid: int) -> None:
        """A template says that ``pid`` is ``worker``."""
        self._claims[worker] = pid

    def take(self, worker: Worker) -> int:
        """The pid that was claimed for ``worker``, which is its own from now on. Raises KeyError."""
        return self._claims.pop(worker)

    def forget(self, worker: Worker) -> None:
        """``worker`` was given up."""
        self._claims.pop(worker, None)

    def refusal(self, worker: Worker, roles: Container[int]) -> str:
        """Why the pid claimed for ``worker`` is not taken for its own; empty where it is, and is held.

        ``roles`` are the pids of other processes of ours. Raises NotHeldError.
        """
        pid, parent = self._claims.get(worker), self._fleet.parent(worker)
        if pid is None or parent is None:
            return "no template has named it"
        if pid in roles:
            return f"pid {pid} has another role"
        if pid in self._reaped or pid in self._strangers:
            return ""  # the kernel has just told its end to us, so it was our child
        try:
            self._children.adopt(worker, pid, parent)
        except NotOursError as error:
            return str(error)
        except OSError as error:
            raise NotHeldError(f"cannot hold a worker: {why_refused(error)}") from None
        return ""

    def add_stranger(self, pid: int, status: int) -> None:
        """A child has ended that is none of the known ones."""
        self._strangers[pid] = status
        if len(self._strangers) > MOST_STRANGERS:
            del self._strangers[next(iter(self._strangers))]

    def take_end(self, pid: int) -> int | None:
        """The wait status of ``pid``, where it ended before it was named."""
        return self._strangers.pop(pid, None)


def is_end(status: int) -> bool:
    """Whether a wait status says that the process has ended, not that it was stopped or goes on."""
    return not (os.WIFSTOPPED(status) or os.WIFCONTINUED(status))
