"""A listening socket, bound here, inherited by number, or given by systemd.

The master holds one object for each; workers have the descriptor. What another process has too (systemd, the program
before or after an upgrade) is never unlinked and never drained here: ``own`` and ``kept`` tell.

The application has its listeners, and a process of it can hold the kernel's lock of one for as long as it likes: by a
setsockopt(2) whose argument lies in memory that comes late (userfaultfd(2), a FUSE file system of its own). A call that
needs the lock then sleeps where no signal reaches it, SIGKILL included: setsockopt, getsockname (of TCP, from Linux
5.17 on), accept, listen, shutdown, TCP_INFO of a socket that does not listen. So the address is read once, before a
process of the application is there, and an upgrade hands it on: ``ListenerAddress``. What the master asks later takes
no lock: SO_ACCEPTCONN, poll(2), and shutdown(2) of a Unix socket. To make a socket object of a descriptor is a
getsockname, too, so ``socket`` makes it where a process needs one.

Source: socket(7), tcp(7), unix(7), shutdown(2); sk_setsockopt() in net/core/sock.c, inet_getname() in
net/ipv4/af_inet.c.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NoReturn

from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import accept_queue, syn_filter
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.socket_file import ABSTRACT, identity, remove

SYN_SECONDS: Final = 0.05  # a handshake begun before arrivals are refused is through by then, and in the queue

HELD_SECONDS: Final = 1.0  # within which a lock of a socket is had that no process holds on purpose

_numbers: Final = itertools.count(1)


class ListenerAddress(NamedTuple):
    """Where a listener is, as the kernel tells it.

    ``host`` and ``port`` are of a TCP socket, ``dual`` says that it takes clients by IPv6 and by IPv4. ``path`` is of a
    Unix socket that has a file, ``abstract`` the name of one in the abstract namespace, without its NUL.
    """

    family: int
    host: str = ""
    port: int = 0
    dual: bool = False
    path: str | None = None
    abstract: str | None = None

    @classmethod
    def of(cls, listening: PlainSocket) -> ListenerAddress:
        """That of ``listening``, from the kernel, which takes the socket's lock for it."""
        family, address = int(listening.family), listening.getsockname()
        if isinstance(address, bytes) and address:
            return cls(family, abstract=os.fsdecode(address[1:]))
        if family == socket.AF_UNIX:
            return cls(family, path=address or None)
        every = family == socket.AF_INET6 and address[0] == "::"
        dual = every and not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return cls(family, address[0], int(address[1]), dual)

    @property
    def name(self) -> str:
        """As a person would type it."""
        if self.abstract is not None:
            return f"{ABSTRACT}{self.abstract}"
        if self.family == socket.AF_UNIX:
            return f"unix:{self.path or '(unnamed)'}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class ListenerSnapshot(NamedTuple):
    """A listener as the next program is told of it; ``made`` is the device and inode of a file that is ours."""

    descriptor: int
    own: bool
    kept: bool
    number: int
    made: tuple[int, int] | None
    found: tuple[int, int] | None = None  # the same of a file that another has made; an older program did not tell it
    address: ListenerAddress | None = None  # nor this


class ListeningSocket:
    """A listening socket, ``own`` where we made it; ``name`` is its address as a person would type it.

    ``kept`` says that systemd's store has it, too: it outlives us, and its queue is left to the next server.
    ``number`` stands for it between master and workers, and is never given to another. ``owner`` is the owner of a Unix
    socket's file, ``service`` the uid that workers run as, where that is another. ``listening`` is a socket, or where
    the ``address`` is known, a descriptor.
    """

    def __init__(
        self,
        listening: PlainSocket | int,
        own: bool,
        owner: Credentials | None = None,
        service: int | None = None,
        address: ListenerAddress | None = None,
    ) -> None:
        self._descriptor = listening if isinstance(listening, int) else listening.fileno()
        self._socket = None if isinstance(listening, int) else listening
        self.address = ListenerAddress.of(self.socket) if address is None else address
        self.own = own
        self._owner = owner or Credentials()
        self._service = self._owner.uid if service is None else service
        self.kept = False
        self.number = next(_numbers)
        self.family = self.address.family
        self.unix = self.family == socket.AF_UNIX
        if self.unix and address is None:
            syscalls.refuse_descriptors(self.socket)
        self.name = self.address.name
        self.public = self.address.host in ("0.0.0.0", "::")
        self.lacks_ipv6 = False  # it was to be every interface, and this machine has no IPv6
        file = identity(self.path) if self.path and os.path.isabs(self.path) else None
        self._made = file if own else None
        self._found = None if own else file

    @property
    def port(self) -> int:
        """Of a TCP socket."""
        return self.address.port

    @property
    def abstract(self) -> bool:
        """Whether it is a Unix socket of the abstract namespace: a name without a file, open to every process."""
        return self.address.abstract is not None

    @property
    def dual(self) -> bool:
        """Whether it takes clients of every interface by IPv6 and by IPv4. Source: ipv6(7), IPV6_V6ONLY."""
        return self.address.dual

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
        if not accept_queue.accepts(self.fileno()):
            return True
        return syscalls.has_event(self.fileno(), select.POLLRDHUP)  # a Unix socket that is shut is still a listener

    @property
    def path(self) -> str | None:
        """The file name of a Unix socket that has one."""
        return self.address.path

    @property
    def ends(self) -> bool:
        """Whether it ends with this service: no other process has it, so its queue must be emptied."""
        return self.own and not self.kept

    @property
    def told(self) -> int:
        """The number as workers are told it: below zero where the queue is left to the next server."""
        return self.number if self.ends else -self.number

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self._descriptor if self._socket is None else self._socket.fileno()

    def snapshot(self) -> ListenerSnapshot:
        """What the next program is told."""
        return ListenerSnapshot(self.fileno(), self.own, self.kept, self.number, self._made, self._found, self.address)

    @classmethod
    def from_snapshot(
        cls, snapshot: ListenerSnapshot, owner: Credentials | None = None, service: int | None = None
    ) -> ListeningSocket:
        """The listener that the program before has opened."""
        listener = cls(snapshot.descriptor, snapshot.own, owner, service, snapshot.address)
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
        """Close our copy. Closing twice is once."""
        number = self.detach()
        if number >= 0:
            os.close(number)

    def detach(self) -> int:
        """Let go of the descriptor, which stays open; returns it, or -1 where it is closed."""
        number, self._descriptor = self.fileno(), -1
        if self._socket is not None:
            self._socket.detach()
        return number

    @property
    def socket(self) -> PlainSocket:
        """Its socket object. After an upgrade the first call makes it, for which the kernel takes the socket's lock."""
        if self._socket is None:
            self._socket = PlainSocket(fileno=self._descriptor)
            self._socket.setblocking(False)  # it is already; the object has to know
        return self._socket


def refuse_arrivals(listeners: Iterable[ListeningSocket], seconds: float = HELD_SECONDS) -> bool:
    """Let no connection join the queues of ``listeners``, without sleeping for a lock that another process holds.

    TCP takes the lock: a child does that, for which we wait ``seconds`` at most. False where that was too short, or no
    process was to be had: the child is killed, and ends when it gets the lock; the queues take connections till then.
    """
    ours = [each for each in listeners if each.ends]
    for each in ours:
        if each.unix:
            each.refuse_arrivals()
    tcp = [each for each in ours if not each.unix]
    if not tcp:
        return True
    reading, writing = -1, -1
    try:
        reading, writing = os.pipe()  # its end is the child's
        pid = syscalls.fork()
        if pid == 0:
            _refuse_in_child(tcp, writing)
        os.close(writing)
        writing = -1
        ended = syscalls.has_event(reading, select.POLLIN, seconds)
        if not ended:
            os.kill(pid, signal.SIGKILL)  # it is our child and not reaped, so the number is its own
        return ended
    except OSError:
        return False
    finally:
        for number in (reading, writing):
            if number >= 0:
                os.close(number)


def _refuse_in_child(listeners: Iterable[ListeningSocket], writing: int) -> NoReturn:
    """In a child that may have to stay for long: with these listeners and no other descriptor of the master's."""
    try:
        kept = sorted([writing, *(each.fileno() for each in listeners)])
        for after, before in itertools.pairwise([-1, *kept, os.sysconf("SC_OPEN_MAX")]):
            os.closerange(after + 1, before)
        for each in listeners:
            each.refuse_arrivals()
    finally:
        os._exit(0)


def next_number() -> int:
    """A number that no listener has had, and none will have."""
    return next(_numbers)


def number_beyond(last: int) -> None:
    """Give no number up to ``last``: the program before may have given them."""
    while next(_numbers) < last:
        pass
