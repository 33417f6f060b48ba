"""Processes as the tests see them: who they say they are, and the proof that they are gone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
from pathlib import Path
from typing import NamedTuple

import psutil

from harness import BOUND

TITLE = re.compile(r"forkserver: (master|template|worker|admin|file watcher)(?: (\d+))?(?: gen (\d+))? \[(.*)\]")
PR_SET_CHILD_SUBREAPER = 36


class Member(NamedTuple):
    pid: int
    role: str
    slot: int | None
    generation: int | None
    application: str


def title(pid: int) -> str:
    """What ``ps`` shows for ``pid``; empty for a zombie and for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors(pid: int) -> dict[int, str]:
    """What ``pid`` holds open at this moment, by its number: as proc_pid_fd(5) writes it, such as ``socket:[1234]``."""
    found = {}
    for number in map(int, os.listdir(f"/proc/{pid}/fd")):
        with contextlib.suppress(FileNotFoundError):  # closed since, as the listing's own
            found[number] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


def family(master: int) -> list[Member]:
    """The master's children that show a title, templates first, then workers by slot."""
    try:
        children = psutil.Process(master).children()
    except psutil.NoSuchProcess:
        return []
    members = []
    for child in children:
        if shown := TITLE.fullmatch(title(child.pid)):
            role, slot, generation, application = shown.groups()
            members.append(Member(child.pid, role, _number(slot), _number(generation), application))
    return sorted(members, key=lambda member: (member.role, member.slot or 0, member.generation or 0))


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def wait_gone(pid: int, seconds: float = BOUND) -> bool:
    """Wait until ``pid`` has ended (a zombie has); False where it lives on after ``seconds``."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def adopt_orphans() -> None:
    """Make this process the parent of orphans below it, so that none can leave the tests unseen."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> set[int]:
    """Pids of every process below this one, the ended ones among our own reaped first."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there is none: psutil would have to read of every process of the machine
        return set()
    found: set[int] = set()
    for child in psutil.Process().children(recursive=True):
        if not title(child.pid):  # its memory is gone: it is about to end
            wait_gone(child.pid)
        try:
            ended = child.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            continue
        if ended and reap(child.pid):
            continue
        found.add(child.pid)
    return found


def reap(pid: int) -> bool:
    """Take the exit status of an orphan that came to us; False where it is not ours, or has not ended."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


def await_end_of_new(known: set[int]) -> int:
    """Wait for the end of every process below this one that is not ``known``, and say how many there were.

    Not of any child: a service manager that serves a whole session of tests may be one.
    """
    new = children() - known
    for pid in new:
        assert wait_gone(pid), f"{pid} ({title(pid)}) does not end"
        reap(pid)
    return len(new)


def end(pids: set[int]) -> None:
    """Kill what is left, so that one failed test does not spoil the next."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_gone(pid)
        reap(pid)


def peak_kib(pid: int) -> int:
    """The most memory ``pid`` has had at once, in KiB (VmHWM of proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, status
    return int(found[1])
