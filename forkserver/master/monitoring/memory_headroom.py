"""How much memory is left for further processes, and how much one of them needs.

The least of what the machine has left (MemAvailable) and of what each control group above this process may still take.
A group's file cache counts as free, as far as the kernel would drop it first (inactive_file). Nothing here is exact: an
application may grow after its import.

Source: proc(5), /proc/meminfo and /proc/PID/statm; Linux Documentation/admin-guide: cgroup-v2.rst (memory.max,
memory.current, memory.stat), cgroup-v1/memory.rst (memory.limit_in_bytes, memory.usage_in_bytes).
"""

from __future__ import annotations

import math
import os
from typing import Final

from forkserver.linux.cgroups import CGROUPS, MEMBERSHIP, ControlGroup, groups, read

MEMINFO: Final = "/proc/meminfo"
# By the version of the hierarchy: files with the limit and what is used, and the word for the cache in memory.stat.
_FILES: Final = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
_KEPT: Final = 0.1  # of what is left, for what requests need
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def more_workers(size: int, left: float) -> float:
    """How many further processes of ``size`` bytes fit into the ``left`` ones; infinity where either is unknown."""
    return left * (1 - _KEPT) // size if size and math.isfinite(left) else math.inf


def private(pid: int) -> int:
    """Bytes that ``pid`` alone has: its resident set without files and shared memory; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            words = file.read().split()
    except OSError:
        return 0
    return max(0, int(words[1]) - int(words[2])) * _PAGE


def available(cgroups: str = CGROUPS, membership: str = MEMBERSHIP, meminfo: str = MEMINFO) -> float:
    """Bytes that further processes may take; infinity where nothing says."""
    return min([_of_machine(meminfo, "MemAvailable:"), *map(_left_in, groups("memory", cgroups, membership))])


def total(cgroups: str = CGROUPS, membership: str = MEMBERSHIP, meminfo: str = MEMINFO) -> float:
    """Bytes of memory that all of this service may have; infinity where nothing says."""
    limits = [group.read(_FILES[group.version][0]) for group in groups("memory", cgroups, membership)]
    known = [float(limit) for limit in limits if limit.isdigit()]
    return min([_of_machine(meminfo, "MemTotal:"), *known])


def _of_machine(meminfo: str, name: str) -> float:
    found = _figure(read(meminfo), name)
    return math.inf if found is None else found * 1024.0


def _left_in(group: ControlGroup) -> float:
    most, current, cached = _FILES[group.version]
    limit, used = group.read(most), group.read(current)
    if not limit.isdigit() or not used.isdigit():
        return math.inf  # "max", or no such file: no limit here
    cache = _figure(group.read("memory.stat"), cached) or 0
    return max(0.0, float(int(limit) - int(used) + cache))


def _figure(text: str, name: str) -> int | None:
    words = map(str.split, text.splitlines())
    return next((int(each[1]) for each in words if len(each) > 1 and each[0] == name and each[1].isdigit()), None)
