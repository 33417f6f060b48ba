"""The epoll turn: what is ready is read, served, sent; what is overdue is judged; then the worker sleeps.

It promises that nothing but the application blocks, that a worker with nothing to do does not wake, and that a fault
costs at most one connection. It refuses to know processes and HTTP.

Source: epoll(7), eventfd(2).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from forkserver.http1 import response as wire
from forkserver.ipc.scoreboard import HELD, PARKED, REQUESTS, UNSENT, Row, Scoreboard
from forkserver.linux.sockets.resets import reset_at_close
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.server.blocking.connection import BlockingConnection
from forkserver.server.blocking.exchange import LINGER_QUIET_SECONDS
from forkserver.server.connection.connection import CALLING, READY, Connection
from forkserver.server.connection.receive_rate import BodyRates
from forkserver.server.connection.timeouts import TimeoutQueue, earliest
from forkserver.server.context import context_of
from forkserver.server.handoff.balancer import PATIENCE, Balancer
from forkserver.server.handoff.queue import Handoff
from forkserver.server.loop.acceptor import Acceptor
from forkserver.server.loop.backlog import CallBacklog
from forkserver.server.loop.poller import Poller
from forkserver.server.pressure.eviction import Eviction
from forkserver.server.pressure.slow_readers import SlowReaders
from forkserver.server.request_handler import WSGIRequestHandler
from forkserver.server.threads.background_driver import BackgroundDriver
from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.threads.request_deadline import RequestDeadline
from forkserver.server.threads.thread_starter import ThreadStarter
from forkserver.server.wsgi.environ import BaseEnviron, wsgi_variables
from forkserver.server.wsgi.overrides import Overrides

if TYPE_CHECKING:
    from forkserver.config.settings import Settings
    from forkserver.server.threads.thread_pool import Pool
    from forkserver.server.wsgi_server import WSGIServer

_EVENTS: Final = 64  # of one poll, while nothing is due
_RESUMED: Final = 16  # connections in one turn that have sent more than their share
_NEVER: Final = float("inf")
_LONGEST: Final = 86400.0  # seconds of one wait; poll(2) counts milliseconds and no further than 24 days
_LINGER_SECONDS: Final = 2.0  # after an answer, until the client closes; after a refusal see blocking.py
_EXPIRED_SECONDS: Final = 1.0  # an interrupted call may unwind so long before its client is answered without it
_PARTING_SECONDS: Final = 1.5  # a retiring worker waits so long for a request that may be on its way
_LATE_SECONDS: Final = 1.0  # a deadline that is seen so late says that nothing was read meanwhile
_PARK_SECONDS: Final = 1.0  # how exact the idle deadline is; a busy connection is not put in order on every request


Call = tuple[Connection, bytes | None, float]  # what a sibling would read to serve it; since when it waits


class Loop(Poller):
    """One worker's connections, and the turn that moves them.

    ``board`` shows which sibling is idle, ``handoff`` leads to them; a loop without them is alone.
    """

    def __init__(
        self,
        server: WSGIServer,
        settings: Settings,
        log: ErrorLog,
        access: AccessLog,
        row: Row | None = None,
        board: Scoreboard | None = None,
        handoff: Handoff | None = None,
    ) -> None:
        super().__init__()
        self.server = server
        self.settings = settings
        self.log = log
        self.access = access
        self.row = row
        self.loop_lock = LoopLock()
        self.context = context = context_of(server)
        self.hooks: Overrides = context.hooks
        self.handler_class: type[WSGIRequestHandler] = server.RequestHandlerClass  # type: ignore[assignment]
        self.spool = context.spool
        self.slow_readers = SlowReaders(self)
        self.spool.relief = self.slow_readers.make_room
        self.head_limits = context.head_limits
        self.trust = context.trust
        self.notices = context.notices
        self.clock = wire.Clock(settings.server_header)
        self.notes_by_handler = context.notes_by_handler
        self.unended = context.unended
        self.watched = access.enabled or self.notes_by_handler
        self.request_deadline = RequestDeadline(row, settings.timeout)
        wsgi = wsgi_variables(context.errors, *context.concurrency)
        self.base_environ = BaseEnviron(WSGIRequestHandler.server_version, wsgi)
        self.base_environ.set("forkserver.extend_deadline", self.request_deadline.extend)
        self.threads = ThreadStarter(log)
        self.pool: Pool | None = None
        self._empty_pool: Pool | None = None  # none of whose threads could be started yet
        self.background_driver: BackgroundDriver | None = None
        self.balancer = Balancer(self, board, handoff) if board is not None and handoff is not None else None
        self.acceptor = Acceptor(self, BlockingConnection if context.blocking else Connection, handoff)
        self.eviction = Eviction(self)
        self.classic: set[Any] = set()  # sockets that a blocking handler has, perhaps in a thread of its own

        self.heads: TimeoutQueue[Connection] = TimeoutQueue(settings.header_timeout)
        self.bodies: BodyRates[Connection] = BodyRates(settings.body_timeout)
        self.writes: TimeoutQueue[Connection] = TimeoutQueue(settings.write_timeout)
        self.idle: TimeoutQueue[Connection] = TimeoutQueue(settings.keep_alive)
        self.lingering: TimeoutQueue[Connection] = TimeoutQueue(_LINGER_SECONDS)
        self.discarding: TimeoutQueue[Connection] = TimeoutQueue(LINGER_QUIET_SECONDS)
        self.parting: TimeoutQueue[Connection] = TimeoutQueue(_PARTING_SECONDS)
        self.expired: TimeoutQueue[Connection] = TimeoutQueue(_EXPIRED_SECONDS)
        self.resting = self.idle  # where a connection waits for its next request
        self.refusing = self.discarding  # where one waits whose request was refused
        self.park_seconds = self._calm_seconds = min(_PARK_SECONDS, self.idle.seconds / 10)
        self._queues = (
            self.heads, self.writes, self.idle, self.lingering, self.discarding, self.parting, self.expired,
            *self.bodies.queues,
        )  # fmt: skip
        self._judge_at = _NEVER
        self._sleeps_until = -1.0  # when the driver wakes; before any time while it is awake
        self._room = _EVENTS  # of the last poll
        self.now = monotonic()
        self.late_seconds = 0.0  # for how long in all nothing was read, because the application kept the interpreter

        self.connections: set[Connection] = set()
        self.calls: deque[Call] = deque()  # requests that are whole and wait for the application
        self.ready: deque[Connection] = deque()  # connections that have sent more than the request in hand
        self._resume_at = _NEVER  # when accepting is tried again
        self.closing = False  # no connection outlives its next answer
        self.retiring = False
        self.forked = False  # this process is a child of the worker, which the application has forked
        self.dozing = False  # the steward is to be roused by the next call
        self.tended = False  # the steward drives
        self._end_at = _NEVER
        self.on_due_for_recycling: Callable[[str], object] | None = None
        self._spent_at = _most_requests(settings)
        self._queue_seconds = settings.queue_timeout or _NEVER
        self._backlog = CallBacklog(self, row, self._queue_seconds)

    # The turn

    def turn(self, limit: float | None = None) -> None:
        """Wait, at most ``limit`` seconds, until something is ready or overdue, and deal with it."""
        events = self._wait(limit)
        self.loop_lock.acquire()
        try:
            self._deal(events)
            if self.calls:
                if self.pool is None:
                    self._call_all()
                else:
                    if self.balancer is not None:
                        self.balancer.relieve_late()
                    self._backlog.look()
            if self._spent_at != _NEVER:
                self._look_whether_spent()
        finally:
            self.loop_lock.release()

    def _wait(self, limit: float | None) -> list[tuple[int, int]]:
        # First, and only then read what there is: who adds to it, or makes the deadline earlier, sees one of both.
        judge_at = self._sleeps_until = self._judge_at
        self._room = room = _EVENTS
        if self.ready or self.calls:
            timeout: float | None = 0.0
            if self.calls and self.pool is not None and not self.ready:
                # Its threads see to them; this one, to those for which none comes free.
                timeout = PATIENCE if self.balancer else self._backlog.seconds_left(limit)
        else:
            timeout = limit
        if judge_at != _NEVER:
            due = judge_at - monotonic()
            if due <= 0:
                # Nothing that is ready may be left out, or it is judged unread.
                due, self._room = 0.0, len(self._targets) + 1
                room = self._room
            if timeout is None or due < timeout:
                timeout = min(_LONGEST, due)
        if self.access.enabled and timeout != 0:
            events = self._poll(0, room)
            if events:
                return events
            self.access.flush()  # before sleeping, so that the last line is not kept from its reader
        return self._poll(timeout, room)

    def _deal(self, events: list[tuple[int, int]]) -> None:
        """Read and send what can be, and judge what is overdue; requests that are whole are put into ``calls``."""
        self._sleeps_until = -1.0
        polled = self.now = monotonic()
        self.base_environ.follow(self.server.base_environ)
        targets = self._targets
        # Resolved before the first is called: a descriptor closed meanwhile may come back as another connection.
        for target, event in [(targets[fd], event) for fd, event in events if fd in targets]:
            try:
                target(event)
            except BaseException as error:
                self._failed(getattr(target, "__self__", None), error)
        if self.ready:
            self._resume()
        # As of the poll: what has come since then was not read yet, perhaps because an application took its time.
        if polled >= self._judge_at and len(events) < self._room:
            self._judge(polled)

    def tend(self) -> float | None:
        """A turn of the steward's: all but accepting and calling. Gives the seconds until it must come again."""
        self.access.flush()  # what was answered before the call in hand, however that ends
        self._room = len(self._targets) + 1
        self._deal(self._poll(0, self._room))
        self._sleeps_until = self._judge_at
        left = min(max(0.0, self._judge_at - self.now), _LONGEST) if self._judge_at != _NEVER else None
        if self.ready:
            return 0.0
        if self.calls and self.balancer is not None:
            self.balancer.hand_off_waiting()
            if self.calls:
                left = PATIENCE if left is None else min(left, PATIENCE)
        self._backlog.look()
        return self._backlog.seconds_left(left)

    def _resume(self) -> None:
        """Go on with what connections have sent beyond their share of a turn: several requests, or many chunks.

        Each has one share, and not all of them in one turn: whoever has sent little comes first.
        """
        for _ in range(min(len(self.ready), _RESUMED)):
            connection = self.ready.popleft()
            self.guard(connection, connection.resume)

    def read_now(self, connection: Connection) -> None:
        """Read what ``connection``, which is watched for reading, has sent so far."""
        self.guard(connection, self._targets[connection.fd], 0)

    def guard(self, connection: Connection, step: Callable[..., object], *args: object) -> None:
        """Do ``step``; a fault in it costs ``connection`` and nothing else."""
        try:
            step(*args)
        except BaseException as error:
            self._failed(connection, error)

    def _failed(self, owner: object, error: BaseException) -> None:
        """A fault outside the application's call: a hook's, or ours.

        What is to end a script, perhaps raised by its signal handler, ends it; no worker ends so.
        """
        if not (isinstance(error, Exception) or self.context.worker):
            if isinstance(owner, Connection):
                owner.close()
            raise error
        if not isinstance(owner, Connection):
            self.log.exception("a fault in the loop", error)
            return
        try:
            self.server.handle_error(owner.sock, owner.peer)
        except Exception as fault:
            if not self.context.worker:
                raise
            self.log.exception("handle_error raised", fault)
        finally:
            owner.close()

    # Deadlines

    def put(self, queue: TimeoutQueue[Connection], connection: Connection) -> None:
        """Have ``connection`` judged when ``queue`` says."""
        queue.put(connection, self.now)
        due = self.now + queue.seconds
        if due < self._judge_at:
            self._look_at(due)

    def put_until(self, queue: TimeoutQueue[Connection], connection: Connection, deadline: float) -> None:
        """Have ``connection`` judged at ``deadline``."""
        queue.put_until(connection, deadline)
        if deadline < self._judge_at:
            self._look_at(deadline)

    def _look_at(self, due: float) -> None:
        self._judge_at = due
        if due < self._sleeps_until:
            self.wake()  # who sleeps is the other thread

    def resume_accepting_after(self, seconds: float) -> None:
        """Try accepting again then, or earlier when a connection closes."""
        self._resume_at = self.now + seconds
        self._judge_at = min(self._judge_at, self._resume_at)

    def _judge(self, now: float) -> None:
        if now - self._judge_at >= _LATE_SECONDS:
            self.late_seconds += now - self._judge_at
        for queue in self._queues:
            for connection in queue.due(now):
                connection.queue = None
                self.guard(connection, connection.expire if queue is self.expired else connection.overdue)
        if now >= self._resume_at:
            self._resume_at = _NEVER
            self.acceptor.start()
        if now >= self._end_at:
            self._end_at = _NEVER
            self._name_what_is_held()
            self.close_all()
        self._judge_at = min(earliest(self._queues) or _NEVER, self._resume_at, self._end_at)

    # Holding

    def enter(self, connection: Connection) -> None:
        """Hold a new connection."""
        self.connections.add(connection)
        if self.row is not None:
            self.row.words[HELD] = len(self.connections)
        # Not in a script, which may have its own signals and threads; and several threads need no steward.
        if self.pool is None:
            if self._empty_pool is not None:
                self._empty_pool.fill()
                self.engage(self._empty_pool)
            elif self.background_driver is None and self.row is not None:
                self.dozing = True

    def note_unsent(self) -> None:
        """Count the clients that have not taken their whole answer, for whoever tells of a death of ours."""
        if self.row is not None:
            self.row.words[UNSENT] = len(self.writes)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is about to close its socket."""
        self.suspend(connection)
        self.connections.discard(connection)
        if self.row is not None:
            words = self.row.words
            words[HELD], words[PARKED], words[UNSENT] = len(self.connections), len(self.idle), len(self.writes)
        if self.acceptor.paused:
            self.acceptor.start()
        if self.retiring and not self.connections:
            self.wake()  # whoever sleeps may leave

    def hurry(self) -> None:
        """Let no connection be parked without a look at what is to become of it."""
        self.park_seconds = -1.0

    def calm_down(self) -> None:
        """Let busy connections be put in order of their deadlines once in a while only."""
        if not self.retiring:
            self.park_seconds = self._calm_seconds

    # Calling

    def call(self, connection: Connection, data: bytes | None) -> None:
        """Have the application called for ``connection``'s request, which is whole.

        ``data`` is what a sibling would have to read for it, None where that is gone.
        """
        connection.state = READY
        self.calls.append((connection, data, self.now))
        if self.pool is not None:
            self.pool.submit()

    def _call_all(self) -> None:
        """Call the application for each request that waited when this turn began; who comes later waits for a turn.

        One long loop, for it runs once a request: a function for each step costs 3 % of a request (CPython 3.11).
        """
        calls, balancer, began = self.calls, self.balancer, self.now
        left, served = len(calls), 0
        while left:
            left -= 1
            if balancer is not None and balancer.slow and len(calls) > 1:
                balancer.relieve_before_call()
            if not calls:
                break  # siblings have them, if need be by the steward
            connection, _, since = calls.popleft()
            if connection.state != READY:
                continue  # it has gone meanwhile
            if self.now - since > self._queue_seconds:
                self.guard(connection, connection.turn_down)
                continue
            served += 1
            try:
                connection.serve()
            except BaseException as error:
                self._failed(connection, error)
            if self.tended:
                self.background_driver.stand_back()  # type: ignore[union-attr]
        if balancer is not None and served:
            balancer.note((self.now - began) / served)

    def call_next(self, thread: int) -> None:
        """In an application thread: call it for the request that has waited longest."""
        connection, _, since = self.calls.popleft()
        if self.balancer is not None:
            self.balancer.show_fewer()
        if connection.state != READY:
            return
        if self.now - since > self._queue_seconds:
            self.guard(connection, connection.turn_down)
        else:
            self.guard(connection, connection.serve, thread)
        self._look_whether_spent()

    def _look_whether_spent(self) -> None:
        if self.row is not None and self.row.words[REQUESTS] >= self._spent_at:
            self._spent()

    def _spent(self) -> None:
        self._spent_at = _NEVER
        if self.on_due_for_recycling is not None and self.row is not None:
            self.on_due_for_recycling(f"it has served {self.row.words[REQUESTS]} requests")

    def allow_one_more(self) -> None:
        """``max_requests`` is about those of clients; this one was our own."""
        self._spent_at += 1

    def rouse_steward(self) -> None:
        """A call begins, and the steward sleeps, or is not there yet."""
        self.dozing = False
        if self.background_driver is not None:
            self.background_driver.rouse()
        elif (row := self.row) is not None:
            without = "the worker serves without its background thread, and hears nothing during a call"
            self.background_driver = self.threads.try_start(lambda: BackgroundDriver(self, row), without, self.now)
            self.dozing = self.background_driver is None  # tried again by a later call

    def engage(self, pool: Pool) -> None:
        """Have ``pool`` call the application; this thread does so itself as long as the pool has no thread."""
        if not len(pool):
            self._empty_pool = pool
            self.request_deadline.enlist(0)
            return
        self.pool, self._empty_pool = pool, None
        for _ in self.calls:
            pool.submit()

    def renew(self) -> None:
        """The call in hand has yielded something."""
        self.request_deadline.renew()

    def expire(self, thread: int, since: int) -> bool:
        """End a call that lasts too long, as far as that can be had, and retire; False where it is over already."""
        row = self.row
        busy = row.busy(thread) if row is not None else None
        if busy is None or busy.since != since:
            return False
        self.now = monotonic()
        for connection in self.connections:
            if connection.state == CALLING and connection.thread == thread:
                connection.wait_in(self.expired)  # what Python cannot interrupt is answered without the application
        self.retire(self.settings.graceful_timeout, handoff=True)
        if self.background_driver is not None:
            self.background_driver.interrupt(since)
        return True

    def wake_other(self) -> None:
        """Let the driver, if it sleeps, see what this thread has left for it."""
        if self._sleeps_until >= 0:
            self.wake()

    # Leaving

    def drain(self) -> None:
        """Go on, but let no connection outlive its next answer: new ones are to go elsewhere."""
        self.closing = True

    def retire(self, grace_seconds: float, handoff: bool) -> None:
        """Take what is queued and nothing more; leave when nothing is held, at the latest after ``grace_seconds``.

        With ``handoff`` siblings get the connections that wait for a request, else they are told to close.
        """
        handoff = handoff and self.balancer is not None
        self.now = monotonic()
        if not self.retiring:
            self.retiring = True
            self.resting = self.parting
            self.hurry()
            self._end_at = self.now + grace_seconds
            for connection in self.connections:
                connection.stop_reading()
                if connection.stays:
                    connection.end_with_answer()
            self._look_at(min(self._judge_at, self._end_at))
            self.acceptor.drain(new_program=not handoff)
            self._resume_at = _NEVER  # what was paused for want of something is over
            if self.balancer is not None and handoff:
                self.balancer.inherit()
            else:
                self._leave_alone()
        elif not handoff and self.balancer is not None and self.balancer.reachable:
            self.acceptor.adopt_all()
            self._leave_alone()
        if not self.connections:
            self.wake()

    def _name_what_is_held(self) -> None:
        from forkserver.server.loop import leftovers  # late: most workers leave in time

        if held := leftovers.named(self.connections, self.row):
            self.log.warning(f"graceful_timeout is over, and what is still held is closed: {held}")

    def _leave_alone(self) -> None:
        """Nobody is there to take what we hold: every answer says close, and who stays idle is let go.

        Nor does a stop wait for what refused clients have yet to send: their answer is out.
        """
        self.closing = True
        for connection in self.connections:
            connection.end_with_answer()
        self.refusing = self.lingering
        for connection in [*self.discarding]:
            connection.wait_in(self.lingering)
        if self.balancer is not None:
            self.balancer.reachable = False
        for connection in [*self.idle, *self.heads]:
            if not connection.buffer:
                connection.wait_in(self.parting)

    def hand_on(self, connection: Connection) -> bool:
        """A retiring worker's connection waits for its next request: let a sibling have it, if one can."""
        return self.balancer is not None and self.balancer.give(connection, connection.buffer)

    @property
    def empty(self) -> bool:
        """Whether a retiring worker has nothing left to do."""
        for sock in self.classic.copy():  # a copy: threads take theirs out meanwhile
            if sock.fileno() < 0:
                self.classic.discard(sock)
        return self.retiring and not self.connections and not self.classic

    def close_all(self) -> None:
        """Close every connection at once; an application that still writes to one learns that it is gone."""
        for connection in list(self.connections):
            connection.cut()
        for sock in self.classic.copy():
            reset_at_close(sock)
            sock.close()
        self.classic = set()

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
        if self.pool is not None:
            self.pool.close()
        self.closing = True
        self.acceptor.drop()
        for connection in list(self.connections):
            connection.cut()
        self.end_watch()
        if self.balancer is not None:
            self.balancer.close()

    def forget(self) -> None:
        """In a child that the application forked: close descriptors, and leave connections to their owner.

        What a blocking handler has stays: the child may be ForkingMixIn's, and there to serve it. A child that returns
        from the application's call finds nothing to do here: requests that wait are the parent's to serve.
        """
        self.forked = True
        self.retiring = self.closing = True
        self.tended = self.dozing = False
        self.row = None  # the memory is shared: whatever happens here has not happened in the worker
        self.watched = False  # the worker tells the access log of the call in hand
        self.calls.clear()
        self.ready.clear()
        self.acceptor.forget()
        for connection in self.connections:
            if connection.sock not in self.classic:
                connection.forget()
        self.connections = set()
        if self.background_driver is not None:
            self.background_driver.forget()
            self.background_driver = None
        self.forget_watch()
        if self.balancer is not None:
            self.balancer.close()


def _most_requests(settings: Settings) -> float:
    """After how many requests a worker is spent; drawn apart for each, so that they do not go together."""
    if not settings.max_requests:
        return _NEVER
    return settings.max_requests + random.randint(0, settings.max_requests_jitter)
