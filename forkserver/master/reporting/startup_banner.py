"""The banner in the log at the start: what is served where, by which processes, and how to reload and stop it.

Every figure is looked up when the lines are made; the caller writes them. ``warnings`` are likely mistakes in the
settings, each with the way out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from forkserver.config.accelerator import accelerator
from forkserver.config.settings import Settings
from forkserver.config.version import VERSION
from forkserver.linux import process_info
from forkserver.linux.common.counted import count_of
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets import socket_access
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.master.resources import spool_folder

MIB = 1024 * 1024
_LOOKED_AT: Final = 4  # of processes that are alike
AS_ROOT: Final = "the application runs as root; give it a user of its own with --user"


def lines(
    settings: Settings,
    listeners: Sequence[ListeningSocket],
    workers: Sequence[int],
    templates: Iterable[int],
    shared: bool,
) -> list[str]:
    """The banner. ``workers`` and ``templates`` are pids, ``shared`` says whether workers share one import."""
    where = ", ".join(_where(listener, settings.encrypted) for listener in listeners)
    threads = f" of {settings.threads} threads" if settings.threads > 1 else ""
    how = "one import, shared" if shared else "each imports for itself"
    master = os.getpid()
    if settings.dev == "on":
        return _for_development(settings, listeners)
    access = (socket_access.told(listener.path, listener.own) for listener in listeners if listener.path)
    return [
        f"forkserver {VERSION} ({accelerator()}), CPython {sys.version.split()[0]}, pid {master}",
        f"serving {settings.app} at {where}",
        *filter(None, access),
        f"{count_of(len(workers), 'worker')}{threads} ({how}); {_used([master, *templates], workers)}",
        f"reload: kill -HUP {master}; stop: kill -TERM {master}",
    ]


def _for_development(settings: Settings, listeners: Sequence[ListeningSocket]) -> list[str]:
    watched = "it is loaded again when its files change; " if settings.reload_on_change == "on" else ""
    return [
        f"forkserver {VERSION}, CPython {sys.version.split()[0]}, development mode, pid {os.getpid()}",
        f"{settings.app}: {watched}Ctrl-C stops",
        *(f"open {link(listener, settings.encrypted)}" for listener in listeners),
    ]


def link(listener: ListeningSocket, encrypted: bool) -> str:
    """What a person clicks at, or types: every interface is reached as localhost."""
    if listener.unix:
        return listener.name
    scheme = "https" if encrypted else "http"
    return f"{scheme}://localhost:{listener.port}/" if listener.public else f"{shown(listener.name, encrypted)}/"


def _where(listener: ListeningSocket, encrypted: bool) -> str:
    return shown(listener.name, encrypted) + (" (IPv6 and IPv4)" if listener.dual else "")


def shown(name: str, encrypted: bool) -> str:
    """A listener's name as a browser takes it."""
    return name.replace("http://", "https://") if encrypted else name


PROCESS_FILES: Final = "/proc/self/stat"  # proc(5): there wherever /proc is mounted, with hidepid and subset=pid too


class MemoryUse(NamedTuple):
    """Bytes that ``processes`` processes use; where not ``exact``, a page that several share counts for each."""

    used: int
    processes: int
    exact: bool


def memory(pids: Iterable[int], alike: Sequence[int] = ()) -> MemoryUse:
    """The memory of the processes: their proportional shares (PSS, proc(5)), or where not all may be read, resident.

    Of those that are ``alike`` a few are looked at: the kernel walks through all pages of a process for the answer.
    """
    looked_at = alike[:_LOOKED_AT]
    sizes = [size for pid in pids if (size := _size(pid))]
    sample = [size for pid in looked_at if (size := _size(pid))]
    exact = all(share is not None for _, share in (*sizes, *sample))
    used = [sum((share or 0) if exact else resident for resident, share in each) for each in (sizes, sample)]
    times = len(alike) / len(looked_at) if looked_at else 1
    return MemoryUse(round(used[0] + used[1] * times), len(sizes) + round(len(sample) * times), exact)


def _size(pid: int) -> tuple[int, int | None] | None:
    """A process's resident set and proportional share in bytes; no share where that may not be read."""
    try:
        resident = process_info.resident(pid)
        try:
            return resident, process_info.proportional(pid)
        except PermissionError:
            return resident, None
    except OSError:  # it has just ended, or /proc does not show it
        return None


def _used(pids: Iterable[int], workers: Sequence[int]) -> str:
    found = memory(pids, workers)
    if not found.processes:
        return "memory unknown"
    counted = "" if found.exact else " at most (what they share is counted for each)"
    return f"{found.used / MIB:.0f} MiB{counted} in {count_of(found.processes, 'process', 'processes')}"


def as_root(settings: Settings) -> bool:
    """Whether the application has root's rights under ``settings``."""
    return os.geteuid() == 0 and settings.user in (None, "root", "0")


def warnings(settings: Settings, listeners: Sequence[ListeningSocket]) -> list[str]:
    """Likely mistakes, each with the way out."""
    found = []
    if as_root(settings):
        found.append(AS_ROOT)
    if settings.workers == 1 and settings.threads == 1 and settings.sources.get("workers") == "default":
        found.append("one worker with one thread serves one request at a time; give it more with --workers")
    if not os.path.exists(PROCESS_FILES):
        found.append(
            "/proc is not mounted, so the memory and the names of processes are unknown, max_worker_memory has no "
            "effect, and with preload=auto no import is shared; mount proc at /proc"
        )
    # Process 1 is a container's: what reaches it is up to the engine, and its loopback is reached by nothing.
    found += (
        f"{shown(listener.name, settings.encrypted)} is open to every network; "
        "bind 127.0.0.1 if only a proxy of this machine is to reach it"
        for listener in listeners
        if listener.public and listener.own and os.getpid() != 1
    )
    found += (
        f"{shown(listener.name, settings.encrypted)} serves IPv4 alone; the next stop and start adds IPv6, "
        "where this machine has it"
        for listener in listeners
        if listener.lacks_ipv6
    )
    found += (
        f"{listener.name} has no file, so no permissions: every user of this machine may connect to it; give a path, "
        "such as --bind unix:/run/myapp.sock, with --socket-mode and --socket-group where that matters"
        for listener in listeners
        if listener.abstract
    )
    if (spool := spool_folder.warning(settings)) is not None:
        found.append(spool)
    return found
