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
from collections.abc import Iterator
from typing import Final

CGROUPS: Final = "/sys/fs/cgroup"
MEMBERSHIP: Final = "/proc/self/cgroup"
MEMINFO: Final = "/proc/meminfo"
_VERSION_2: Final = ("memory.max", "memory.current", "inactive_file")
_VERSION_1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
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
    limits = [_left_in(*group) for group in _groups(cgroups, membership)]
    return min([_of_machine(meminfo), *limits])


def total(cgroups: str = CGROUPS, membership: str = MEMBERSHIP, meminfo: str = MEMINFO) -> float:
    """Bytes of memory that all of this service may have; infinity where nothing says."""
    found = _figure(meminfo, "MemTotal:")
    limits = [_read(os.path.join(folder, names[0])).strip() for folder, names in _groups(cgroups, membership)]
    known = [float(limit) for limit in limits if limit.isdigit()]
    return min([math.inf if found is None else found * 1024.0, *known])


def _of_machine(meminfo: str) -> float:
    found = _figure(meminfo, "MemAvailable:")
    return math.inf if found is None else found * 1024.0


def _groups(cgroups: str, membership: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Each folder whose limit binds us, our group's and those above it, with the names of its files."""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (os.path.join(cgroups, "memory"), _VERSION_1) if controllers else (cgroups, _VERSION_2)
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            yield os.path.join(root, *parts[:depth]), names


def _left_in(folder: str, names: tuple[str, str, str]) -> float:
    limit, used = (_read(os.path.join(folder, name)).strip() for name in names[:2])
    if not limit.isdigit() or not used.isdigit():
        return math.inf  # "max", or no such file: no limit here
    cache = _figure(os.path.join(folder, "memory.stat"), names[2]) or 0
    return max(0.0, float(int(limit) - int(used) + cache))


def _figure(path: str, name: str) -> int | None:
    words = (line.split() for line in _read(path).splitlines())
    return next((int(each[1]) for each in words if len(each) > 1 and each[0] == name and each[1].isdigit()), None)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # the root group has no such file, and neither has a machine without control groups
