"""A worker's event loop and its parts without sockets: each notes what it was asked for."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

from forkserver import WSGIRequestHandler, WSGIServer
from forkserver.config import settings as table
from forkserver.ipc.scoreboard import Row
from forkserver.logs.error_log import ErrorLog
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.timeouts import Timeouts
from forkserver.server.context import make_context
from forkserver.server.proxy.forwarded_headers import TrustedProxies
from forkserver.server.threads.loop_lock import acquired_lock
from forkserver.server.threads.thread_starter import ThreadStarter
from harness.worker import AccessLines, App, hello

_NUMBERS = count(1 << 20)  # of fake sockets: beyond what any process has open


class FakeClock:
    """Seconds of CLOCK_MONOTONIC, which the test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakePoller:
    """Notes what is watched; a test calls the targets."""

    def __init__(self) -> None:
        self.reading: dict[Any, Callable[[int], object]] = {}
        self.writing: set[Any] = set()
        self.targets: dict[int, Callable[[int], object]] = {}
        self.anew: list[int] = []  # descriptors that went to the end of their queue
        self.woken = 0

    def watch_reading(self, connection: Any, target: Callable[[int], object] | None = None) -> None:
        self.writing.discard(connection)
        self.reading[connection] = target or connection.readable
        connection.interest = connection.read_mask

    def watch_writing(self, connection: Any) -> None:
        self.reading.pop(connection, None)
        self.writing.add(connection)
        connection.interest = 4  # EPOLLOUT

    def suspend(self, connection: Any) -> None:
        self.reading.pop(connection, None)
        self.writing.discard(connection)
        connection.interest = 0

    def register(self, fd: int, mask: int, target: Callable[[int], object]) -> None:
        assert fd not in self.targets, "epoll_ctl(2) would say EEXIST"
        self.targets[fd] = target

    def unwatch(self, fd: int) -> None:
        self.targets.pop(fd, None)

    def register_anew(self, fd: int, mask: int) -> None:
        self.anew.append(fd)

    def wake(self) -> None:
        self.woken += 1


class FakeSocket:
    """A connected, non-blocking stream socket: its client has sent ``incoming``, and takes ``room`` bytes."""

    family = socket.AF_INET

    def __init__(self, incoming: bytes = b"", room: int = 1 << 30) -> None:
        self._number = next(_NUMBERS)
        self.incoming = bytearray(incoming)
        self.ended = False  # the client sends nothing more
        self.failed = False  # the client has gone
        self.room = room
        self.sent = bytearray()
        self.sends = 0  # calls that have sent something
        self.shut: list[int] = []
        self.closed = False
        self.timeout: float | None = 0.0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self._check()
        if not self.incoming and not self.ended:
            raise BlockingIOError
        data = bytes(self.incoming[:size])
        if not flags & socket.MSG_PEEK:
            del self.incoming[: len(data)]
        return data

    def send(self, data: Any) -> int:
        return self.sendmsg((data,))

    def sendmsg(self, buffers: Iterable[Any]) -> int:
        self._check()
        data = b"".join(buffers)[: self.room]
        if not data and self.room <= 0:
            raise BlockingIOError
        self.room -= len(data)
        self.sent += data
        self.sends += 1
        return len(data)

    def shutdown(self, how: int) -> None:
        self._check()
        self.shut.append(how)

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1 if self.closed else self._number

    def detach(self) -> int:
        return self._number

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, value: float | None) -> None:
        self.timeout = value

    def _check(self) -> None:
        if self.failed or self.closed:
            raise ConnectionResetError


class FakeServer(WSGIServer):
    """A server object without a listener."""

    def __init__(self, app: App, handler: Any) -> None:
        self.application = app
        self.RequestHandlerClass = handler
        self.socket: Any = None
        self.base_environ = {"SERVER_NAME": "a", "SERVER_PORT": "80", "SCRIPT_NAME": ""}
        self.turned_away: list[Any] = []
        self.faults: list[Any] = []
        self.processed: list[Any] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.faults.append(request)


class FakeListener:
    """The listener that has accepted a connection."""

    number = 1
    unix = False
    names: tuple[str, str] | None = None
    tls: Any = None
    allowed: Any = None


class FakeLoop:
    """A loop of a worker, moved by the test. It makes connections of ``connection_class`` on fake sockets."""

    def __init__(
        self, app: App = hello, handler: Any = WSGIRequestHandler, server_class: Any = FakeServer, **settings: Any
    ) -> None:
        self.clock = FakeClock()
        self.row = Row(memoryview(bytearray(4096)), 0, 2)
        self.access = AccessLines()
        self.log = ErrorLog("-", "info", "worker=1 gen=1")
        self.server = server_class(app, handler)
        access: Any = self.access
        known = table.defaults(**settings)
        trust = TrustedProxies(known.forwarded_allow_ips, known.forwarded_fields)
        self.context = make_context(self.server, known, self.log, access, worker=True, trust=trust, row=self.row)
        self.context.base_environ.follow(self.server.base_environ)
        self.timeouts = Timeouts(self.context.settings, self.clock)
        self.poller = FakePoller()
        self.loop_lock = acquired_lock()
        self.plain: Any = None  # the sockets are fakes, and the extension wants the kernel's
        self.threads = ThreadStarter(self.log)
        self.connections: set[Any] = set()
        self.handler_sockets: set[Any] = set()
        self.ready: deque[Any] = deque()
        self.watched = True
        self.closing = self.retiring = self.dozing = self.tended = self.forked = False
        self.roused = 0
        self.left: list[Any] = []
        self.resumes_after: list[float] = []
        self.handed_on: list[Any] = []
        self.takes_handed_on = False  # whether a sibling takes what is handed on
        # Calls, and what makes room:
        self.threaded = False
        self.submitted: deque[tuple[Any, bytes | None, float]] = deque()
        self.no_spool_room: str | None = None
        self.waiting: set[Any] = set()
        self.yields = False  # whether a call that waits for its client must yield to others
        self.calls = self.eviction = self.slow_readers = self

    def connect(
        self,
        data: bytes = b"",
        room: int = 1 << 30,
        connection_class: Any = Connection,
        sock: Any = None,
        listener: Any = None,
    ) -> Any:
        """The connection of a client that has sent ``data``, and takes ``room`` bytes; it was read once."""
        sock = sock or FakeSocket(data, room)
        made = connection_class(self, sock, ("192.0.2.7", 4711), listener or FakeListener())
        self.connections.add(made)
        self.poller.watch_reading(made)
        made.readable()
        if made.queue is None and made in self.connections:
            made.wait_in(self.timeouts.heads)
        return made

    def send(self, connection: Any, data: bytes) -> None:
        """The client of ``connection`` sends ``data``, which is read where the loop watches for it."""
        connection.sock.incoming += data
        if target := self.poller.reading.get(connection):
            target(1)

    def serve(self) -> None:
        """Call the application for each request that waits."""
        while self.submitted:
            self.submitted.popleft()[0].serve()

    def resume(self) -> None:
        """Another turn for what was read beyond a share."""
        for _ in range(len(self.ready)):
            self.ready.popleft().resume()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and expire what is overdue."""
        self.clock.now += seconds
        self.timeouts.now = self.clock.now
        for queue in self.timeouts.queues:
            for connection in queue.due(self.clock.now):
                connection.queue = None
                (connection.expire if queue is self.timeouts.expired else connection.overdue)()

    # As the loop

    def enter(self, connection: Any) -> None:
        self.connections.add(connection)

    def resume_accepting_after(self, seconds: float) -> None:
        self.resumes_after.append(seconds)

    def wait_writable(self, fd: int, seconds: float) -> bool:
        self.clock.now += seconds
        return False

    def rouse_driver(self) -> None:
        self.roused += 1

    def resume_later(self, connection: Any) -> None:
        self.ready.append(connection)

    def note_unsent(self) -> None:
        """The scoreboard is not looked at."""

    note_closable = note_unsent

    def hand_on(self, connection: Any) -> bool:
        if self.takes_handed_on:
            self.handed_on.append(connection)
            connection.close()
        return self.takes_handed_on

    def leave(self, connection: Any) -> None:
        self.poller.suspend(connection)
        self.connections.discard(connection)
        self.left.append(connection)

    def guard(self, connection: Any, step: Callable[..., object], *args: object) -> None:
        step(*args)

    # As its parts

    def in_hook(self, name: bytes) -> AbstractContextManager[None]:
        return self.row.hook(b"hook " + name, self.row.loop)

    def submit(self, connection: Any, data: bytes | None) -> None:
        self.submitted.append((connection, data, self.timeouts.now))

    def backdate(self, connection: Any, since: float) -> None:
        last, data, _ = self.submitted.pop()
        assert last is connection
        self.submitted.append((last, data, since))

    def make_spool_room(self, upload: Any, length: int) -> str | None:
        return self.no_spool_room

    def must_yield(self, connection: Any, size: int) -> bool:
        return self.yields
