"""What the spool directory is: a tmpfs keeps its files in memory, where max_spool is too much sooner than on a disk.

Source: proc_pid_mountinfo(5), tmpfs(5).
"""

from __future__ import annotations

import math
import os
from typing import Final

from forkserver.config.settings import Settings
from forkserver.config.values.numbers import readable_size
from forkserver.master.monitoring import memory_headroom

MOUNTS: Final = "/proc/self/mountinfo"
_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))
_PART: Final = 4  # of memory: what is spooled there should stay below


def warning(settings: Settings, mounts: str = MOUNTS, memory: float | None = None) -> str | None:
    """What is wrong with ``spool_dir``, with the way out; None where nothing is.

    ``memory`` is how many bytes this machine, or this control group, has.
    """
    kind = file_system(settings.spool_dir, mounts)
    most = memory_headroom.total() if memory is None else memory
    if kind not in _IN_MEMORY or not math.isfinite(most) or settings.max_spool <= most / _PART:
        return None
    return (
        f"spool_dir {settings.spool_dir} is a {kind}: what is spooled takes memory, and max_spool "
        f"({readable_size(settings.max_spool)}) is more than a quarter of it ({readable_size(int(most))}); "
        "name a directory on a disk with --spool-dir, or lower max_spool"
    )


def file_system(folder: str, mounts: str = MOUNTS) -> str | None:
    """The type of the file system of ``folder``, such as ext4; None where nothing says."""
    try:
        device = os.stat(folder).st_dev
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split()[2:3] == [wanted] and after:
            return after.split()[0]
    return None
