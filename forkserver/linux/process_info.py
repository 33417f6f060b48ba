"""What the kernel shows of this process: its living children, and its memory mappings.

A master has children that it did not start, for a subreaper adopts what its descendants leave behind. They are named
and never ended: what an application starts and leaves is its own, and the manager (systemd with KillMode) ends it with
the service.

Source: proc(5), proc_pid_maps(5); PR_SET_CHILD_SUBREAPER in prctl(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psutil


class MemoryMapping(NamedTuple):
    """A range of addresses, the rights on it such as ``rw-s``, and the path that it leads to, empty where to none."""

    range: str
    rights: str
    path: str


def memory_mappings() -> list[MemoryMapping]:
    """The mappings of this process. Raises OSError."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = [[*line.rstrip("\n").split(None, 5), ""] for line in file]
    return [MemoryMapping(fields[0], fields[1], fields[5]) for fields in lines]


def living() -> list[int]:
    """Pids of our children that have not ended."""
    import psutil  # late: every start comes to this module

    try:
        us = psutil.Process()
        children, own = us.children(), us.cmdline()
    except (psutil.Error, OSError):
        return []  # no descriptor left, or no /proc, to look with; nothing depends on the answer
    return sorted(child.pid for child in children if _lives(child, own))


def _lives(child: psutil.Process, own: list[str]) -> bool:
    import psutil

    try:
        # One that calls itself as we do is ours, and about to end (kernel.close_in_child).
        return bool(child.status() != psutil.STATUS_ZOMBIE) and child.cmdline() != own
    except (psutil.Error, OSError):
        return False  # it has ended meanwhile
