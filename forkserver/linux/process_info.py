"""What the kernel shows of processes: the memory of any of them, and of this one its living children and its mappings.

A master has children that it did not start, for a subreaper adopts what its descendants leave behind. They are named
and never ended: what an application starts and leaves is its own, and the manager (systemd with KillMode) ends it with
the service.

Source: proc_pid_stat(5), proc_pid_statm(5), proc_pid_smaps(5), proc_pid_cmdline(5), proc_pid_maps(5);
PR_SET_CHILD_SUBREAPER in prctl(2).
"""

from __future__ import annotations

import os
from typing import Final

from forkserver.linux.common.records import NamedTuple

PROC: Final = "/proc"
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ENDED: Final = frozenset((b"Z", b"X"))  # what stat says of a process that only waits to be reaped, or is reaped


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


def resident(pid: int, proc: str = PROC) -> int:
    """Bytes of the resident set, which ps and top show too: readable whatever the user; 0 once it has ended.

    Raises OSError where there is no such process, no /proc, or no descriptor to look with.
    """
    return int(_read(f"{proc}/{pid}/statm").split()[1]) * _PAGE


def proportional(pid: int, proc: str = PROC) -> int:
    """Bytes of the proportional share (PSS): a page that several processes map counts in parts. Raises OSError.

    PermissionError where the process is another user's.
    """
    lines = _read(f"{proc}/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))


def living(proc: str = PROC) -> list[int]:
    """Pids of our children that have not ended."""
    try:
        own = _read(f"{proc}/self/cmdline")
        pids = [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return []  # no descriptor left, or no /proc, to look with; nothing depends on the answer
    return sorted(pid for pid in pids if _is_living_child(pid, own, proc))


def _is_living_child(pid: int, own: bytes, proc: str) -> bool:
    try:
        # Behind the name, which may hold blanks and brackets.
        state, parent = _read(f"{proc}/{pid}/stat").rpartition(b")")[2].split()[:2]
        if int(parent) != os.getpid() or state in _ENDED:
            return False
        # One that calls itself as we do is ours, and about to end (syscalls.close_in_child).
        return _read(f"{proc}/{pid}/cmdline") != own
    except OSError:
        return False  # it has ended meanwhile


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
