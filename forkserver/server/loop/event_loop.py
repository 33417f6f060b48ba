"""The event loop of a worker: wait for what is ready, read and send, expire timeouts, call the application.

One turn polls once, calls the target of each ready descriptor, goes on with what was read earlier, and then expires
deadlines, as of the time of the poll: what has arrived since then was not read yet, perhaps because the application
took its time. Nothing but the application blocks, and a worker with nothing to do does not wake. A fault costs at most
one connection. While the application keeps the main thread in a long call, the background driver turns the loop
(``tend``). Source: epoll(7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from forkserver.ipc.scoreboard import OPEN, PARKED, UNSENT, Row, Scoreboard
from forkserver.linux.syscalls import monotonic
from forkserver.server.blocking.connection import BlockingConnection
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.plain_exchange import make_context
from forkserver.server.connection.states import CALLING, READY
from forkserver.server.connection.timeouts import NEVER, Timeouts
from forkserver.server.connection.transport import wait_writable
from forkserver.server.context import ServerContext
from forkserver.server.handoff.balancer import RETRY_SECONDS, Balancer
from forkserver.server.handoff.queue import Handoff
from forkserver.server.loop.acceptor import Acceptor
from forkserver.server.loop.backlog import CallBacklog
from forkserver.server.loop.call_queue import CallQueue
from forkserver.server.loop.poller import Poller
from forkserver.server.loop.retirement import Retirement
from forkserver.server.pressure.eviction import Eviction
from forkserver.server.pressure.slow_readers import SlowReaders
from forkserver.server.threads.background_driver import BackgroundDriver
from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.threads.thread_starter import ThreadStarter

_EVENTS: Final = 64  # of one poll, while nothing is due
_RESUMED: Final = 16  # connections in one turn that have sent more than their share
_LONGEST: Final = 86400.0  # seconds of one wait; poll(2) counts milliseconds and no further than 24 days


class EventLoop:
    """One worker's connections, and the turn that moves them.

    ``board`` shows which sibling is idle, ``handoff`` leads to them; a loop without them is alone. ``clock`` gives
    seconds of CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        context: ServerContext,
        row: Row | None = None,
        board: Scoreboard | None = None,
        handoff: Handoff | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.context = context
        self.log = context.log
        settings = context.settings
        self.row = row
        self.loop_lock = LoopLock()
        self.poller = Poller()
        self.wake, self.fileno = self.poller.wake, self.poller.fileno
        self.wait_writable = wait_writable
        self.timeouts = Timeouts(settings, clock, self.wake)
        self.watched = context.access.enabled or context.notes_by_handler
        self.connections: set[Connection] = set()
        self.handler_sockets: set[Any] = set()  # that a blocking handler has, perhaps in a thread of its own
        self.ready: deque[Connection] = deque()  # connections that have sent more than the request in hand
        self.closing = False  # no connection outlives its next answer
        self.retiring = False
        self.forked = False  # this process is a child of the worker, which the application has forked
        self.dozing = False  # the background driver is to be woken by the next call
        self.tended = False  # the background driver turns the loop
        self.background_driver: BackgroundDriver | None = None
        self.threads = ThreadStarter(context.log)
        self.calls = CallQueue(self, settings)
        self.balancer: Balancer | None = None
        if board is not None and handoff is not None:
            self.balancer = Balancer(self.poller, self.timeouts, self.calls.waiting, board, handoff, row)
        self.eviction = Eviction(self, context.notices)
        self.slow_readers = SlowReaders(self.timeouts, context.spool, context.notices, self._others_wait)
        context.spool.relief = self.slow_readers.make_room
        self.plain = make_context(self, Connection)
        self.acceptor = Acceptor(self, BlockingConnection if context.blocking else Connection, handoff)
        self.clients_wait = self.acceptor.clients_wait
        self.retirement = Retirement(self, self.acceptor)
        self._backlog = CallBacklog(self)
        self._resume_at = NEVER  # when accepting is tried again
        self._room = _EVENTS  # of the last poll
        self._parked = 0  # connections that the scoreboard shows as parked

    # The turn

    def turn(self, limit: float | None = None) -> None:
        """Wait, at most ``limit`` seconds, until something is ready or overdue, and do what is to be done."""
        events = self._wait(limit)
        self.loop_lock.taken  # noqa: B018
        try:
            self._handle(events)
            if self.calls.pool is not None:
                self._backlog.attend(self.calls.pool)
            elif self.calls.waiting:
                self.calls.call_all()
        finally:
            self.loop_lock.release()

    def _wait(self, limit: float | None) -> list[tuple[int, int]]:
        # First, then look: a thread that adds to what is there, or makes the deadline earlier, sees this or is seen.
        next_at = self.timeouts.sleeps_until = self.timeouts.next_at
        self._room = room = _EVENTS
        waiting = self.calls.waiting
        if self.ready or waiting:
            timeout: float | None = 0.0
            if waiting and self.calls.pool is not None and not self.ready:
                # Its threads serve them; this one, those for which none comes free.
                timeout = RETRY_SECONDS if self.balancer else self._backlog.seconds_left(limit)
        else:
            timeout = limit
        if next_at != NEVER:
            due = next_at - self.timeouts.clock()
            if due <= 0:
                # Nothing that is ready may be left out, or it expires unread.
                due, self._room = 0.0, len(self.poller.targets) + 1
                room = self._room
            if timeout is None or due < timeout:
                timeout = min(_LONGEST, due)
        access = self.context.access
        if access.enabled and timeout != 0:
            if events := self.poller.poll(0, room):
                return events
            access.flush()  # before sleeping, so that the last line is not kept from its reader
        if self.row is not None and self._parked != (parked := len(self.timeouts.idle)):
            self.row.words[PARKED] = self._parked = parked
        return self.poller.poll(timeout, room)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        """Read and send what can be, and expire what is overdue; requests that are whole are put into ``calls``."""
        timeouts, targets = self.timeouts, self.poller.targets
        timeouts.sleeps_until = -1.0
        polled = timeouts.now = timeouts.clock()
        self.context.base_environ.follow(self.context.server.base_environ)
        if self.plain is None:  # looked up before the first is called: a number may come back as another connection's
            ready = [(targets[fd], event) for fd, event in events if fd in targets]
        else:
            waiting = self.calls.waiting if self.calls.pool is None else None
            ready = self.plain.receive_all(events, targets, waiting, polled)
        for target, event in ready:
            try:
                target(event)
            except BaseException as error:
                self.handle_fault(getattr(target, "__self__", None), error)
        if self.ready:
            self._resume()
        if polled >= timeouts.next_at and len(events) < self._room:
            self._expire(polled)

    def tend(self) -> float | None:
        """A turn of the background driver's: all but accepting and calling; seconds until the next one is needed."""
        timeouts = self.timeouts
        self.context.access.flush()  # what was answered before the call in hand, however that ends
        self._room = len(self.poller.targets) + 1
        self._handle(self.poller.poll(0, self._room))
        next_at = timeouts.sleeps_until = timeouts.next_at
        left = min(max(0.0, next_at - timeouts.now), _LONGEST) if next_at != NEVER else None
        if self.ready:
            return 0.0
        if self.balancer is not None and not self.balancer.hand_off_all():
            left = RETRY_SECONDS if left is None else min(left, RETRY_SECONDS)
        if self.calls.seconds != NEVER:
            left = self.acceptor.adopt_overdue(self.calls.seconds, left)
        self._backlog.look()
        return self._backlog.seconds_left(left)

    def _resume(self) -> None:
        """Go on with what connections have sent beyond their share of a turn: several requests, or many chunks.

        Each has one share, and not all of them in one turn: clients that have sent little come first.
        """
        for _ in range(min(len(self.ready), _RESUMED)):
            connection = self.ready.popleft()
            self.guard(connection, connection.resume)

    def _expire(self, now: float) -> None:
        timeouts = self.timeouts
        timeouts.note_late(now)
        for queue in timeouts.queues:
            for connection in queue.due(now):
                connection.queue = None
                self.guard(connection, connection.expire if queue is timeouts.expired else connection.overdue)
        if now >= self._resume_at:
            self._resume_at = NEVER
            self.acceptor.start()
        self.retirement.end_if_due(now)
        timeouts.reckon(self._resume_at, self.retirement.end_at)

    # Faults

    def guard(self, connection: Connection, step: Callable[..., object], *args: object) -> None:
        """Do ``step``; a fault in it costs ``connection`` and nothing else."""
        try:
            step(*args)
        except BaseException as error:
            self.handle_fault(connection, error)

    def handle_fault(self, owner: object, error: BaseException) -> None:
        """A fault outside the application's call, in a hook or in this package, has cost the connection ``owner``.

        What is to end a script, perhaps raised by its signal handler, ends it; no worker ends so.
        """
        context = self.context
        if not (isinstance(error, Exception) or context.worker):
            if isinstance(owner, Connection):
                owner.close()
            raise error
        if not isinstance(owner, Connection):
            context.log.exception("a fault in the loop", error)
            return
        try:
            with self.calls.in_hook(b"handle_error"):
                context.server.handle_error(owner.sock, owner.peer)
        except BaseException as fault:  # it may be the application's, and this thread one that is not to end
            if not context.worker:
                raise
            context.log.exception("handle_error raised", fault)
        finally:
            owner.close()

    # Connections

    def enter(self, connection: Connection) -> None:
        """Keep a new connection."""
        self.connections.add(connection)
        if self.row is not None:
            self.row.words[OPEN] = len(self.connections)
        # Not in a script, which may have its own signals and threads; and several threads need no background driver.
        pooled = self.calls.pool is not None or (self.calls.empty_pool is not None and self.calls.fill_pool())
        if not pooled and self.background_driver is None:
            self.dozing = self.row is not None

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is about to close its socket."""
        self.connections.discard(connection)
        if connection.interest:
            self.poller.suspend(connection)
        if self.row is not None:
            (words := self.row.words)[OPEN] = len(self.connections)
            if words[UNSENT]:
                words[UNSENT] = len(self.timeouts.answers)
        if self.acceptor.paused:
            self.acceptor.start()
        if self.retiring and not self.connections:
            self.wake()  # the thread that sleeps may end

    def note_unsent(self) -> None:
        """Count the clients that have not taken their whole answer: the master reports it when a worker dies."""
        if self.row is not None:
            self.row.words[UNSENT] = len(self.timeouts.answers)

    def note_closable(self) -> None:
        """There is a connection that can be closed to make room: accept again where that was wanting."""
        if self.acceptor.crowded:
            self.acceptor.start()

    def resume_later(self, connection: Connection) -> None:
        """Call ``connection.resume`` in the next turn."""
        self.ready.append(connection)
        if self.timeouts.sleeps_until >= 0:  # the loop sleeps in another thread
            self.wake()

    def read_now(self, connection: Connection) -> None:
        """Read what ``connection``, which is watched for reading, has sent so far."""
        self.guard(connection, self.poller.targets[connection.fd], 0)

    def resume_accepting_after(self, seconds: float) -> None:
        """Try accepting again then, or earlier when a connection closes."""
        self._resume_at = self.timeouts.now + seconds
        self.timeouts.next_at = min(self.timeouts.next_at, self._resume_at)

    def _others_wait(self, since: float) -> bool:
        """Whether a request waits for a thread of this worker, in vain since ``since``."""
        if not self.context.worker:
            return False
        if any(each.state is READY and each.whole_at <= since for each, _ in self.calls.waiting):
            return True
        if self.calls.pool is not None or (self.balancer is not None and self.balancer.idle()):
            return False
        return self.acceptor.clients_wait()  # nothing is accepted while the only thread is in a call

    # The background driver

    def rouse_driver(self) -> None:
        """A call begins, and the background driver sleeps, or was not started yet."""
        self.dozing = False
        if self.background_driver is not None:
            self.background_driver.rouse()
        elif (row := self.row) is not None:
            without = "the worker serves without its background thread, and hears nothing during a call"
            self.background_driver = self.threads.try_start(
                lambda: BackgroundDriver(self, row), without, self.timeouts.now
            )
            self.dozing = self.background_driver is None  # tried again by a later call

    def begin_tending(self) -> None:
        """The background driver turns the loop. Nothing is accepted meanwhile: it would wait for the call."""
        self.acceptor.hold()
        self.tended = True

    def end_tending(self) -> None:
        """The call is over during which the background driver turned the loop."""
        self.tended = False
        self.acceptor.let_go()
        if self.background_driver is not None:
            self.background_driver.stand_back()

    def expire(self, thread: int, since: int) -> bool:
        """End a call that lasts too long, as far as that can be had, and retire; False where it is over already."""
        row, timeouts = self.row, self.timeouts
        busy = row.busy(thread) if row is not None else None
        if busy is None or busy.since != since:
            return False
        timeouts.now = timeouts.clock()
        for connection in self.connections:
            if connection.state is CALLING and connection.thread == thread:
                connection.wait_in(timeouts.expired)  # what Python cannot interrupt is answered without the application
        self.retire(self.context.settings.graceful_timeout, handoff=True)
        if self.background_driver is not None:
            self.background_driver.interrupt(since)
        return True

    # Leaving

    def drain(self) -> None:
        """Go on, but let no connection outlive its next answer: new ones are to go elsewhere."""
        self.closing = True

    def retire(self, grace_seconds: float, handoff: bool) -> None:
        """Take what is queued and nothing more; leave when no connection is left, at the latest after the grace.

        With ``handoff`` siblings get the connections that wait for a request, else they are closed.
        """
        self.retirement.begin(grace_seconds, handoff)

    def hand_on(self, connection: Connection) -> bool:
        """A retiring worker's connection waits for its next request: let a sibling have it, if one can."""
        return self.balancer is not None and self.balancer.give(connection, connection.buffer)

    def finish(self) -> None:
        """In a script: accept nothing more, let the answers in hand reach their clients, and close what idles."""
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
        if self.background_driver is not None:
            self.background_driver.close()
        self.calls.close()
        self.closing = True
        self.acceptor.drop()
        for connection in list(self.connections):
            connection.cut()
        self.poller.close()
        if self.balancer is not None:
            self.balancer.close()

    def forget(self) -> None:
        """In a child that the application forked: close descriptors, and leave connections to their owner.

        What a blocking handler has stays: the child may be ForkingMixIn's, and there to serve it. A child that returns
        from the application's call finds nothing to do here: requests that wait are the parent's to serve.
        """
        self.forked = self.retiring = self.closing = True
        self.tended = self.dozing = False
        self.row = None  # the memory is shared: what happens here has not happened in the worker
        self.watched = False  # the worker tells the access log of the call in hand
        if self.plain is not None:
            self.plain.forget()
        self.calls.waiting.clear()
        self.ready.clear()
        self.acceptor.forget()
        for connection in self.connections:
            if not (self.handler_sockets and connection.sock in self.handler_sockets):
                connection.forget()
        self.connections = set()
        if self.background_driver is not None:
            self.background_driver.forget()
            self.background_driver = None
        self.poller.forget()
        if self.balancer is not None:
            self.balancer.forget()
