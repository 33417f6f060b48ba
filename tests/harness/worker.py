"""A worker's server in the process of the test, moved turn by turn: no process, no thread, and the test's clock."""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import termios
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from forkserver import WSGIRequestHandler, WSGIServer
from forkserver.config import settings as table
from forkserver.ipc.scoreboard import SERVING, STATE, Scoreboard
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.plain_exchange import make_context
from harness import BOUND

_SOON = 0.03  # seconds; it bounds waiting for what must not come, too
BOARD = Scoreboard(4)  # lives as long as the master, here as long as the tests
BOARD_OF_TWO = Scoreboard(4, threads=2)  # the same for workers with two application threads
App = Callable[[dict[str, Any], Callable[..., Any]], Any]


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answers with what was asked: method, path and the length of the body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {len(body)}".encode()]


class Slow:
    """An application whose ``/slow`` does what the test says, and whose ``/big`` answers with eight megabytes."""

    def __init__(self) -> None:
        self.during: Callable[[dict[str, Any]], Any] = lambda _environ: None
        self.caught: BaseException | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        body = b"quick"
        if environ["PATH_INFO"] == "/slow":
            try:
                body = self.during(environ) or b"slow"
            except BaseException as error:
                self.caught = error
                raise
        elif environ["PATH_INFO"] == "/big":
            body = b"x" * 8_000_000
        elif environ["REQUEST_METHOD"] == "POST":
            body = b"%d" % len(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return body if not isinstance(body, bytes) else [body]


class AccessLines(list[tuple[Any, ...]]):
    """An access log that keeps the fields of each line."""

    enabled = plain = True
    named = parts = ()

    def add(self, *fields: Any) -> None:
        self.append(fields)

    def flush(self) -> None:
        """There is no file."""


class Clock:
    """CLOCK_MONOTONIC, as far as the server sees it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait_writable(self, fd: int, seconds: float) -> bool:
        """In place of the loop's: a client that takes nothing soon takes nothing for ``seconds``."""
        writable = bool(select.select([], [fd], [], _SOON)[1])
        if not writable:
            self.now += seconds
        return writable


class Worker:
    """A server on a listener of its own, and its clients."""

    def __init__(
        self,
        app: App,
        clock: Clock,
        number: int = 0,
        queue: tuple[int, int] | None = None,
        handler: Any = WSGIRequestHandler,
        tls: ssl.SSLContext | None = None,
        listener: socket.socket | None = None,
        **changes: Any,
    ) -> None:
        self.clock = clock
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1", self.listener.getsockname()[1]
        board = BOARD_OF_TWO if changes.get("threads") == 2 else BOARD
        self.row = board[number]
        self.row.clear()
        self.row.words[STATE] = SERVING
        self.httpd = WSGIServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        log, access = ErrorLog("-", "info", "worker=1 gen=1"), AccessLog(None)
        given, settings = [(number + 1, self.listener)], table.defaults(**changes)
        self.httpd.adopt(given, queue, settings, log, access, self.row, board, tls, clock)
        self.httpd.set_app(app)
        self.httpd.open()
        self.loop = self.httpd._ready_loop()
        self.loop.wait_writable = clock.wait_writable
        self._clients: list[socket.socket] = []

    def replace(self, **parts: Any) -> None:
        """Put fakes in the place of parts of the context, which does not change otherwise."""
        for name, part in parts.items():
            object.__setattr__(self.loop.context, name, part)
        self.loop.watched = self.loop.watched or "access" in parts
        self.loop.plain = self.loop.plain and make_context(self.loop, Connection)

    def _settle(self, *others: socket.socket) -> bool:
        """Whether something is ready, or becomes so soon: on a busy machine even loopback takes its time."""
        return bool(
            self.loop.ready or self.loop.calls or select.select([self.loop.poller.epoll, *others], [], [], _SOON)[0]
        )

    def turn(self, times: int = 1) -> None:
        """Some turns, each with what is ready."""
        for _ in range(times):
            self._settle()
            self.loop.turn(0)

    def tend(self) -> None:
        """A turn of the background driver's, while the application is at work: all but calling it."""
        self._settle()
        self.loop.tend()

    def turn_until(self, condition: Callable[[], object]) -> None:
        """Turn while application threads and the kernel are at work."""
        deadline = time.monotonic() + BOUND
        while not condition():
            assert time.monotonic() < deadline, "it has not come true"
            self.turn()

    def access_lines(self) -> AccessLines:
        """What the access log gets from here on."""
        lines = AccessLines()
        self.replace(access=lines)
        return lines

    def client(self, *sent: bytes, receive_buffer: int = 0) -> socket.socket:
        """A client that is connected, and has sent something."""
        client = socket.socket()
        self._clients.append(client)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(self.address)
        client.setblocking(False)
        for data in sent:
            client.sendall(data)
        return client

    def until_answered(self, client: socket.socket, turns: int = 50) -> bytes:
        """What ``client`` receives until nothing more happens, or ``turns`` are over."""
        data = b""
        for _ in range(turns):
            busy = self._settle(client)
            self.loop.turn(0)
            try:
                while piece := client.recv(1 << 20):
                    data += piece
            except BlockingIOError:
                if busy:
                    continue
                return data
            except ConnectionResetError:
                return data + b"<reset>"
            return data + b"<closed>"
        return data

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turn()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.httpd.server_close()
        self.row.clear()


def read(client: socket.socket, size: int) -> bytes:
    """``size`` bytes of what ``client`` gets, without a turn of ours."""
    client.setblocking(True)
    client.settimeout(BOUND)
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    client.setblocking(False)
    return data


def wait_until(true: Callable[[], object]) -> None:
    """Wait for what a thread does; there is no event to wait for, so look again and again, bounded."""
    moment = threading.Event()
    for _ in range(int(BOUND / 0.002)):
        if true():
            return
        moment.wait(0.002)
    raise AssertionError("it has not come true")


def arrived(client: socket.socket) -> None:
    """Wait until the server's kernel has what ``client`` has sent, in the queue of a listener too. Source: tcp(7).

    A loop that has work does not wait for what comes, so what is to come within a few of its turns has to be there.
    """
    wait_until(lambda: not any(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4))))


class StartWorker(Protocol):
    """The fixture ``worker``: ``handler`` is another handler class, ``changes`` are settings."""

    def __call__(self, app: App = hello, **changes: Any) -> Worker: ...


class StartTwoWorkers(Protocol):
    """The fixture ``two_workers``: of one service, each with a listener of its own, and the queue between them."""

    def __call__(self, app: App = hello, **changes: Any) -> tuple[Worker, Worker]: ...
