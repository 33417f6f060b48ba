"""What the operator reads at the start: what is served where, by whom, and how to reload and stop it.

It promises facts: every figure is looked up when it is printed. It refuses to print; lines go back to the caller.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from forkserver.settings import Settings
from forkserver.supervision.listeners import Listener

MIB = 1024 * 1024


def lines(settings: Settings, listeners: Sequence[Listener], pids: Iterable[int], shared: bool) -> list[str]:
    """The banner. ``pids`` are the workers, ``shared`` says whether they share one import."""
    workers = list(pids)
    where = ", ".join(shown(listener.name, settings.encrypted) for listener in listeners)
    threads = f" of {settings.threads} threads" if settings.threads > 1 else ""
    how = "one import, shared" if shared else "each imports for itself"
    count = "1 worker" if len(workers) == 1 else f"{len(workers)} workers"
    return [
        f"serving {settings.app} at {where}",
        f"{count}{threads}, {memory(workers) / MIB:.0f} MiB in all ({how})",
        f"reload: kill -HUP {os.getpid()}; stop: kill -TERM {os.getpid()}",
    ]


def shown(name: str, encrypted: bool) -> str:
    """A listener's name as a browser takes it."""
    return name.replace("http://", "https://") if encrypted else name


def memory(pids: Iterable[int]) -> int:
    """Bytes of memory that the processes use; a page that several share counts once, where the kernel lets us look."""
    import psutil  # late: no start waits for its 10 ms, and the banner comes when the workers serve

    total = 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            try:
                total += process.memory_full_info().pss
            except psutil.AccessDenied:
                total += process.memory_info().rss
        except psutil.Error:
            continue  # it has just ended
    return total


def warnings(settings: Settings, listeners: Sequence[Listener]) -> list[str]:
    """Likely mistakes, each with the way out."""
    found = []
    if os.geteuid() == 0 and settings.user in (None, "root", "0"):
        found.append("the application runs as root; give it a user of its own with --user")
    if settings.workers == 1 and settings.threads == 1 and settings.sources.get("workers") == "default":
        found.append("one worker with one thread serves one request at a time; give it more with --workers")
    found += (
        f"{shown(listener.name, settings.encrypted)} is open to every network; "
        "bind 127.0.0.1 if only a proxy of this machine is to reach it"
        for listener in listeners
        if listener.public and listener.own
    )
    return found
