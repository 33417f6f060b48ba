"""How many processors this process may use.

It is the smaller of what the scheduler allows it (affinity) and what its control groups pay for (quota).

Source: sched_setaffinity(2); Documentation/admin-guide/cgroup-v2.rst, "cpu.max".
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

CGROUPS = "/sys/fs/cgroup"
MEMBERSHIP = "/proc/self/cgroup"


def usable(cgroups: str = CGROUPS, membership: str = MEMBERSHIP) -> int:
    """Processors this process may keep busy, at least 1; a quota of one and a half counts as 2."""
    return max(1, min(len(os.sched_getaffinity(0)), _whole(quota(cgroups, membership))))


def quota(cgroups: str = CGROUPS, membership: str = MEMBERSHIP) -> float:
    """Processors that the tightest of our control groups pays for; infinity where none sets a limit."""
    return min((_limit(folder) for folder in _folders(cgroups, membership)), default=math.inf)


def _whole(processors: float) -> int:
    return math.ceil(processors) if math.isfinite(processors) else 1 << 20


def _folders(cgroups: str, membership: str) -> Iterator[str]:
    """Each folder whose limit binds us: our group's and those above it, in version 2 and version 1."""
    for line in _read(membership).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = os.path.join(cgroups, "cpu") if controllers else cgroups
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            yield os.path.join(root, *parts[:depth])


def _limit(folder: str) -> float:
    """The processors ``folder`` allows: cpu.max of version 2, cpu.cfs_* of version 1."""
    words = _read(os.path.join(folder, "cpu.max")).split()
    if not words:
        words = [_read(os.path.join(folder, f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isdigit() for word in words) or words[1] == "0":
        return math.inf  # "max", or -1 in version 1: no limit here
    return int(words[0]) / int(words[1])


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""  # the root group has no such file, and neither has a machine without control groups
