"""The cause of a worker's end: how it ended, what killed it, and which requests and connections it left.

The facts are those of the wait status, the master's own memory, the scoreboard, and the kernel's count of processes
killed for memory. There is no guess: a signal of unknown origin was sent by another process.

Source: wait(2); Linux Documentation/admin-guide: cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (oom_control).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Final

from forkserver.ipc import scoreboard
from forkserver.ipc.scoreboard import Row
from forkserver.linux import signals, syscalls
from forkserver.linux.cgroups import CGROUPS, MEMBERSHIP, groups
from forkserver.linux.common.counted import count_of
from forkserver.master.model.lifecycle import State

_CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)
_MORE_MEMORY: Final = "raise the memory limit (MemoryMax=, docker run --memory), or have fewer --workers"
# The interpreter ends with it where sys.stdout or sys.stderr cannot be flushed: a full disk, a pipe without a reader.
# Source: https://docs.python.org/3/library/sys.html#sys.exit
_UNFLUSHED: Final = 120
_ORDERED: Final = frozenset({0, _UNFLUSHED, -signals.LEAVE, -signals.LEAVE_NOW})


def cause(status: int, sentence: str, out_of_memory: bool, ordered: bool = False) -> str:
    """A wait status in words, with what killed it; ``sentence`` is why the master has killed it, or empty.

    ``ordered`` says that it was told to leave and did: before it has handlers, the signal that told it ends it.
    """
    how = syscalls.how_it_ended(status)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"{how}, by itself"
    if ordered:
        return f"{how}, as it was told"
    if code == -signal.SIGKILL and sentence:
        return f"{how}, sent by the master: {sentence}"
    if code == -signal.SIGKILL and out_of_memory:
        return f"{how}, sent by the kernel: out of memory; {_MORE_MEMORY}"
    return f"{how}, a crash" if -code in _CRASHES else f"{how}, sent by another process"


def as_ordered(status: int, state: State) -> bool:
    """Whether a worker that was told to leave, and was in ``state``, has just done so."""
    code = os.waitstatus_to_exitcode(status)
    if state is State.LEAVING:
        return code > 0 or code in _ORDERED  # what did not load ends with a status, and has told why
    return state is State.DRAINING and code in _ORDERED


def remains(row: Row, now: float) -> str:
    """What the process of ``row`` was serving and what it had open, in words; empty where there is nothing to tell."""
    calls = row.calls()
    serving = ", ".join(busy.told(f"{busy.seconds(now):.1f} s") for busy in calls)
    left = ", ".join(_left_open(row))
    return "; ".join((f"it was serving {serving}",) * bool(calls) + (f"held {left}",) * bool(left))


def _left_open(row: Row) -> Iterator[str]:
    if connections := row.figure(scoreboard.OPEN):
        yield count_of(connections, "connection")
    if unsent := row.figure(scoreboard.UNSENT):
        yield f"{count_of(unsent, 'answer')} unsent"
    if waiting := row.figure(scoreboard.WAITING):
        yield f"{count_of(waiting, 'request')} waiting"


class OutOfMemory:
    """The kernel's count of processes that it has killed for memory in our cgroup. Without a cgroup it is none.

    ``seen`` are those that deaths were put down to; without it, all there have been.
    """

    def __init__(self, root: str = CGROUPS, membership: str = MEMBERSHIP, seen: int | None = None) -> None:
        self._path = next((path for path in _counters(root, membership) if _kills(path) is not None), None)
        self.seen = self._read() if seen is None else seen

    def claim(self) -> bool:
        """Whether there was such a kill that no death has been put down to yet."""
        if self._read() <= self.seen:
            return False
        self.seen += 1
        return True

    def _read(self) -> int:
        return (_kills(self._path) if self._path else 0) or 0


def _counters(root: str, membership: str) -> Iterator[str]:
    """Files that may hold the counter: our own group's, or the root's where a container shows us only that."""
    for group in groups("memory", root, membership):
        yield os.path.join(group.folder, "memory.events" if group.version == 2 else "memory.oom_control")


def _kills(path: str) -> int | None:
    """The counter in the file at ``path``; None where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            words = (line.split() for line in file)
            return next((int(each[1]) for each in words if len(each) == 2 and each[0] == "oom_kill"), None)
    except OSError:
        return None
