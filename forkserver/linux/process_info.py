"""Children of the master that it did not start: a subreaper adopts what its descendants leave behind.

They are named and never ended: what an application starts and leaves is its own, and the manager (systemd with
KillMode) ends it with the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def living() -> list[int]:
    """Pids of our children that have not ended."""
    import psutil  # late, as in banner.py, which every start comes to

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
