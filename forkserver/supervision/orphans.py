"""Children of the master that it has not asked for: a subreaper adopts whom its descendants leave behind.

It promises to name the living. It refuses to end anybody: what an application starts and leaves is its own, and whoever
runs us (systemd with KillMode) ends it with everything else.
"""

from __future__ import annotations

import psutil


def living() -> list[int]:
    """Pids of our children that have not ended."""
    found = []
    for child in psutil.Process().children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue  # it has ended meanwhile
    return sorted(found)


def titled(title: str) -> list[int]:
    """Pids of our living children whose title, as ps shows it, begins with ``title``."""
    return [pid for pid in living() if _title(pid).startswith(title)]


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
