"""A listening socket, bound here, inherited by number, or given by systemd.

The master holds one object for each; workers have the descriptor. What another process has too (systemd, the program
before or after an upgrade) is never unlinked and never drained here: ``own`` and ``kept`` tell.

Source: socket(7), tcp(7), unix(7), shutdown(2).
"""

from __future__ import annotations

import itertools
import os
import select
import socket
from contextlib import suppress
from typing import Final

from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import syn_filter
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.socket_file import ABSTRACT, identity, remove

SYN_SECONDS: Final = 0.05  # a handshake begun before arrivals are refused is through by then, and in the queue

_numbers: Final = itertools.count(1)


class ListenerSnapshot(NamedTuple):
    """A listener as the next program is told of it; ``made`` is the device and inode of a file that is ours."""

    descriptor: int
    own: bool
    kept: bool
    number: int
    made: tuple[int, int] | None
    found: tuple[int, int] | None = None  # the same of a file that another has made; an older program did not tell it


class ListeningSocket:
    """A listening socket, ``own`` where we made it; ``name`` is its address as a person would type it.

    ``kept`` says that systemd's store has it, too: it outlives us, and its queue is left to the next server.
    ``number`` stands for it between master and workers, and is never given to another. ``owner`` is the owner of a Unix
    socket's file, ``service`` the uid that workers run as, where that is another.
    """

    def __init__(
        self, listening: socket.socket, own: bool, owner: Credentials | None = None, service: int | None = None
    ) -> None:
        self.socket = listening
        self.own = own
        self._owner = owner or Credentials()
        self._service = self._owner.uid if service is None else service
        self.kept = False
        self.number = next(_numbers)
        self.unix = listening.family == socket.AF_UNIX
        if self.unix:
            syscalls.refuse_descriptors(listening)
        self.name = _name(listening)
        self.public = not self.unix and listening.getsockname()[0] in ("0.0.0.0", "::")
        self.lacks_ipv6 = False  # it was to be every interface, and this machine has no IPv6
        file = identity(self.path) if self.path and os.path.isabs(self.path) else None
        self._made = file if own else None
        self._found = None if own else file

    @property
    def port(self) -> int:
        """Of a TCP socket."""
        return int(self.socket.getsockname()[1])

    @property
    def abstract(self) -> bool:
        """Whether it is a Unix socket of the abstract namespace: a name without a file, open to every process."""
        address = self.socket.getsockname()
        return isinstance(address, bytes) and address.startswith(b"\0")

    @property
    def dual(self) -> bool:
        """Whether it takes clients of every interface by IPv6 and by IPv4. Source: ipv6(7), IPV6_V6ONLY."""
        return (
            self.socket.family == socket.AF_INET6
            and self.socket.getsockname()[0] == "::"
            and not self.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        )

    @property
    def gone(self) -> bool:
        """Whether its file has been removed or replaced, so that no client can connect any more.

        The inode is not another's before the socket is closed, which holds it: so device and inode tell. Of a socket
        that another has made, the file that was there at first counts; a container may not see it at all.
        """
        file = self._made or self._found
        return file is not None and self.path is not None and identity(self.path) != file

    @property
    def to_bind_again(self) -> bool:
        """Whether no client can connect any more, and its file is for us to make: not that of an inherited socket."""
        return self.own and self.gone

    @property
    def ended(self) -> bool:
        """Whether a process that has it, too, has shut it down for all of them. Source: shutdown(2)."""
        if not self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return True
        return syscalls.has_event(self.fileno(), select.POLLRDHUP)  # a Unix socket that is shut is still a listener

    @property
    def path(self) -> str | None:
        """The file name of a Unix socket that has one."""
        address = self.socket.getsockname()
        return address if isinstance(address, str) and address else None

    @property
    def ends(self) -> bool:
        """Whether it ends with this service: no other process has it, so its queue must be emptied."""
        return self.own and not self.kept

    @property
    def told(self) -> int:
        """The number as workers are told it: below zero where the queue is left to the next server."""
        return self.number if self.ends else -self.number

    def fileno(self) -> int:
        return self.socket.fileno()

    def snapshot(self) -> ListenerSnapshot:
        """What the next program is told."""
        return ListenerSnapshot(self.fileno(), self.own, self.kept, self.number, self._made, self._found)

    @classmethod
    def from_snapshot(
        cls, snapshot: ListenerSnapshot, owner: Credentials | None = None, service: int | None = None
    ) -> ListeningSocket:
        """The listener that the program before has opened."""
        listening = PlainSocket(fileno=snapshot.descriptor)
        listening.setblocking(False)  # it is already; the object has to know
        listener = cls(listening, snapshot.own, owner, service)
        listener.kept, listener.number = snapshot.kept, snapshot.number
        listener._made, listener._found = snapshot.made, snapshot.found or listener._found
        return listener

    def refuse_arrivals(self) -> None:
        """Let no connection join the queue, so that draining it can end. A listener that others have, too, goes on.

        TCP clients retry an unanswered SYN after a second and meet the next server, or a closed port.
        """
        if not self.ends:
            return
        if self.unix:
            self.socket.shutdown(socket.SHUT_RD)
        else:
            syn_filter.block_new_connections(self.socket)

    def end_everywhere(self) -> None:
        """Stop listening in every process that holds this listener; what is queued is reset. For when all else is lost.

        The address is free for the next server at once. Source: shutdown(2) on a listening socket.
        """
        with suppress(OSError):  # another has done it before us
            self.socket.shutdown(socket.SHUT_RDWR)

    def unlink(self) -> None:
        """Remove an own Unix socket's file, unless it outlives us, or another file has taken its place.

        One that may not be removed stays; the next start replaces it.
        """
        if self.kept:
            return
        if self._made is not None and self.path is not None:
            with suppress(OSError):
                remove(self.path, self._made, self._owner, self._service)
        self._made = None

    def close(self) -> None:
        self.socket.close()


def next_number() -> int:
    """A number that no listener has had, and none will have."""
    return next(_numbers)


def number_beyond(last: int) -> None:
    """Give no number up to ``last``: the program before may have given them."""
    while next(_numbers) < last:
        pass


def _name(listening: socket.socket) -> str:
    address = listening.getsockname()
    if isinstance(address, bytes) and address:
        return f"{ABSTRACT}{os.fsdecode(address[1:])}"
    if listening.family == socket.AF_UNIX:
        return f"unix:{address or '(unnamed)'}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"
