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

from forkserver.linux.common.records import NamedTuple
from forkserver.linux.process_info import memory_mappings
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs import log_output
from forkserver.worker.fork_safety import exemptions
from forkserver.worker.fork_safety.finding import Finding
from forkserver.worker.fork_safety.import_watch import ImportWatch

_WITHOUT_STATE: Final = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"})
_STANDARD: Final = frozenset({0, 1, 2})
_ANONYMOUS: Final = "anon_inode:"
_INSTANCES: Final = {"eventpoll": "epoll instance", "inotify": "inotify instance"}  # proc(5)'s word -> the manual's
_SOCKET_TYPES: Final = {
    socket.SOCK_STREAM: "stream socket",
    socket.SOCK_DGRAM: "datagram socket",
    socket.SOCK_SEQPACKET: "packet socket",
    socket.SOCK_RAW: "raw socket",
}


class Descriptor(NamedTuple):
    """What a descriptor leads to.

    ``target`` is that as proc(5) has it, which changes where a file is renamed or deleted. ``identity`` is its device,
    inode and access mode, which stay; None for an anonymous inode, which all of one kind may share.
    """

    target: str
    identity: tuple[int, int, int] | None = None

    def same(self, other: Descriptor | None) -> bool:
        """Whether both lead to the same, as far as can be told."""
        if other is None:
            return False
        return self.target == other.target if self.identity is None else self.identity == other.identity


def descriptors() -> dict[int, Descriptor]:
    """The descriptors of this process."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            anonymous = target.startswith(_ANONYMOUS)
            found[int(name)] = Descriptor(target, None if anonymous else _identity(int(name)))
        except OSError:
            continue  # the descriptor of the listing itself, or closed meanwhile
    return found


def _identity(number: int) -> tuple[int, int, int]:
    file = os.fstat(number)
    return file.st_dev, file.st_ino, fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE


def new_descriptors(before: Mapping[int, Descriptor], watch: ImportWatch) -> Iterator[Finding]:
    """Those that were not there ``before``, and that processes cannot share.

    Those of our own logs do not count, which are written to in whole lines and may have been opened again; but for the
    standard streams, which the application may redirect.
    """
    ours = log_output.descriptors() - _STANDARD
    new = {
        number: found.target
        for number, found in descriptors().items()
        if number not in ours and not found.same(before.get(number))
    }
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
    if target.startswith(_ANONYMOUS):
        kind = target.removeprefix(_ANONYMOUS).strip("[]")
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
