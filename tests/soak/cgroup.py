"""A control group of our own that limits how many processes and threads the program may have.

The group is a folder below that of ``pids``, cgroup v1 or v2, where this process may make one. Source: Linux
Documentation/admin-guide: cgroup-v1/pids.rst, cgroup-v2.rst (pids.max, pids.current, cgroup.procs).
"""

from __future__ import annotations

import os
from pathlib import Path

ROOTS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
NO_LIMIT = "max"


class ProcessLimit:
    """The group ``folder``; its processes inherit it, and it is removed once they have ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def make(cls) -> ProcessLimit | None:
        """A new group; None where this machine, or this user, has none to give."""
        for root in ROOTS:
            folder = root / f"forkserver-soak-{os.getpid()}"
            try:
                folder.mkdir()
            except OSError:
                continue
            if (folder / "pids.max").exists():
                return cls(folder)
            folder.rmdir()
        return None

    def enter(self) -> None:
        """Put the calling process into the group: for the time between fork and exec."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def forbid_more(self) -> None:
        """From now on no process of the group can fork or start a thread."""
        self._set((self._folder / "pids.current").read_text().strip())

    def lift(self) -> None:
        self._set(NO_LIMIT)

    def remove(self) -> None:
        self._folder.rmdir()

    def _set(self, most: str) -> None:
        (self._folder / "pids.max").write_text(most)
