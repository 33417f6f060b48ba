"""The descriptors of this process, and which of them two processes cannot share.

Read-only regular files count: processes that share one share its position, so their reads mix.

Source: proc(5), proc_pid_fdinfo(5), open(2).
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from forkserver.linux.process_info import memory_mappings
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.worker.fork_safety import exemptions
from forkserver.worker.fork_safety.finding import Finding
from forkserver.worker.fork_safety.import_watch import ImportWatch

_WITHOUT_STATE: Final = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"})
_INSTANCES: Final = {"eventpoll": "epoll instance", "inotify": "inotify instance"}  # proc(5)'s word -> the manual's
_SOCKET_TYPES: Final = {
    socket.SOCK_STREAM: "stream socket",
    socket.SOCK_DGRAM: "datagram socket",
    socket.SOCK_SEQPACKET: "packet socket",
    socket.SOCK_RAW: "raw socket",
}


def descriptors() -> dict[int, str]:
    """The descriptors of this process, and what each leads to, as proc(5) has it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def new_descriptors(before: Mapping[int, str], watch: ImportWatch) -> Iterator[Finding]:
    """Those that were not there ``before``, and that processes cannot share."""
    new = {number: target for number, target in descriptors().items() if before.get(number) != target}
    if not new:
        return
    new.pop(exemptions.resource_tracker()[1], None)
    for number in exemptions.logging_descriptors():
        new.pop(number, None)
    places = {os.path.realpath(path): place for path, place in watch.opened.items()} if new else {}
    for number, target in sorted(new.items()):
        if finding := _descriptor(number, target, places, watch):
            yield finding


def _descriptor(number: int, target: str, places: dict[str, str], watch: ImportWatch) -> Finding | None:
    """A descriptor in words; None where it has no state, or was closed meanwhile."""
    if target in _WITHOUT_STATE:
        return None
    if target.startswith("socket:"):
        return _socket(number, watch)
    if target.startswith("pipe:"):
        return Finding(f"pipe, descriptor {number}")
    if target.startswith("anon_inode:"):
        kind = target.removeprefix("anon_inode:").strip("[]")
        return Finding(f"{_INSTANCES.get(kind, kind)}, descriptor {number}")
    if target.startswith("/memfd:"):
        return Finding(f"memfd {target.removeprefix('/memfd:').removesuffix(' (deleted)')}")
    return _file(number, target, places.get(target, ""))


def _file(number: int, path: str, place: str) -> Finding | None:
    try:
        mode = os.fstat(number).st_mode
        writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return None
    if stat.S_ISCHR(mode):
        terminal = path.startswith(("/dev/pts/", "/dev/ptmx"))
        return Finding(f"{'terminal' if terminal else 'device'} {path}", place)
    if stat.S_ISFIFO(mode):
        return Finding(f"named pipe {path}", place)
    if _is_locked(number):
        return Finding(f"locked file {path}", place)
    if stat.S_ISDIR(mode) or (not writable and any(path == each.path for each in memory_mappings())):
        return None  # a mapped file is read without a position
    return Finding(f"file {path}, open for {'writing' if writable else 'reading'}", place)


def _is_locked(number: int) -> bool:
    """Whether a lock is held through descriptor ``number``, see proc_pid_fdinfo(5)."""
    try:
        with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as file:
            return any(line.startswith("lock:") for line in file)
    except OSError:
        return False  # nothing is known of locks, and a file that is written to counts in any case


def _socket(number: int, watch: ImportWatch) -> Finding | None:
    place = next((place for made, place in watch.sockets.alive() if made.fileno() == number), "")
    try:
        with PlainSocket(fileno=os.dup(number)) as duplicate:
            kind = _SOCKET_TYPES.get(duplicate.type, "socket")
            return Finding(_addressed(duplicate, kind), place)
    except OSError:
        return None  # closed meanwhile


def _addressed(made: socket.socket, kind: str) -> str:
    """A socket by its peer, or else by its own address."""
    for how, address_of in (("connected to", made.getpeername), ("at", made.getsockname)):
        try:
            address = address_of()
        except OSError:
            continue
        if isinstance(address, tuple) and len(address) >= 2 and address[1]:
            return f"{kind} {how} {address[0]}:{address[1]}"
        if isinstance(address, (str, bytes)) and address:
            return f"{kind} {how} {os.fsdecode(address)}"
    return kind
