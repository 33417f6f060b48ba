"""What an import left behind that does not survive a fork: threads, and connections that two processes would share.

It promises to name what it finds, as the operator knows it. It refuses to judge what follows.

Source: proc(5), /proc/self/task; fork(2): only the calling thread exists in the child.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping

_STREAMS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)


def descriptors() -> dict[int, str]:
    """The descriptors of this process, and what each leads to, as proc(5) has it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def sockets() -> frozenset[int]:
    """Descriptors of this process that are sockets."""
    return frozenset(number for number, target in descriptors().items() if target.startswith("socket:"))


def kept(before: Mapping[int, str]) -> str:
    """Threads, and whatever was opened since ``before``, in words; empty where there is nothing.

    More than an import is asked for: a file that a request opens, a database for example, is one that it writes to.
    """
    found = [f"thread {name}" for name in _threads()]
    found += (target for number, target in descriptors().items() if before.get(number) != target)
    return ", ".join(found)


def left_behind(before: frozenset[int]) -> str:
    """Threads, and connections that were not among the sockets ``before``, in words; empty where there are none."""
    found = [f"thread {name}" for name in _threads()]
    found += (f"connection to {peer}" for peer in map(_peer, sorted(sockets() - before)) if peer)
    return ", ".join(found)


def _threads() -> list[str]:
    """Names of the threads beside ours, those that C code has started too."""
    ours = threading.get_native_id()
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = []
    for task in sorted(map(int, os.listdir("/proc/self/task"))):
        if task == ours:
            continue
        try:
            with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
                found.append(python.get(task) or file.read().strip())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found


def _peer(number: int) -> str:
    """Whom descriptor ``number`` is connected to; empty for what is no connection.

    Datagrams (syslog, statsd) mix with those of siblings without harm, streams do not.
    """
    try:
        with socket.socket(fileno=os.dup(number)) as duplicate:
            if duplicate.type not in _STREAMS:
                return ""
            address = duplicate.getpeername()
    except OSError:
        return ""  # not connected, or closed meanwhile
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return os.fsdecode(address) or "an unnamed Unix socket"
