"""Addresses to listening sockets: bound here, inherited by number, or given by systemd.

It promises that a listener which somebody else has, too, is never unlinked and never drained, and that a stop resets
nobody who has connected. It refuses to know who accepts.

Source: socket(7), tcp(7), unix(7).
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from forkserver.config.bind_address import ABSTRACT
from forkserver.errors import BindError
from forkserver.linux import syscalls
from forkserver.linux.files import trusted_paths
from forkserver.linux.files.file_permissions import Actor, acting_as, actor_of, change_owner
from forkserver.linux.files.trusted_paths import Place, UntrustedPathError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import syn_filter

# What the kernel holds of an answer before it is sent: enough to keep a fast client busy. Without it a slow reader
# takes all of tcp_wmem (4 MiB) at once: milliseconds of copying, in which the worker serves nobody else (tcp(7)).
_UNSENT_BYTES: Final = 512 * 1024
SYN_SECONDS: Final = 0.05  # a handshake begun before arrivals are refused is through by then, and in the queue

_REASONS: Final = {
    errno.EADDRINUSE: "address already in use; stop who holds it, or choose another with --bind",
    errno.EADDRNOTAVAIL: "no such address on this machine; choose one that `ip address` lists",
}


EVERY_INTERFACE: Final = "*"  # the host of :PORT, for IPv6 and IPv4
# There is no IPv6: no protocol (ipv6.disable=1, RestrictAddressFamilies=), or no address.
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)
_PORT_START: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_numbers: Final = itertools.count(1)


class ListenerSnapshot(NamedTuple):
    """A listener as the next program is told of it; ``made`` is the device and inode of a file that is ours."""

    descriptor: int
    own: bool
    kept: bool
    number: int
    made: tuple[int, int] | None


class ListeningSocket:
    """A listening socket, ``own`` where we made it; ``name`` is its address as a person would type it.

    ``kept`` says that systemd's store has it, too: it outlives us, and its queue is the successor's. ``number`` stands
    for it between master and workers, and is never given to another. ``owner`` is the owner of a Unix socket's file,
    ``service`` the uid that workers run as, where that is another.
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
        self._made = _identity(self.path) if own and self.path else None

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
        """Whether the file that was made for it has been removed or replaced, so that no client can connect any more.

        The inode is not another's before the socket is closed, which holds it: so device and inode tell.
        """
        return self._made is not None and self.path is not None and _identity(self.path) != self._made

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
        """Whether it ends with this service: nobody else has it, so its queue must be emptied."""
        return self.own and not self.kept

    @property
    def told(self) -> int:
        """The number as workers are told it: below zero where the queue is a successor's to take."""
        return self.number if self.ends else -self.number

    def fileno(self) -> int:
        return self.socket.fileno()

    def held(self) -> ListenerSnapshot:
        """What the next program is told."""
        return ListenerSnapshot(self.fileno(), self.own, self.kept, self.number, self._made)

    @classmethod
    def from_held(
        cls, held: ListenerSnapshot, owner: Credentials | None = None, service: int | None = None
    ) -> ListeningSocket:
        """The listener that the program before has opened."""
        listening = socket.socket(fileno=held.descriptor)
        listening.setblocking(False)  # it is already; the object has to know
        listener = cls(listening, held.own, owner, service)
        listener.kept, listener.number, listener._made = held.kept, held.number, held.made
        return listener

    def refuse_arrivals(self) -> None:
        """Let nobody join the queue, so that draining it can end; who stands in it stays. Others' go on unchanged.

        TCP clients retry an unanswered SYN after a second and meet the next server, or a closed port.
        """
        if not self.ends:
            return
        if self.unix:
            self.socket.shutdown(socket.SHUT_RD)
        else:
            syn_filter.block_new_connections(self.socket)

    def end_for_everyone(self) -> None:
        """Stop listening in every process that holds this listener; what is queued is reset. For when all else is lost.

        The address is free for the next server at once. Source: shutdown(2) on a listening socket.
        """
        with suppress(OSError):  # another has done it before us
            self.socket.shutdown(socket.SHUT_RDWR)

    def unlink(self) -> None:
        """Remove an own Unix socket's file, unless it outlives us, or somebody has put another in its place.

        One that may not be removed stays; the next start replaces it.
        """
        if self.kept:
            return
        if self._made is not None and self.path is not None:
            with suppress(OSError):
                _remove(self.path, self._made, self._owner, self._service)
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


def open_all(
    bind: Iterable[str],
    given: Iterable[tuple[int, str]],
    backlog: int,
    mode: int,
    credentials: Credentials,
    beside: Iterable[str] = (),
) -> list[ListeningSocket]:
    """The listeners to serve: those ``given`` by systemd, or where it gave none, those that ``bind`` names.

    ``mode`` and the user and group of ``credentials`` go to own Unix sockets; ``beside`` are addresses served too.
    Raises BindError, with nothing left open.
    """
    binds = list(bind)
    together = [*binds, *beside]
    opened: list[ListeningSocket] = []
    try:
        # One by one onto the list, so that what is open can be closed where a later one fails.
        opened += (inherited(number, f"systemd's {name} (descriptor {number})") for number, name in given)
        if not opened:
            opened += (_open(address, together, backlog, mode, credentials) for address in binds)
    except BaseException:
        for listener in opened:
            listener.unlink()
            listener.close()
        raise
    return opened


def _open(address: str, binds: list[str], backlog: int, mode: int, credentials: Credentials) -> ListeningSocket:
    if address.startswith("fd://"):
        return inherited(int(address[5:]), address)
    if address.startswith(ABSTRACT):
        return _bind_abstract(address, backlog)
    if address.startswith("unix:"):
        return bind_unix(os.path.abspath(address[5:]), backlog, mode, credentials)
    if address.startswith(f"{EVERY_INTERFACE}:"):
        return _bind_every_interface(address, binds, backlog)
    return _bind_tcp(address, binds, backlog)


def inherited(number: int, name: str) -> ListeningSocket:
    """A listener that was open when we started. Raises BindError."""
    try:
        listening = socket.socket(fileno=number)
    except OSError as error:
        raise BindError(f"cannot serve {name}: {error.strerror}; pass a listening socket", error.errno) from None
    try:
        accepts = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listening.type != socket.SOCK_STREAM or not accepts:
            raise BindError(f"cannot serve {name}: not a listening stream socket; pass one that listens")
        _prepare(listening)
    except BaseException:
        listening.detach()  # not ours to close
        raise
    return ListeningSocket(listening, own=False)


def _prepare(listening: socket.socket) -> None:
    listening.set_inheritable(False)
    # Non-blocking: a sibling may win an accept between poll and accept.
    listening.setblocking(False)
    if listening.family != socket.AF_UNIX:
        # Connections inherit it from their listener: an answer in two writes must not wait for an ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def _bind_tcp(address: str, binds: list[str], backlog: int) -> ListeningSocket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        # ASCII as bytes: of text Python makes an international name first, by tables that take milliseconds to load.
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise BindError(
            f"cannot bind {address}: {error.strerror}; give an address of this machine", error.errno
        ) from None
    # A name with both kinds (localhost) is IPv4, as make_server has it.
    family, _, _, _, sockaddr = min(found, key=lambda each: each[0] != socket.AF_INET)
    # [::] takes IPv4 clients too, unless another bind is there for them.
    apart = any(other != address and other.endswith(f":{port}") for other in binds)
    return _listen_tcp(address, family, sockaddr, apart, backlog)


def _bind_every_interface(address: str, binds: list[str], backlog: int) -> ListeningSocket:
    """Listen on every interface by IPv6 and IPv4, or where this machine has no IPv6, by IPv4. Raises BindError."""
    port = int(address.rpartition(":")[2])
    try:
        return _listen_tcp(address, socket.AF_INET6, ("::", port), f"0.0.0.0:{port}" in binds, backlog)
    except BindError as error:
        if error.errno not in _NO_IPV6:
            raise
    listener = _listen_tcp(address, socket.AF_INET, ("0.0.0.0", port), False, backlog)
    listener.lacks_ipv6 = True
    return listener


def _listen_tcp(address: str, family: int, sockaddr: tuple[object, ...], apart: bool, backlog: int) -> ListeningSocket:
    """Listen at ``sockaddr``, which ``address`` means; ``apart`` keeps an IPv6 socket to IPv6. Raises BindError."""
    listening = _socket(family, address)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, apart)
        _prepare(listening)
        listening.bind(sockaddr)
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        if error.errno == errno.EACCES:
            raise BindError(f"cannot bind {address}: {_forbidden(address)}", error.errno) from None
        raise _bind_error(address, error) from None
    return ListeningSocket(listening, own=True)


def _forbidden(address: str) -> str:
    """Why the kernel forbids a TCP address, and what an ordinary user can do. Source: ip(7), capabilities(7)."""
    host, _, number = address.removeprefix(EVERY_INTERFACE).rpartition(":")
    port, least = int(number), _first_free_port()
    if port >= least:
        return "permission denied by a rule of this machine (SELinux, seccomp); choose another port with --bind"
    other = max(least, {80: 8080, 443: 8443}.get(port, 8000 + port))
    return (
        f"permission denied, ports below {least} are for root (CAP_NET_BIND_SERVICE); choose one from {least} on, such "
        f"as --bind {host}:{other}, or have root install the socket unit that --systemd-socket prints"
    )


def _first_free_port() -> int:
    """The first port that every user may bind: net.ipv4.ip_unprivileged_port_start, ip(7)."""
    try:
        with open(_PORT_START, encoding="ascii") as file:
            return int(file.read(16))
    except (OSError, ValueError):  # no /proc, or a kernel before 4.11
        return 1024


def _socket(family: int, name: str) -> socket.socket:
    """A stream socket for the address ``name``. Raises BindError: a reload without a free descriptor is refused."""
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _bind_error(name, error) from None


def _bind_abstract(address: str, backlog: int) -> ListeningSocket:
    """Listen at a name of the abstract namespace, which ends with its last descriptor. Raises BindError. unix(7)."""
    listening = _socket(socket.AF_UNIX, address)
    try:
        _prepare(listening)
        listening.bind(b"\0" + os.fsencode(address.removeprefix(ABSTRACT)))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise _bind_error(address, error) from None
    return ListeningSocket(listening, own=True)


def bind_unix(
    path: str, backlog: int, mode: int, credentials: Credentials, service: int | None = None
) -> ListeningSocket:
    """Listen at ``path``: a stale socket there is replaced, a live one refused. Raises BindError.

    In a folder that another user may change, the socket is made with that user's rights (trusted_paths.py);
    ``service`` is the uid that workers run as, where that is not the owner in ``credentials``.
    """
    try:
        with trusted_paths.find(path, credentials.uid if service is None else service, follow=False) as place:
            listening = _bind_in(place, path, backlog, mode, credentials)
    except UntrustedPathError as error:
        raise BindError(f"cannot bind unix:{path}: {error}") from None
    except BindError:
        raise
    except OSError as error:
        raise _unix_error(path, error) from None
    return ListeningSocket(listening, own=True, owner=credentials, service=service)


def _bind_in(place: Place, path: str, backlog: int, mode: int, credentials: Credentials) -> socket.socket:
    maker = _maker(place, credentials)
    listening = _socket(socket.AF_UNIX, f"unix:{path}")
    try:
        _prepare(listening)
        with acting_as(maker):
            _clear_stale(path)
            _bind_with_mode(listening, path, mode)
        with _unlinked_on_error(path, maker):
            if credentials.changes:
                _give(path, credentials, maker)
            listening.listen(backlog)
    except BaseException as error:
        listening.close()
        if isinstance(error, PermissionError) and not isinstance(error, BindError) and maker is not None:
            raise BindError(
                f"cannot bind unix:{path}: {place.reason}, so it is made with the rights of {maker.name}, which do not "
                f"suffice; let {maker.name} write that folder, or choose one that only root may write",
                error.errno,
            ) from None
        raise
    return listening


def _maker(place: Place, credentials: Credentials) -> Actor | None:
    """The user to make the socket as; None for ourselves. Raises UntrustedPathError.

    A folder of root's that others may write too is the socket's owner's to write: then there is nothing to give away,
    and no name that may lead to another file by then.
    """
    if place.actor is not None or not place.guarded or os.geteuid() != 0:
        return place.actor
    if place.replaceable and credentials.uid in (-1, 0):
        raise UntrustedPathError(f"{place.reason}, and can put another in its place")
    if not credentials.changes:
        return None
    user = actor_of(max(credentials.uid, 0))
    return user if credentials.gid == -1 else user._replace(gid=credentials.gid)


def _bind_with_mode(listening: socket.socket, path: str, mode: int) -> None:
    before = os.umask(0o777 & ~mode)  # from its first moment the file has its mode: no chmod to win a race against
    try:
        listening.bind(path)
    finally:
        os.umask(before)


@contextmanager
def _unlinked_on_error(path: str, maker: Actor | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError), acting_as(maker):
            os.unlink(path)
        raise


def _remove(path: str, made: tuple[int, int], owner: Credentials, service: int) -> None:
    """Remove the socket at ``path``, if it is the one ``made``. Raises OSError."""
    with trusted_paths.find(path, service, follow=False) as place:
        try:
            maker = _maker(place, owner)
        except UntrustedPathError:
            return  # by now somebody else may choose which file this is
        with acting_as(maker):
            found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == made:
                os.unlink(place.name, dir_fd=place.folder)


def _give(path: str, credentials: Credentials, maker: Actor | None) -> None:
    """Give the socket just bound at ``path`` its owner. Raises BindError, OSError.

    By a descriptor, and only what its maker made: where a user may change the folder, that user made it, and the name
    may lead to another file by now. Source: open(2) on O_PATH.
    """
    with acting_as(maker):
        number = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(number)
        made_by = os.geteuid() if maker is None else maker.uid
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != made_by or found.st_nlink != 1:
            raise BindError(
                f"cannot bind unix:{path}: another file was put there; choose a folder of its own with --bind"
            )
        wanted = (credentials.uid, credentials.gid)
        if any(new not in (-1, old) for new, old in zip(wanted, (found.st_uid, found.st_gid), strict=True)):
            if maker is not None and maker.uid == 0:
                # Others may have put another socket of root's there by now.
                raise BindError(
                    f"cannot bind unix:{path}: it gets the folder's group (setgid), and others than root may write "
                    "there; choose a folder of its own with --bind"
                )
            change_owner(number, *wanted)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):  # EINVAL: not in this user namespace
            raise
        raise BindError(
            f"cannot bind unix:{path}: only root and members of group {credentials.gid} may give it to that; join it, "
            "start as root, or leave out --socket-group",
            error.errno,
        ) from None
    finally:
        os.close(number)


def _clear_stale(path: str) -> None:
    """Remove the socket that a killed server left at ``path``. Raises BindError where somebody uses the name."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(f"cannot bind unix:{path}: a file of another kind is there; move it or choose another path")
    if answers(path):
        raise BindError(
            f"cannot bind unix:{path}: a server is listening there; stop it or choose another path", errno.EADDRINUSE
        )
    with suppress(FileNotFoundError):
        os.unlink(path)


def answers(path: str) -> bool:
    """Whether a process listens at the Unix socket ``path``, or may do so."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            # EAGAIN: its queue is full, so it lives. Anything else (EACCES) does not say that nobody is there.
            return error.errno != errno.EPROTOTYPE
    return True


def _unix_error(path: str, error: OSError) -> BindError:
    folder = os.path.dirname(path)
    if error.errno == errno.EACCES:
        reason = f"permission denied, this user may not make files in {folder}; choose a folder of its own with --bind"
    elif error.errno == errno.ENOENT:
        reason = f"there is no folder {folder}; make it, or choose another with --bind"
    else:
        return _bind_error(f"unix:{path}", error)
    return BindError(f"cannot bind unix:{path}: {reason}", error.errno)


def _bind_error(name: str, error: OSError) -> BindError:
    reason = _REASONS.get(error.errno or 0) or f"{(error.strerror or str(error)).lower()}; choose another with --bind"
    return BindError(f"cannot bind {name}: {reason}", error.errno)


def _name(listening: socket.socket) -> str:
    address = listening.getsockname()
    if isinstance(address, bytes) and address:
        return f"{ABSTRACT}{os.fsdecode(address[1:])}"
    if listening.family == socket.AF_UNIX:
        return f"unix:{address or '(unnamed)'}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
