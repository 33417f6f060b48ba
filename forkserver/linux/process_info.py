"""What the kernel shows of processes: their memory, what listens at an address, our living children and our mappings,
and what keeps a killed one from ending.

A master has children that it did not start, for a subreaper adopts what its descendants leave behind. They are named
and never ended: what an application starts and leaves is its own, and the manager (systemd with KillMode) ends it with
the service.

The kernel's tables of sockets have the inode of each listener and the user who made it. Which processes have that inode
open is shown for those of the same user, and for all to root; a sandbox may hide them. The command line of another
user's process is not read: it is that process's memory, which may make the reader wait for ever.

Source: proc_pid_net(5), proc_pid_fd(5), proc_pid_stat(5), proc_pid_statm(5), proc_pid_smaps(5), proc_pid_cmdline(5),
proc_pid_maps(5), proc_pid_status(5), proc_pid_wchan(5);
PR_SET_CHILD_SUBREAPER in prctl(2).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from typing import Final

from forkserver.linux.common.escaping import printable
from forkserver.linux.common.records import NamedTuple

PROC: Final = "/proc"
STOPPED: Final = "stopped"
ENDING: Final = "killed"  # the kernel keeps it: mostly a thread waits for a disk
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ENDED: Final = frozenset((b"Z", b"X"))  # what stat says of a process that only waits to be reaped, or is reaped

_LISTEN: Final = "0A"
_ACCEPTING: Final = 1 << 16  # __SO_ACCEPTCON in the flags of /proc/net/unix
_TITLE: Final = 120  # characters of a command line
_MOST_ENTRIES: Final = 20_000  # of a table that are read


class MemoryMapping(NamedTuple):
    """A range of addresses, the rights on it such as ``rw-s``, and the path that it leads to, empty where to none."""

    range: str
    rights: str
    path: str


def memory_mappings() -> list[MemoryMapping]:
    """The mappings of this process. Raises OSError."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = [[*line.rstrip("\n").split(None, 5), ""] for line in file]
    return [MemoryMapping(fields[0], fields[1], fields[5]) for fields in lines]


def resident(pid: int, proc: str = PROC) -> int:
    """Bytes of the resident set, which ps and top show too: readable whatever the user; 0 once it has ended.

    Raises OSError where there is no such process, no /proc, or no descriptor to look with.
    """
    return int(_read(f"{proc}/{pid}/statm").split()[1]) * _PAGE


def proportional(pid: int, proc: str = PROC) -> int:
    """Bytes of the proportional share (PSS): a page that several processes map counts in parts. Raises OSError.

    PermissionError where the process is another user's.
    """
    lines = _read(f"{proc}/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))


def living(proc: str = PROC) -> list[int]:
    """Pids of our children that have not ended."""
    try:
        own = _read(f"{proc}/self/cmdline")
        pids = [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return []  # no descriptor left, or no /proc, to look with; nothing depends on the answer
    return sorted(pid for pid in pids if _is_living_child(pid, own, proc))


def _is_living_child(pid: int, own: bytes, proc: str) -> bool:
    try:
        # Behind the name, which may hold blanks and brackets.
        state, parent = _read(f"{proc}/{pid}/stat").rpartition(b")")[2].split()[:2]
        if int(parent) != os.getpid() or state in _ENDED:
            return False
        # One that calls itself as we do is ours, and about to end (syscalls.close_in_child).
        return _read(f"{proc}/{pid}/cmdline") != own
    except OSError:
        return False  # it has ended meanwhile


def why_unended(pid: int, proc: str = PROC) -> str:
    """What keeps ``pid`` from ending although SIGKILL was sent to it, and what ends that, in words.

    A tracer may hold it, and has to take notice of its end first; or a thread of it sleeps in the kernel where no
    signal wakes it. Source: proc_pid_status(5), proc_pid_wchan(5), ptrace(2).
    """
    threads = [f"{proc}/{pid}/task/{name}" for name in _names(f"{proc}/{pid}/task")]
    facts = [(thread, _status(thread)) for thread in threads]
    for _, status in facts:
        if (tracer := status.get("TracerPid", "0")) != "0":
            return f"process {tracer} ({_title(int(tracer), proc)}) traces it, as a debugger does; end that process"
    for thread, status in facts:
        if status["State"].startswith("D"):
            place = _text(f"{thread}/wchan").strip("\0\n")
            within = "" if place in ("", "0") else f" ({place})"
            return (
                f"it waits in the kernel{within} where no signal reaches it; mostly a disk or a network file system "
                "does not answer: bring that back, or detach it"
            )
    states = ", ".join(sorted({status["State"] for _, status in facts if status.get("State")}))
    return f"its state is {states}" if states else "its state cannot be read"


def standing(pid: int, proc: str = PROC) -> str:
    """STOPPED where a tracer or a signal has stopped ``pid``; ENDING where its main thread has ended and another one
    has not; else empty.

    Source: proc_pid_stat(5), proc_pid_task(5).
    """
    stat = _text(f"{proc}/{pid}/stat").rpartition(")")[2].split()
    state = stat[0] if stat else ""
    if state in ("t", "T"):
        return STOPPED
    return ENDING if state == "Z" and len(_names(f"{proc}/{pid}/task")) > 1 else ""


def listening_at_port(host: str, port: int, proc: str = PROC) -> str:
    """What listens at the TCP ``port`` of the address ``host``; empty where nothing shows it.

    In words such as ``pid 12 (python3 -m http.server)``.
    """
    found: dict[str, str] = {}
    wanted = _as_in_table(host)
    for table in ("tcp", "tcp6"):
        for fields in _rows(f"{proc}/net/{table}"):
            address, _, number = fields[1].rpartition(":")
            same = not wanted.strip("0") or not address.strip("0") or address.endswith(wanted)
            if fields[3] == _LISTEN and int(number, 16) == port and same:
                found[fields[9]] = fields[7]
    return _shown(found, proc)


def listening_at_path(path: str, proc: str = PROC) -> str:
    """What listens at the Unix socket ``path``, or ``@NAME`` of the abstract namespace, in the same words."""
    listeners = (fields for fields in _rows(f"{proc}/net/unix") if " ".join(fields[7:]) == path)
    return _shown({fields[6]: "" for fields in listeners if int(fields[3], 16) & _ACCEPTING}, proc)


def _as_in_table(host: str) -> str:
    """``host`` as the kernel's tables have it: words of 32 bits, in the processor's order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _shown(inodes: dict[str, str], proc: str) -> str:
    """The process that has one of ``inodes`` open, which come with their users."""
    if not inodes:
        return ""
    holders = set(_holders({f"socket:[{inode}]" for inode in inodes}, proc))
    first = [pid for pid in holders if _parent(pid, proc) not in holders]  # a server, not its workers
    if os.getpid() in first:
        return ""  # the caller knows more of its own
    if first:
        pid = min(first)
        title = _title(pid, proc)
        return f"pid {pid} ({title})" if title else f"pid {pid}"
    uids = sorted({uid for uid in inodes.values() if uid})
    return f"a process of user id {uids[0]}" if uids else ""


def _rows(table: str) -> Iterator[list[str]]:
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            next(file, "")
            for line, _ in zip(file, range(_MOST_ENTRIES), strict=False):
                if len(fields := line.split()) >= 8:
                    yield fields
    except OSError:  # no /proc, or none of the network's
        return


def _holders(links: set[str], proc: str) -> Iterator[int]:
    for name in _names(proc):
        folder = f"{proc}/{name}/fd"
        if name.isdigit() and any(_link(f"{folder}/{number}") in links for number in _names(folder)):
            yield int(name)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # another user's process, or one that has ended
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # closed meanwhile
        return ""


def _parent(pid: int, proc: str) -> int:
    stat = _text(f"{proc}/{pid}/stat").rpartition(")")[2].split()
    return int(stat[1]) if len(stat) > 1 else 0


def _title(pid: int, proc: str) -> str:
    users = next((line.split()[1:] for line in _text(f"{proc}/{pid}/status").splitlines() if line[:4] == "Uid:"), [])
    own = set(users) == {str(os.geteuid())}
    text = printable(_text(f"{proc}/{pid}/{'cmdline' if own else 'comm'}").replace("\0", " ").strip())
    return text if len(text) <= _TITLE else f"{text[:_TITLE]}…"


def _status(folder: str) -> dict[str, str]:
    lines = (line.partition(":") for line in _text(f"{folder}/status").splitlines())
    return {"State": "", **{name: value.strip() for name, _, value in lines}}


def _text(path: str) -> str:
    try:
        return _read(path)[:4096].decode("utf-8", "surrogateescape")
    except OSError:  # it has ended
        return ""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
