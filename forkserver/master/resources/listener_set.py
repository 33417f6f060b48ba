"""The listeners that are open: which are served, which a reload adds, and which are on their way out.

A reload opens new addresses beside the old ones (``change``), and ``settle`` keeps one set of them: the new one where
the reload's code serves, else the old. An address that is given up refuses new connections at once and is closed only
after ``SYN_SECONDS``, when the workers have emptied its queue. Sockets that systemd has activated are never changed by
a reload. Workers do the accepting.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from forkserver.config.validation import MOST_LISTENERS
from forkserver.errors import BindError, ConfigError
from forkserver.linux import syscalls
from forkserver.linux.common.counted import count_of
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import listening_socket, open_listeners
from forkserver.linux.sockets.listening_socket import SYN_SECONDS, ListeningSocket
from forkserver.linux.sockets.socket_file import ABSTRACT
from forkserver.linux.sockets.tcp_socket import EVERY_INTERFACE
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.resources.address_reach import reach, reach_of
from forkserver.master.resources.fd_store import FdStore


class Terms(NamedTuple):
    """How listeners of our own are made: length of the queue, permissions and owner of a Unix socket's file."""

    backlog: int
    mode: int
    owner: Credentials
    more_ports: int = 0  # that are tried at the start where a TCP port is in use


class _Bound(NamedTuple):
    """A listener, and the address as the settings have it; the kernel may have chosen the port."""

    address: str
    listener: ListeningSocket


class BoundSnapshot(NamedTuple):
    address: str
    listener: listening_socket.ListenerSnapshot


class ListenerSetSnapshot(NamedTuple):
    """The bindings as the next program is told of them; ``number`` is beyond all numbers of listeners."""

    served: list[BoundSnapshot]
    going: list[BoundSnapshot]
    activated: bool
    drop_at: float
    number: int


class ListenerSet:
    """What ``bind`` names, or the listeners that systemd has ``activated``. ``drop_at`` is when ``drop`` is due.

    Raises BindError and ConfigError, with nothing left open.
    """

    def __init__(
        self, bind: Sequence[str], activated: Sequence[tuple[int, str]], terms: Terms, store: FdStore | None = None
    ) -> None:
        self.activated = bool(activated)
        self.drop_at = NEVER
        self.refused = True  # what the last reload gave up takes no connections; not so where a process holds it
        self._store = store
        self._served: list[_Bound] = []
        self._coming: list[_Bound] | None = None
        self._going: list[_Bound] = []
        if activated:
            _refuse_too_many(activated)
            opened = open_listeners.open_all((), activated, terms.backlog, terms.mode, terms.owner)
            self._served = [_Bound(name, listener) for (_, name), listener in zip(activated, opened, strict=True)]
        else:
            self._served = self._opened(bind, terms)
        if store is not None:
            store.forget_the_rest()
            store.keep(self._served)

    def _opened(self, bind: Sequence[str], terms: Terms) -> list[_Bound]:
        """What ``bind`` names, taken back from systemd's store where it is there."""
        back: dict[str, _Bound] = {}
        try:
            for address in bind:
                if taken := self._taken_back(address, bind, terms):
                    back[address] = taken
            new = [address for address in bind if address not in back]
            made = open_listeners.open_all(new, (), terms.backlog, terms.mode, terms.owner, bind, terms.more_ports)
            opened = iter(made)
        except BaseException:
            for bound in back.values():
                bound.listener.close()
            raise
        return [back.get(address) or _Bound(_absolute(address), next(opened)) for address in bind]

    def _taken_back(self, address: str, bind: Sequence[str], terms: Terms) -> _Bound | None:
        if self._store is None:
            return None
        for name in _names(address, bind):
            if taken := self._store.take(name, terms.backlog, terms.mode, terms.owner):
                taken.lacks_ipv6 = name in _of_ipv4(address)
                return _Bound(name, taken)
        return None

    def snapshot(self) -> ListenerSetSnapshot:
        """What the next program is told. Only between reloads."""
        served, going = (
            [BoundSnapshot(name, one.snapshot()) for name, one in which] for which in (self._served, self._going)
        )
        return ListenerSetSnapshot(served, going, self.activated, self.drop_at, listening_socket.next_number())

    @classmethod
    def restore(cls, snapshot: ListenerSetSnapshot, terms: Terms, store: FdStore) -> ListenerSet:
        """Those that the program before has served."""
        listening_socket.number_beyond(snapshot.number)
        made = cls((), (), terms, store)
        for which, told in ((made._served, snapshot.served), (made._going, snapshot.going)):
            which += (_Bound(name, ListeningSocket.from_snapshot(one, terms.owner)) for name, one in told)
        made.activated, made.drop_at = snapshot.activated, snapshot.drop_at
        return made

    @property
    def open(self) -> list[ListeningSocket]:
        """Every listener that a worker is to have, those that are there to stay first."""
        return [each.listener for each in self._all()]

    def _all(self) -> list[_Bound]:
        wanted = self._served if self._coming is None else self._coming
        rest = [each for each in self._served if each not in wanted]
        return [*wanted, *rest, *self._going]

    def unreachable(self) -> list[tuple[str, str]]:
        """The names of the listeners at which no client can connect, each with what makes that possible again."""
        closed = (each for each in self._all() if each.listener.gone or each.listener.ended)
        return [(each.listener.name, self._way_out(each.address)) for each in closed]

    def _way_out(self, address: str) -> str:
        if self.activated:
            # In one command: systemd starts no socket unit of a service that runs.
            unit = address if address.endswith(".socket") else "NAME.socket"
            return f"systemctl restart {unit} {unit.removesuffix('socket')}service"
        return f"restart what has opened {address}" if address.startswith("fd://") else "reload to listen there again"

    @property
    def on_other_ports(self) -> list[tuple[str, ListeningSocket]]:
        """The addresses whose port was in use, each with the listener that has another one."""
        if self.activated:
            return []
        tcp = (each for each in self._served if not (each.listener.unix or each.address.startswith("fd://")))
        found = ((address, listener, int(address.rpartition(":")[2])) for address, listener in tcp)
        return [(address, listener) for address, listener, port in found if port not in (0, listener.port)]

    @property
    def changing(self) -> bool:
        """Whether a reload has been begun and not settled."""
        return self._coming is not None

    def change(self, bind: Sequence[str], terms: Terms) -> list[str]:
        """Begin to serve what ``bind`` names: open what is new, and keep all else until ``settle``.

        Returns the addresses of every interface that an IPv4 listener opened before goes on serving. Raises BindError
        and ConfigError, with everything as it was.
        """
        if self.activated:
            return []
        kept = self._kept(bind)
        new = [address for address, bound in zip(bind, kept, strict=True) if bound is None]
        self._refuse_too_many_at_once(len(new))
        opened = iter(self._open(new, bind, terms))
        self._coming = [
            bound or _Bound(_absolute(address), next(opened)) for address, bound in zip(bind, kept, strict=True)
        ]
        try:
            if self._store is not None:
                self._store.keep(each for each in self._coming if each not in self._served)
        except BaseException:
            self.undo()
            raise
        named = zip(map(_absolute, bind), kept, strict=True)
        return [address for address, bound in named if bound is not None and bound.address in _of_ipv4(address)]

    def _refuse_too_many_at_once(self, new: int) -> None:
        before = len(self._all())
        if new and before + new > MOST_LISTENERS:
            raise ConfigError(
                f"bind: {count_of(new, 'new address', 'new addresses')} beside {before} that are served until the new "
                f"code is, and the kernel passes {MOST_LISTENERS} to a worker at most; reload with fewer new ones at a "
                "time, or restart"
            )

    def undo(self) -> None:
        """Close what ``change`` has opened, which no worker has yet."""
        added = [each for each in self._coming or () if each not in self._served]
        self._coming = None
        self._give_up(added)
        _close(added)

    def settle(self, taken: bool, now: float) -> list[ListeningSocket]:
        """The reload's generation has taken over, or it has not. Returns what is served more than before.

        An address that is given up refuses new connections; those begun already still come in. Then ``drop`` is due.
        """
        self.refused = True
        if self._coming is None:
            return []
        before, after = self._served, self._coming
        if not taken:
            before, after = after, before
        self._served, self._coming = after, None
        gone = [each for each in before if each not in after]
        self._give_up(gone)
        self.refused = listening_socket.refuse_arrivals(each.listener for each in gone)
        for each in gone:
            each.listener.unlink()
        if gone:
            self._going += gone
            self.drop_at = now + SYN_SECONDS
        return [each.listener for each in after if each not in before] if taken else []

    def drop(self) -> list[tuple[int, str]]:
        """Close our copies of what was given up: number, for workers to empty and close theirs, and address."""
        gone, self._going, self.drop_at = self._going, [], NEVER
        told = [(each.listener.number, each.listener.name) for each in gone]
        _close(gone)
        return told

    def _give_up(self, gone: Iterable[_Bound]) -> None:
        """Have systemd forget these, so that they can be emptied and closed."""
        if self._store is None:
            return
        given_up = set()
        for each in gone:
            self._store.forget(each.address, each.listener)
            given_up.add(each.address)
        # What systemd has under one name, it forgets together: a socket may have been made again at its address.
        again = [each for each in self._served if each.address in given_up]
        for each in again:
            each.listener.kept = False
        self._store.keep(again)

    def close(self) -> None:
        """Close all of it, and remove the files of those that end with us."""
        everything = [*self._served, *(self._coming or ()), *self._going]
        self._served, self._coming, self._going, self.drop_at = [], None, [], NEVER
        _close(everything)

    def _kept(self, bind: Iterable[str]) -> list[_Bound | None]:
        """For each address, the listener that serves it already; port 0 twice takes two that the kernel has chosen.

        One that was opened by another name of the same address (``localhost``) serves it, too.
        A Unix socket whose file was removed or replaced, and what the application has shut down, serves no new client
        and does not count.
        """
        addresses = [_absolute(address) for address in bind]
        left = [each for each in self._served if not (each.listener.to_bind_again or each.listener.ended)]
        found = []
        for address in addresses:
            names = _names(address, addresses)
            bound = next((each for name in names for each in left if each.address == name), None)
            if bound is not None:
                left.remove(bound)
            found.append(bound)
        for at, address in enumerate(addresses):
            if found[at] is None and (bound := next((each for each in left if _is_at(each, address)), None)):
                left.remove(bound)
                found[at] = bound
        return found

    def _open(self, new: Sequence[str], bind: Sequence[str], terms: Terms) -> list[ListeningSocket]:
        for address in new:
            if address.startswith("fd://"):
                raise ConfigError(f"bind {address}: a descriptor is inherited at the start, not in a reload; restart")
        if not new:
            return []
        try:
            return open_listeners.open_all(new, (), terms.backlog, terms.mode, terms.owner, beside=bind)
        except BindError as error:
            if error.errno != errno.EADDRINUSE or not (why := self._why_in_use(new, error)):
                raise
            raise BindError(f"{str(error).partition(';')[0]}, {why}", error.errno) from None

    def _why_in_use(self, new: Iterable[str], error: BindError) -> str:
        """What a listener of our own has to do with an address that is in use, and the way out; empty for nothing."""
        failed = [address for address in new if str(error).startswith(f"cannot bind {address}: ")]
        if ours := self._in_the_way(failed):
            named = " and ".join(ours)
            are = f"{named}, which {'is' if len(ours) == 1 else 'are'} served until the new code is"
            return f"by our own {are}; restart, or reload once without {named}"
        replaced = (each.address for each in self._served if each.listener.gone)
        if any(str(error).startswith(f"cannot bind {address}: ") for address in replaced):
            return (
                "which has replaced our own socket, so clients reach that server and not this one; stop it and reload "
                "again, or choose another path"
            )
        return ""

    def _in_the_way(self, new: Iterable[str]) -> list[str]:
        """The addresses of our own that take in one of the new ones, or are taken in by it."""
        wanted = [reach(address) for address in new if not address.startswith("unix:")]
        ours = (each for each in (*self._served, *self._going) if not each.listener.unix)
        return [each.address for each in ours if any(reach_of(each.listener).overlaps(other) for other in wanted)]


def _refuse_too_many(activated: Sequence[tuple[int, str]]) -> None:
    if len(activated) > MOST_LISTENERS:
        raise ConfigError(
            f"{len(activated)} listeners given by systemd, and the kernel passes {MOST_LISTENERS} to a worker at most; "
            "leave some out of the .socket units"
        )


def _is_at(bound: _Bound, address: str) -> bool:
    """Whether ``bound``, which was made by one name of an address, is what ``address`` names, too."""
    if bound.listener.unix or bound.address.startswith("fd://") or address.startswith(("unix:", "fd://")):
        return False
    host, _, port = address.rpartition(":")
    if int(port) != bound.listener.port or host == EVERY_INTERFACE or bound.listener.public:
        return False
    try:
        return reach(address) == reach_of(bound.listener)
    except BindError:
        return False  # a bind to it says why


def _absolute(address: str) -> str:
    """``address`` so that it means the same in whichever directory a reload is begun."""
    if address.startswith(ABSTRACT):
        return address
    return f"unix:{os.path.abspath(address[5:])}" if address.startswith("unix:") else address


def _of_ipv4(address: str) -> list[str]:
    """What ``:PORT`` meant before it meant IPv6, too: a master that was upgraded in place may serve that."""
    host, _, port = address.rpartition(":")
    return [f"0.0.0.0:{port}"] if host == EVERY_INTERFACE else []


def _names(address: str, bind: Sequence[str]) -> list[str]:
    """The names that a listener of ``address`` may have had, the right one first."""
    return [_absolute(address), *(name for name in _of_ipv4(address) if name not in bind)]


def _close(bound: Iterable[_Bound]) -> None:
    """Close our copies, without waiting for what the application has made of a listener, or put into its queue.

    It has the same sockets: it can make a TCP listener a connection that lingers (SO_LINGER), and have a Unix socket
    take descriptors of such connections. Where systemd does not hold one more, the last copy is closed by a process
    that ends, which does not wait.
    """
    feared = []
    for listener in dict.fromkeys(each.listener for each in bound):  # in a reload, the old set and the new share some
        listener.unlink()
        if listener.ends and (listener.unix or listener.ended):
            if listener.unix:
                listener.refuse_arrivals()  # now, and not when that process has ended
            feared.append(listener)
        else:
            listener.close()
    if not feared:
        return
    try:
        syscalls.close_in_child(*feared)
    except OSError:  # no process to be had: better that descriptors stay than that the master waits
        for listener in feared:
            listener.detach()
