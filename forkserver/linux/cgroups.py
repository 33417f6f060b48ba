"""The control groups of this process, and how many processors they leave it.

A limit of a group binds the groups below it as well, so a figure is looked up in our own group and in each above it.

Source: cgroups(7); sched_setaffinity(2); Documentation/admin-guide/cgroup-v2.rst, "cpu.max".
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Final

from forkserver.linux.common.records import NamedTuple

CGROUPS: Final = "/sys/fs/cgroup"
MEMBERSHIP: Final = "/proc/self/cgroup"
_LONGEST: Final = 1 << 16  # characters of a file


class ControlGroup(NamedTuple):
    """A group: its folder, its name from the root on, and the version of its hierarchy, 1 or 2."""

    folder: str
    name: str
    version: int

    def read(self, file: str) -> str:
        """What ``file`` of the group holds, without the blanks around it; empty where there is no such file."""
        return read(os.path.join(self.folder, file)).strip()


def groups(controller: str, cgroups: str = CGROUPS, membership: str = MEMBERSHIP) -> Iterator[ControlGroup]:
    """The group of this process in each hierarchy that may have ``controller``, and those above, innermost first."""
    for line in read(membership).splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root, version = (os.path.join(cgroups, controller), 1) if controllers else (cgroups, 2)
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield ControlGroup(os.path.join(root, *parts[:depth]), "/" + "/".join(parts[:depth]), version)


def read(path: str) -> str:
    """The beginning of the file at ``path``; empty where it cannot be read: a sandbox may hide any of these files."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_LONGEST)
    except OSError:
        return ""


def usable(cgroups: str = CGROUPS, membership: str = MEMBERSHIP) -> int:
    """Processors this process may keep busy, at least 1; a quota of one and a half counts as 2."""
    paid = quota(cgroups, membership)
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, math.ceil(paid))) if math.isfinite(paid) else allowed


def quota(cgroups: str = CGROUPS, membership: str = MEMBERSHIP) -> float:
    """Processors that the tightest of our control groups pays for; infinity where none sets a limit."""
    return min(map(_limit, groups("cpu", cgroups, membership)), default=math.inf)


def _limit(group: ControlGroup) -> float:
    """The processors that ``group`` allows."""
    files = ("cpu.max",) if group.version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = " ".join(map(group.read, files)).split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or words[1] == "0":
        return math.inf  # "max", or -1 in version 1: no limit here
    return int(words[0]) / int(words[1])
