"""The acceptor: takes connections from the kernel's queue and from siblings into this worker.

Workers take turns: each goes behind its siblings in the kernel's list of waiters after it has accepted. A worker with
too many connections, or without descriptors or memory for one more, leaves clients in the queue and does not spin.
Source: accept(2), epoll(7).
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from errno import EACCES, EAGAIN, EBADF, EINVAL, ENOSYS, ENOTSOCK, EOPNOTSUPP, EPERM
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from forkserver.ipc.scoreboard import ACCEPTED
from forkserver.linux import syscalls
from forkserver.linux.sockets import syn_filter
from forkserver.server.connection.connection import Connection
from forkserver.server.handoff.arrival import begin, go_on
from forkserver.server.handoff.queue import DescriptorLostError, HandedConnection, Handoff
from forkserver.server.loop.connection_factory import ConnectionFactory
from forkserver.server.loop.descriptor_reserve import EXHAUSTED, RETRY_SECONDS, DescriptorReserve
from forkserver.server.loop.listener import Listener, find
from forkserver.server.loop.protocols import WorkerLoop
from forkserver.server.pressure.eviction import Shortage
from forkserver.server.proxy.proxy_header_reader import ProxyHeaderReader

if TYPE_CHECKING:
    import ssl

_NUMBERS_TO_TAKE: Final = 2  # descriptors that are free before a connection is taken from the hand-off
_DENIALS: Final = (EPERM, EACCES, ENOSYS)  # of a seccomp filter or a security module; the client waits on
_CLOSED: Final = (EBADF, ENOTSOCK, EOPNOTSUPP)  # of a number that the listener has not got any more
_DRAIN_ACCEPTS: Final = 4096  # a retiring worker takes at most so many from the queue; its siblings take the rest


class Acceptor:
    """A loop's listeners, and the queue of connections that siblings hand on.

    With ``handoff`` other processes accept from them too.
    """

    def __init__(self, loop: WorkerLoop, connection_class: type[Connection], handoff: Handoff | None) -> None:
        self._loop = loop
        self._factory = ConnectionFactory(loop, connection_class)
        self._handoff = handoff
        self._mask = select.EPOLLIN | (select.EPOLLEXCLUSIVE if handoff else 0)
        self.listeners: list[Listener] = []
        self.tls: ssl.SSLContext | None = None  # of every TCP listener, those of siblings included
        self.reserve = DescriptorReserve(loop)
        self.accepting = False
        self.paused = False  # for want of something; to be started again when it is there
        self.crowded = False  # for want of an idle connection to close
        self._resume: bool | None = None  # while the background driver turns the loop: whether to accept afterwards

    def _sources(self) -> Iterator[tuple[int, Callable[[int], object]]]:
        for listener in self.listeners:
            yield listener.fileno(), partial(self.take_and_serve, listener)
        if self._handoff is not None:
            yield self._handoff.fileno(), self._adopt

    def start(self) -> None:
        """Listen to the listeners and to siblings."""
        if self._resume is not None:
            self._resume = True
            return
        if self.accepting:
            return
        if not self._loop.retiring:
            self._loop.timeouts.calm_down()
        for fd, target in self._sources():
            self._loop.poller.unwatch(fd)  # of an attempt that an exception has broken off
            self._loop.poller.register(fd, self._mask, target)
        self.paused, self.crowded, self.accepting = False, False, True

    def stop(self) -> None:
        """Take the listeners out; connections wait in the kernel's queue, for a sibling or for later."""
        self.paused = self.crowded = False
        if self._resume is not None:
            self._resume = False
        if not self.accepting:
            return
        self.accepting = False
        for fd, _ in self._sources():
            self._loop.poller.unwatch(fd)

    def hold(self) -> None:
        """Accept nothing until ``let_go``: the application is in a call, and a new client would wait for it."""
        accepting, paused, crowded = self.accepting, self.paused, self.crowded
        self.stop()
        self.paused, self.crowded, self._resume = paused, crowded, accepting

    def let_go(self) -> None:
        """Accept again, if that was so before ``hold`` and has not changed meanwhile."""
        wanted, self._resume = self._resume, None
        if wanted:
            self.start()

    def clients_wait(self) -> bool:
        """Whether a client waits in the queue of a listener, or in the one between workers."""
        return any(syscalls.has_event(fd, select.POLLIN) for fd, _ in self._sources())

    def adopt_overdue(self, seconds: float, limit: float | None) -> float | None:
        """Take the requests that no worker was free for in ``seconds``; seconds until the next, ``limit`` at most."""
        while self._handoff is not None and (since := self._handoff.waits_since()):
            left = since + seconds - self._loop.timeouts.now
            if left >= 0 or not self._adopt():
                left = left if left >= 0 else RETRY_SECONDS
                return left if limit is None else min(left, limit)
        return limit

    def take(self, listener: Listener) -> Connection | None:
        """Take one connection from ``listener``; None where there is none to take."""
        loop = self._loop
        try:
            connection = self._factory.accept(listener)
        except OSError as error:
            connection = self._accept_after(error, listener)
        if connection is None:
            if listener.unix:  # a sibling was quicker, or it has ceased to listen
                self._look_for_end(listener)
            return None
        if not self.reserve.keep(connection.fd) and self.accepting:
            self._wait_for_room()
        loop.enter(connection)
        if loop.row is not None:
            loop.row.words[ACCEPTED] += 1
        return connection

    def _accept_after(self, error: OSError, listener: Listener) -> Connection | None:
        """Where something has run short, close a connection to make room, and accept once more."""
        try:
            if self.reserve.make_room(error, listener.fileno()):
                if (connection := self._factory.accept(listener)) is not None:
                    self.reserve.note_success()
                return connection
        except OSError as another:
            error = another
        if error.errno != EAGAIN and (error.errno != EINVAL or not self._was_shut_down(listener)):
            if error.errno in _CLOSED:
                self._note_closed(listener, error)
            else:
                self._failed(error)
        return None

    def take_and_serve(self, listener: Listener, _event: int = 0) -> None:
        """Take one connection and read its request at once where it has come with it; alone, take what there is."""
        if (fd := listener.fileno()) < 0:
            return  # it was closed a moment ago, in the same turn
        loop = self._loop
        one = loop.context.hooks.get_request or self._shares()  # else several keep no sibling idle
        most = 1 if one else listener.batch
        for taken in range(most):
            if not (self.accepting and self._has_room(fd)):  # no longer, if the latest one took the last
                return
            if (connection := self.take(listener)) is None:
                listener.batch = max(1, taken)
                return
            if one:
                self._go_behind(fd)
            try:
                if listener.allowed is None:
                    begin(connection, loop.balancer)
                else:
                    self.begin(connection)
            except BaseException as error:
                loop.handle_fault(connection, error)
        listener.note_taken(most)

    def _shares(self) -> bool:
        """Whether others accept what comes here, too."""
        balancer = self._loop.balancer
        return balancer is not None and balancer.has_siblings()

    def _has_room(self, fd: int) -> bool:
        """Whether one more connection may be had; room is made where one waits at ``fd``."""
        loop, shortage = self._loop, Shortage.CONNECTIONS
        if len(loop.connections) < loop.context.settings.worker_connections:
            if loop.retiring or self.reserve.has_room():
                return True
            shortage = Shortage.DESCRIPTORS
        if syscalls.has_event(fd, select.POLLIN):  # else a sibling was quicker
            if loop.eviction.evict(1, shortage):
                return True
            self._wait_for_room()
        return False

    def _wait_for_room(self) -> None:
        """Accept nothing until a connection has closed, or one may be closed."""
        self.stop()
        self.paused = self.crowded = True
        self._loop.timeouts.hurry()  # a connection that comes to rest now is one to close
        if (seconds := self.reserve.seconds_left()) is not None:
            self._loop.resume_accepting_after(seconds)

    def _adopt(self, _event: int = 0) -> bool:
        """Take one connection that a sibling has handed on, with what it had read; whether there was one."""
        if (handoff := self._handoff) is None or handoff.fileno() < 0 or not self._has_room(handoff.fileno()):
            return False  # it was given up a moment ago, in the same turn, or there is no room
        try:
            taken = self._take_handed_on(handoff)
        except DescriptorLostError as error:
            log = self._loop.context.log
            log.error(f"a connection that a sibling handed on is lost: {error}; raise the limit of files")
            return True
        except EOFError as error:
            self._give_up_handoff(error)
            return False
        except BlockingIOError:
            return False  # a sibling was quicker
        except OSError as error:
            self._failed(error)
            return False
        if taken is None:
            return False
        self._go_behind(handoff.fileno())
        sock, handed = taken
        listener = find(self.listeners, handed.listener, sock, self.tls)
        connection = self._factory.make(self._loop, sock, handed.peer, listener)
        if not self.reserve.keep(connection.fd) and self.accepting:
            self._wait_for_room()
        self._loop.enter(connection)
        self._loop.guard(connection, go_on, connection, handed)
        if not handed.data and self.accepting and listener in self.listeners:
            # Looks there: a sibling that retires leaves clients in its queue, and may be the only one they have woken.
            self._loop.poller.register_anew(listener.fileno(), self._mask)
        return True

    def _give_up_handoff(self, why: EOFError) -> None:
        """Listen no longer to a queue that says its end again and again."""
        assert self._handoff is not None
        if self.accepting:
            self._loop.poller.unwatch(self._handoff.fileno())
        self._handoff = None
        self._loop.context.log.error(
            f"the queue of connections between workers has ended: {why}; restart to have it again"
        )

    def _take_handed_on(self, handoff: Handoff) -> tuple[socket.socket, HandedConnection] | None:
        """As ``handoff.take``, with its errors; without a free descriptor connections are closed, once."""
        try:
            return handoff.take()
        except OSError as error:
            if not self.reserve.make_room(error, handoff.fileno(), _NUMBERS_TO_TAKE):
                raise
        return handoff.take()

    def introduce(self, sock: socket.socket, peer: tuple[Any, ...], listener: Listener) -> None:
        """Serve a socket that came another way."""
        connection = self._factory.make(self._loop, sock, peer, listener)
        self._loop.loop_lock.borrow(self._take_in, connection)

    def _take_in(self, connection: Connection) -> None:
        self._loop.enter(connection)
        self._loop.guard(connection, self.begin, connection)

    def begin(self, connection: Connection) -> None:
        """Read without asking epoll first: most clients send their request with the connection."""
        if connection.listener.allowed is None:
            begin(connection, self._loop.balancer)
            return
        notices = self._loop.context.notices
        proxy_header = ProxyHeaderReader(connection, connection.listener.allowed, notices, self._proceed)
        proxy_header.start()
        if not proxy_header.over:
            connection.wait_in(self._loop.timeouts.heads)
            self._loop.poller.watch_reading(connection, proxy_header)

    def _proceed(self, connection: Connection) -> None:
        # A fault in it is to cost the connection: what follows would be read as another PROXY header.
        self._loop.guard(connection, begin, connection, self._loop.balancer)

    def drain(self, new_program: bool) -> None:
        """Take what is queued, so that no wake-up this worker got is lost for its siblings, and leave.

        With a ``new_program`` to the whole service, inherited listeners keep their queue for it.
        """
        self.stop()
        for listener in self.listeners:
            if not (new_program and listener.inherited):
                self._take_all(listener, shared=not new_program)
        self.drop()
        if new_program:
            self.adopt_all()

    def _take_all(self, listener: Listener, shared: bool = False) -> None:
        """Take what is queued; of a ``shared`` queue what siblings can be handed, and what there are descriptors for.

        They take the rest from the listener themselves.
        """
        limited = syn_filter.limited(listener.sock)
        ended = syn_filter.blocked(listener.sock) or syscalls.has_event(listener.fileno(), select.POLLRDHUP)
        if limited:  # and so is a client accepted between the limit and the order that brought us here
            for each in list(self._loop.connections):
                syn_filter.lift_hop_limit(each.sock)
        for _ in range(_DRAIN_ACCEPTS):
            if (connection := self.take(listener)) is None:
                break
            if limited:
                syn_filter.lift_hop_limit(connection.sock)
            self._loop.guard(connection, self.begin, connection)
            if shared and not ended and (self._handoff_full() or not self.reserve.has_room()):
                break

    def _handoff_full(self) -> bool:
        return self._handoff is not None and self._handoff.full()

    def adopt_all(self) -> None:
        """Take what siblings have handed on, and go on so: they retire too, and no other worker will."""
        if self._handoff is None:
            return
        for _ in range(_DRAIN_ACCEPTS):
            if not self._adopt():
                break
        self.start()

    def drop(self) -> None:
        """Close the listeners."""
        self.stop()
        for listener in self.listeners:
            listener.sock.close()
        self.listeners = []

    def forget(self) -> None:
        """In a forked child: close its copies, and leave the registrations to the parent."""
        self.accepting = self.paused = self.crowded = self._resume = False  # nothing begins to accept here
        self.drop()

    def forgo(self, number: int) -> None:
        """One listener is not served any more: take what is queued there, and close it."""
        for listener in [each for each in self.listeners if each.number == number]:
            self._remove(listener)
            self._take_all(listener)
            listener.sock.close()

    def _remove(self, listener: Listener) -> None:
        if self.accepting:
            self._loop.poller.unwatch(listener.fileno())
        self.listeners = [each for each in self.listeners if each is not listener]

    def _was_shut_down(self, listener: Listener) -> bool:
        """Listen no longer to a socket that has ceased to listen, for it reports its end again and again."""
        if not self.accepting or listener.unix:
            return False  # it is about to be closed; of a Unix socket this is no news, see _look_for_end
        if listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        self._give_up(listener, told=True)
        return True

    def _look_for_end(self, listener: Listener) -> None:
        """Listen no longer to a Unix socket that was shut down: it stays readable, and has no connection to give.

        The master does that by halves (SHUT_RD), and has it closed in a moment. What is shut as a whole
        (SHUT_RDWR) was shut by the application. Source: Linux net/unix/af_unix.c, unix_accept() and unix_poll().
        """
        if not self.accepting or not syscalls.has_event(listener.fileno(), select.POLLRDHUP):
            return
        if listener.shut:
            self._give_up(listener, told=syscalls.has_event(listener.fileno(), 0))
        listener.shut = True  # clients that had joined before that are taken first

    def _give_up(self, listener: Listener, told: bool) -> None:
        """Close a listener that no client can reach any more, and say so where it is to be ``told``."""
        self._remove(listener)
        if told:
            self._loop.context.notices.listener_shut_down(listener.shown)
        listener.sock.close()

    def _note_closed(self, listener: Listener, error: OSError) -> None:
        """Have the worker replaced: the application has closed a listener, which epoll goes on to report (epoll(7))."""
        if not self.accepting or listener not in self.listeners:
            return  # it was closed a moment ago, in the same turn
        self._remove(listener)
        self._loop.context.notices.listener_closed(listener.sock.detach(), error)  # perhaps another file's by now
        self._loop.calls.recycling.ask("its application has closed a listener")

    def _go_behind(self, fd: int) -> None:
        """EPOLLEXCLUSIVE wakes the first that is registered: take turns by registering anew."""
        if self.accepting and self._shares():
            self._loop.poller.register_anew(fd, self._mask)

    def _failed(self, error: OSError) -> None:
        loop = self._loop
        if error.errno in _DENIALS:
            loop.context.notices.accept_denied(error, RETRY_SECONDS)
        elif error.errno in EXHAUSTED:
            loop.context.notices.cannot_accept(error, RETRY_SECONDS)
        else:
            loop.context.log.debug(f"a connection was gone before it was accepted: {error}")
            return
        self.stop()  # else the client that waits is reported again at once
        self.paused = True
        loop.resume_accepting_after(RETRY_SECONDS)
