"""The epoll turn: what is ready is read, served, sent; what is overdue is judged; then the worker sleeps.

It promises that nothing but the application blocks, that a worker with nothing to do does not wake, and that a fault
costs at most one connection. It refuses to know processes and HTTP.

Source: epoll(7), eventfd(2).
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from forkserver.logs import AccessLog, ErrorLog
from forkserver.scoreboard import PARKED, Row
from forkserver.serving import gateway
from forkserver.serving.acceptor import Acceptor
from forkserver.serving.buffers import Spool
from forkserver.serving.classic import ClassicConnection
from forkserver.serving.connection import CALLING, LINGERING, READING, Connection
from forkserver.serving.deadlines import Queue, earliest
from forkserver.serving.handler import WSGIRequestHandler
from forkserver.serving.hooks import Hooks
from forkserver.serving.means import means_of
from forkserver.wire import response as wire
from forkserver.wire.request import FieldMemo

if TYPE_CHECKING:
    from forkserver.serving.pool import Pool
    from forkserver.serving.server import WSGIServer
    from forkserver.settings import Settings

_EVENTS: Final = 64  # of one poll, while nothing is due
_NEVER: Final = float("inf")
_LINGER_SECONDS: Final = 2.0
_PARTING_SECONDS: Final = 2.0  # a retiring worker waits so long for a request that may be on its way
_LOOKED_AT: Final = 16  # of the longest idle connections, to find one that has sent nothing
_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT


class Loop:
    """One worker's connections, and the turn that moves them."""

    def __init__(
        self, server: WSGIServer, settings: Settings, log: ErrorLog, access: AccessLog, row: Row | None, siblings: bool
    ) -> None:
        self.server = server
        self.settings = settings
        self.log = log
        self.access = access
        self.row = row
        self.means = means = means_of(server)
        self.hooks: Hooks = means.hooks
        self.handler_class: type[WSGIRequestHandler] = server.RequestHandlerClass  # type: ignore[assignment]
        self.spool = Spool(settings.spool_dir, settings.max_spool)
        self.memo = FieldMemo(settings)
        self.software = WSGIRequestHandler.server_version
        self.clock = wire.Clock(settings.server_header)
        self.watched = access.enabled or means.notes_by_handler
        self.wsgi = gateway.wsgi_variables(means.errors, *means.concurrency)
        self.threaded = False
        self.pool: Pool | None = None
        self.acceptor = Acceptor(self, ClassicConnection if means.blocking else Connection, siblings)
        self.classic: set[Any] = set()  # sockets that a blocking handler has, perhaps in a thread of its own

        self.heads: Queue[Connection] = Queue(settings.header_timeout)
        self.bodies: Queue[Connection] = Queue(settings.body_timeout)
        self.writes: Queue[Connection] = Queue(settings.write_timeout)
        self.idle: Queue[Connection] = Queue(settings.keep_alive)
        self.lingering: Queue[Connection] = Queue(_LINGER_SECONDS)
        self.parting: Queue[Connection] = Queue(_PARTING_SECONDS)
        self.resting = self.idle  # where a connection waits for its next request
        self._queues = (self.heads, self.bodies, self.writes, self.idle, self.lingering, self.parting)
        self._judge_at = _NEVER
        self._room = _EVENTS  # of the last poll
        self.now = monotonic()

        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._targets: dict[int, Callable[[int], object]] = {}
        self.connections: set[Connection] = set()
        self.ready: deque[Connection] = deque()
        self.done: deque[Connection] = deque()  # answered by an application thread
        self._resume_at = _NEVER  # when accepting is tried again
        self.closing = False  # no connection outlives its next answer
        self._end_at = _NEVER
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.watch(self._wakeup, self._woken)

    # The turn

    def turn(self, limit: float | None = None) -> None:
        """Wait, at most ``limit`` seconds, until something is ready or overdue, and deal with it."""
        events = self._wait(limit)
        polled = self.now = monotonic()
        targets = self._targets
        # Resolved before the first is called: a descriptor closed meanwhile may come back as another connection.
        for target, event in [(targets[fd], event) for fd, event in events if fd in targets]:
            try:
                target(event)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._failed(getattr(target, "__self__", None), error)
        if self.ready:
            self._resume()
        # As of the poll: what has come since then was not read yet, perhaps because an application took its time.
        if polled >= self._judge_at and len(events) < self._room:
            self._judge(polled)

    def _wait(self, limit: float | None) -> list[tuple[int, int]]:
        room, timeout = _EVENTS, 0.0 if self.ready or self.done else limit
        if self._judge_at != _NEVER:
            due = self._judge_at - monotonic()
            if due <= 0:
                due, room = 0.0, len(self._targets) + 1  # nothing that is ready may be left out, or it is judged unread
            if timeout is None or due < timeout:
                timeout = due
        self._room = room
        if timeout != 0 and self.access.enabled:
            events = self._poll(0, room)
            if events:
                return events
            self.access.flush()  # before sleeping, so that the last line is not kept from its reader
        return self._poll(timeout, room)

    def _resume(self) -> None:
        """Serve the next of each connection that has sent several requests at once: one a turn, so that all come on."""
        for _ in range(len(self.ready)):
            connection = self.ready.popleft()
            self.guard(connection, connection.resume)

    def guard(self, connection: Connection, step: Callable[..., object], *args: object) -> None:
        """Do ``step``; a fault in it costs ``connection`` and nothing else."""
        try:
            step(*args)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._failed(connection, error)

    def _failed(self, owner: object, error: BaseException) -> None:
        """A fault outside the application's call: a hook's, or ours.

        What is to end a script, perhaps raised by its signal handler, ends it; no worker ends so.
        """
        if not (isinstance(error, Exception) or self.means.worker):
            if isinstance(owner, Connection):
                owner.close()
            raise error
        if not isinstance(owner, Connection):
            self.log.exception("a fault in the loop", error)
            return
        try:
            self.server.handle_error(owner.sock, owner.peer)
        finally:
            owner.close()

    # Deadlines

    def put(self, queue: Queue[Connection], connection: Connection) -> None:
        """Have ``connection`` judged when ``queue`` says."""
        queue.put(connection, self.now)
        due = self.now + queue.seconds
        if due < self._judge_at:
            self._judge_at = due

    def resume_accepting_after(self, seconds: float) -> None:
        """Try accepting again then, or earlier when a connection closes."""
        self._resume_at = self.now + seconds
        self._judge_at = min(self._judge_at, self._resume_at)

    def _judge(self, now: float) -> None:
        for queue in self._queues:
            for connection in queue.due(now):
                connection.queue = None
                self.guard(connection, connection.overdue)
        if now >= self._resume_at:
            self._resume_at = _NEVER
            self.acceptor.start()
        if now >= self._end_at:
            self._end_at = _NEVER
            self.close_all()
        self._judge_at = min(earliest(self._queues) or _NEVER, self._resume_at, self._end_at)

    # Watching

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever ``fd`` is readable."""
        self.register(fd, _READ, lambda _event: callback())

    def register(self, fd: int, mask: int, target: Callable[[int], object]) -> None:
        """Call ``target(event)`` at the events of ``mask``."""
        self._epoll.register(fd, mask)
        self._targets[fd] = target

    def unwatch(self, fd: int) -> None:
        """Forget a watched descriptor, before it is closed."""
        if self._targets.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watch_reading(self, connection: Connection, target: Callable[[int], object] | None = None) -> None:
        """Call ``target`` (default: ``connection.readable``) whenever there is something to read."""
        self._targets[connection.fd] = target or connection.readable
        self._set_interest(connection, connection.read_mask)

    def watch_writing(self, connection: Connection) -> None:
        """Call ``connection.writable`` whenever the client takes more."""
        self._targets[connection.fd] = connection.writable
        self._set_interest(connection, _WRITE)

    def _set_interest(self, connection: Connection, mask: int) -> None:
        if not connection.interest:
            self._epoll.register(connection.fd, mask)
        elif connection.interest != mask:
            self._epoll.modify(connection.fd, mask)
        connection.interest = mask

    def suspend(self, connection: Connection) -> None:
        """Hear nothing of a connection: before it is closed, or while another thread has it.

        Before the close: a registration lives as long as any process holds the socket (epoll(7)).
        """
        if connection.interest:  # else its number may be another connection's by now
            self._epoll.unregister(connection.fd)
            connection.interest = 0
            self._targets.pop(connection.fd, None)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is about to close its socket."""
        self.suspend(connection)
        self.connections.discard(connection)
        if self.acceptor.paused:
            self.acceptor.start()
        if self.row is not None:
            self.row.words[PARKED] = len(self.idle)

    def close_an_idle_one(self) -> bool:
        """Close one whose answer is out, or the one that has been idle longest; False where there is none."""
        for connection in (*islice(self.lingering, _LOOKED_AT), *islice(self.idle, _LOOKED_AT)):
            waits = connection.state == LINGERING or (connection.state == READING and not connection.queued)
            if waits and not connection.has_more():
                connection.close()
                return True
        return False

    # Calling

    def call(self, connection: Connection) -> None:
        """Have the application called for ``connection``'s request: here, or by a thread of the pool."""
        if self.pool is None:
            connection.serve()
            return
        if connection.queue is not None:
            connection.queue.discard(connection)
            connection.queue = None
        connection.state = CALLING
        self.suspend(connection)
        self.pool.submit(connection)

    def give_back(self, connection: Connection) -> None:
        """From an application thread: ``connection`` is answered."""
        self.done.append(connection)
        self.wake()

    def wake(self) -> None:
        """From any thread: end the wait."""
        os.eventfd_write(self._wakeup, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wakeup)
        self.now = monotonic()
        while self.done:
            connection = self.done.popleft()
            self.guard(connection, connection.answered)

    # Leaving

    def retire(self, grace_seconds: float) -> None:
        """Take what is queued and nothing more; no connection outlives its next answer, none ``grace_seconds``."""
        if self.closing:
            return
        self.closing = True
        self.now = monotonic()
        self.acceptor.drain()
        self._end_at = self.now + grace_seconds
        self._judge_at = min(self._judge_at, self._end_at)
        self.resting = self.parting
        for connection in [*self.idle, *self.heads]:
            if not connection.buffer:
                connection.wait_in(self.parting)

    @property
    def empty(self) -> bool:
        """Whether a retiring worker has nothing left to do."""
        for sock in self.classic.copy():  # a copy: threads take theirs out meanwhile
            if sock.fileno() < 0:
                self.classic.discard(sock)
        return self.closing and not self.connections and not self.classic

    def close_all(self) -> None:
        """Close every connection at once."""
        for connection in list(self.connections):
            if self.pool is not None and connection.state == CALLING:
                self._cut(connection)
            else:
                connection.close()
        for sock in self.classic.copy():
            sock.close()
        self.classic = set()

    def _cut(self, connection: Connection) -> None:
        """End a connection that a thread has: the number of its descriptor must not become another's meanwhile."""
        connection.doomed = True
        self.connections.discard(connection)
        try:
            connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            self.log.debug(f"already gone: {error}")

    def finish(self) -> None:
        """Accept nothing more, let the answers in hand reach their clients, and close what idles."""
        self.acceptor.stop()
        closing, self.closing = self.closing, True
        try:
            while self.connections:
                for connection in list(self.connections):
                    connection.part()
                if self.connections:
                    self.turn()
        finally:
            self.closing = closing

    def close(self) -> None:
        """Give back every descriptor but those of blocking handlers, whose threads close them."""
        self.closing = True
        self.acceptor.drop()
        for connection in list(self.connections):
            connection.close()
        self._epoll.close()
        os.close(self._wakeup)

    def forget(self) -> None:
        """In a child that the application forked: close descriptors, and leave connections to their owner.

        What a blocking handler has stays: the child may be ForkingMixIn's, and there to serve it.
        """
        for listener in self.acceptor.listeners:
            listener.sock.close()
        for connection in self.connections:
            if connection.sock not in self.classic:
                connection.sock.close()
        self.acceptor.listeners = []
        self.connections = set()
        self._epoll.close()
        os.close(self._wakeup)
