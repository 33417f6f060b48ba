"""Requests that are whole and wait for the application, and the calls that serve them, the oldest first.

With one thread the loop calls the application between two polls (``call_all``): a request that arrives meanwhile waits
for the next turn. With ``--threads N`` the threads of a pool do (``call_next``). A request that has waited longer than
``queue_timeout`` is answered 503. Where calls are slow, idle siblings get the requests that wait (``balancer.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING

from forkserver.http1.request import RequestHead
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.states import CALLING, CLOSED, READY
from forkserver.server.connection.timeouts import NEVER
from forkserver.server.loop.protocols import WorkerLoop
from forkserver.server.loop.recycling import Recycling

if TYPE_CHECKING:
    from forkserver.config.settings import Settings
    from forkserver.server.threads.thread_pool import Pool

Call = tuple[Connection, bytes | None]  # what a sibling would read to serve it; ``whole_at`` is since when it waits


class CallQueue:
    """The calls of ``loop`` that wait (``waiting``)."""

    def __init__(self, loop: WorkerLoop, settings: Settings) -> None:
        self._loop = loop
        self.waiting: deque[Call] = deque()
        self.pool: Pool | None = None
        self.empty_pool: Pool | None = None  # none of whose threads could be started yet
        self.seconds = settings.queue_timeout or NEVER
        self.recycling = Recycling(settings)

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def threaded(self) -> bool:
        """Whether application threads serve, beside the thread of the loop."""
        return self.pool is not None

    @property
    def next_look(self) -> float:
        """When the pool looks for threads that have ended, while requests wait; NEVER without one."""
        return self.pool.look_at if self.pool is not None else NEVER

    def submit(self, connection: Connection, data: bytes | None) -> None:
        """Call the application for the request of ``connection``, which is whole.

        ``data`` is what a sibling would have to read for it, None where that is gone.
        """
        connection.whole_at = self._loop.timeouts.now
        self.waiting.append((connection, data))
        if connection.backlog_seconds:
            self._count_backlog(connection)
        if self.pool is not None:
            self.pool.submit()

    def _count_backlog(self, connection: Connection) -> None:
        """The request of ``connection``, which was submitted last, has waited before the connection was accepted."""
        seconds, connection.backlog_seconds = connection.backlog_seconds, 0.0
        self.backdate(connection, connection.whole_at - seconds)
        if (head := connection.head) is not None and not isinstance(head, RequestHead):
            head.whole_since -= round(seconds * 1e9)

    def backdate(self, connection: Connection, since: float) -> None:
        """The request of ``connection``, which was submitted last, is whole ``since`` then: in another worker."""
        waiting = self.waiting
        call = waiting.pop()
        assert call[0] is connection
        connection.whole_at = min(since, connection.whole_at)
        at = len(waiting)
        while at and waiting[at - 1][0].whole_at > connection.whole_at:
            at -= 1
        waiting.insert(at, call)

    def call_all(self) -> None:
        """Call the application for each request that waited when this turn began."""
        loop, waiting, timeouts = self._loop, self.waiting, self._loop.timeouts
        balancer, plain, server = loop.balancer, loop.plain, loop.context.server
        began, served = timeouts.now, 0
        for _ in range(len(waiting)):
            if balancer is not None and balancer.slow and len(waiting) > 1:
                balancer.hand_off_others()
            if not waiting:
                break  # siblings have them, if need be by the background driver
            connection, _ = waiting.popleft()
            if connection.state is not READY:
                continue  # it has gone meanwhile
            if timeouts.now - connection.whole_at > self.seconds:
                loop.guard(connection, connection.turn_down)
                continue
            served += 1
            try:
                if plain is None or not plain.serve(connection, server.application, 0):
                    connection.serve()
            except BaseException as error:
                loop.handle_fault(connection, error)
            if loop.tended:
                loop.end_tending()
        if served:
            if balancer is not None:
                balancer.note((timeouts.now - began) / served)
            self.recycling.check(loop.row)

    def serve_next(self, thread: int) -> bool:
        """In application ``thread``: serve the request that has waited longest; whether to go on with the next."""
        loop = self._loop
        loop.loop_lock.taken  # noqa: B018
        try:
            if self.waiting:
                self._call_next(thread)
        finally:
            loop.loop_lock.release()
        return not loop.forked  # else it has come back from a call in a child of the worker's, and is all there is

    def recover(self, thread: int, error: BaseException) -> bool:
        """``error`` has come in application ``thread`` outside its calls; whether to go on with the next request.

        It may have come at any step: the loop lock may be taken, and a request be out of the queue that is not served.
        """
        loop = self._loop
        loop.loop_lock.let_go()
        loop.context.notices.came_outside(thread, error)
        loop.loop_lock.taken  # noqa: B018
        try:
            self._end_call_of(thread)
            waiting = {connection for connection, _ in self.waiting}
            for connection in loop.connections - waiting:
                loop.guard(connection, self._recover, connection, thread)
            if loop.acceptor.paused:
                loop.acceptor.start()
        finally:
            loop.loop_lock.release()
        return not loop.forked

    def _recover(self, connection: Connection, thread: int) -> None:
        """Have ``connection``, which is not in the queue, go on where an exception has broken off what moved it."""
        if connection.state is READY:
            self.waiting.append((connection, None))
            if self.pool is not None:
                self.pool.wake_one()
        elif connection.state is CLOSED:  # not to its end
            self._loop.leave(connection)
            connection.close()
        elif (connection.state is CALLING and connection.thread == thread) or connection.stranded:
            connection.cut()

    def _end_call_of(self, thread: int) -> None:
        """The call that the scoreboard shows for ``thread`` is over."""
        if (row := self._loop.row) is not None and row.busy(thread) is not None:
            row.end(thread)

    def _call_next(self, thread: int) -> None:
        loop = self._loop
        connection, _ = self.waiting.popleft()
        if loop.balancer is not None:
            loop.balancer.show_fewer()
        if connection.state is not READY:
            return
        if loop.timeouts.now - connection.whole_at > self.seconds:
            loop.guard(connection, connection.turn_down)
        else:
            plain = loop.plain
            try:
                if plain is None or not plain.serve(connection, loop.context.server.application, thread):
                    connection.serve(thread)
            except BaseException as error:
                loop.handle_fault(connection, error)
                self._end_call_of(thread)
        self.recycling.check(loop.row)

    def in_hook(self, name: bytes) -> AbstractContextManager[None]:
        """Around a hook of the application's classes that the loop calls itself: ``timeout`` bounds it as a request.

        With the loop lock, so that there is one at a time, whichever thread turns the loop.
        """
        row = self._loop.row
        return nullcontext() if row is None else row.hook(b"hook " + name, row.loop)

    def call_hook(self, hook: Callable[[], object], name: bytes) -> None:
        """Call a ``hook`` of the server's class between two turns, without the loop lock."""
        with ExitStack() as shown:
            self._loop.loop_lock.taken  # noqa: B018
            try:
                shown.enter_context(self.in_hook(name))
            finally:
                self._loop.loop_lock.release()
            hook()

    def turn_down_late(self) -> None:
        """Answer what has waited longer than queue_timeout; start threads that are missing."""
        if self.pool is not None:
            self.pool.fill()
        loop, waiting = self._loop, self.waiting
        while waiting:
            connection, _ = waiting[0]
            if connection.state is READY and loop.timeouts.now - connection.whole_at <= self.seconds:
                return
            waiting.popleft()
            if connection.state is READY:
                loop.guard(connection, connection.turn_down)

    # Threads

    def engage(self, pool: Pool) -> None:
        """Have ``pool`` call the application; the loop does so itself as long as the pool has no thread."""
        if not len(pool):
            self.empty_pool = pool
            self._loop.context.request_deadline.enlist(0)
            return
        self.pool, self.empty_pool = pool, None
        for _ in self.waiting:
            pool.submit()

    def fill_pool(self) -> bool:
        """Start threads for a pool that has none, if they are to be had now; whether there is such a pool."""
        if self.empty_pool is None:
            return False
        self.empty_pool.fill()
        self.engage(self.empty_pool)
        return True

    def close(self) -> None:
        """End the threads, after the calls in hand."""
        if self.pool is not None:
            self.pool.close()
