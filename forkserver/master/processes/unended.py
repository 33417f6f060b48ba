"""Processes that were told to leave and do not: killed when they are late, and given up where SIGKILL ends none.

A killed process may stay: a debugger holds it, or a thread of it waits in the kernel for a disk that does not answer.
The master waits ``UNENDED_SECONDS`` for it. Then it tells what holds it, and goes on as if it had ended. The fleet
notes its pid until it has, so that the number is taken for no other process's. The plan does the same for templates and
workers (GiveUp in plan.py).
"""

from __future__ import annotations

from typing import Final, Protocol

from forkserver.linux import process_info
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.transitions import UNENDED_SECONDS, Transitions
from forkserver.master.processes.children import Children
from forkserver.master.resources.resources import Resources

GONE_SECONDS: Final = 1.0  # at the end of the master, within which a killed process ends


class Unended:
    """Tells of processes that a kill has not ended, and has ``transitions`` note them."""

    def __init__(self, resources: Resources, transitions: Transitions) -> None:
        self._resources = resources
        self._transitions = transitions

    def give_up(self, pid: int, name: str) -> None:
        """SIGKILL has not ended ``pid``, which is ``name`` in words: from now on it does not count."""
        self._resources.log.error(
            f"{name} has not ended {UNENDED_SECONDS:g} s after SIGKILL: {process_info.why_unended(pid)}; from now on "
            "it does not count"
        )
        self._transitions.given_up(pid, name)

    def left_behind(self, pid: int, name: str) -> None:
        """The same at the end of the master, which tells of all at once."""
        self._transitions.given_up(pid, name)


class Leaver(Protocol):
    """A child of the master's that is no template and no worker."""

    @property
    def pid(self) -> int: ...
    def __hash__(self) -> int: ...


class LeavingChildren:
    """Children that were told to leave, each of which is ``what`` in words, such as ``the admin process``."""

    def __init__(self, what: str, children: Children, unended: Unended) -> None:
        self._what = what
        self._children = children
        self._unended = unended
        self._due: dict[Leaver, float] = {}  # when it is killed, or given up
        self._killed: set[Leaver] = set()

    @property
    def pids(self) -> set[int]:
        """Those of the children that have not ended, nor been given up."""
        return {child.pid for child in self._due}

    @property
    def next_look(self) -> float:
        """When ``turn`` is due although nothing has happened."""
        return min(self._due.values(), default=NEVER)

    def add(self, child: Leaver, leave_by: float) -> None:
        """``child`` was told to leave, and is killed at ``leave_by``."""
        self._due[child] = leave_by

    def turn(self, now: float) -> list[int]:
        """Kill those that are late, and give up those that a kill has not ended; returns the pids of the latter."""
        given_up = []
        for child in [child for child, due in self._due.items() if due <= now]:
            if child in self._killed:
                self._unended.give_up(child.pid, self._name(child))
                given_up.append(child.pid)
                self._drop(child)
            elif self._children.kill(child):
                self._killed.add(child)
                self._due[child] = now + UNENDED_SECONDS
            else:  # it has ended, which is about to be told; or it gets no signals, which was told
                self._due[child] = NEVER
        return given_up

    def ended(self, pid: int) -> bool:
        """A child has ended: whether it was one of these."""
        child = next((each for each in self._due if each.pid == pid), None)
        if child is not None:
            self._drop(child)
        return child is not None

    def close(self, seconds: float = GONE_SECONDS) -> None:
        """End all, for each of which the master waits ``seconds`` at most."""
        for child in self._due:
            self._children.kill(child)
        for child in list(self._due):
            if not self._children.wait(child, seconds):
                self._unended.left_behind(child.pid, self._name(child))
            self._drop(child)

    def _name(self, child: Leaver) -> str:
        return f"{self._what} (pid {child.pid})"

    def _drop(self, child: Leaver) -> None:
        self._children.release(child)
        self._due.pop(child)
        self._killed.discard(child)
