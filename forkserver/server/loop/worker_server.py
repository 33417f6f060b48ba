"""A worker's server: what the master's orders do to it, and what its process asks of it.

``AdoptedServer`` is the half of a server that a worker needs. ``WSGIServer`` has it beside the stdlib's page;
``WorkerServer``, which a worker constructs where the settings name no class, has nothing else: none of the stdlib's
modules for HTTP is loaded for it.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from forkserver.config.settings import Settings
from forkserver.ipc.scoreboard import Row, Scoreboard
from forkserver.linux.sockets.plain_socket import socketpair
from forkserver.linux.syscalls import monotonic
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.server.connection.rejection import client_address
from forkserver.server.connection.states import CALLING
from forkserver.server.context import context_of, make_context
from forkserver.server.handoff.queue import Handoff
from forkserver.server.loop.event_loop import EventLoop
from forkserver.server.loop.listener import Listener, names_of
from forkserver.server.proxy.forwarded_headers import TrustedProxies, trusted_proxies
from forkserver.server.proxy.proxy_header_reader import proxy_protocol_policy
from forkserver.server.wsgi.maintenance import MaintenancePage
from forkserver.server.wsgi.overrides import is_threading, overrides_of

if TYPE_CHECKING:
    import ssl

_STATE: Final = "_forkserver_state"


class ServerState:
    """What changes while a server serves: its loop, and what was asked of it."""

    def __init__(self) -> None:
        self.loop: EventLoop | None = None
        self.displaced: tuple[str, Any] | None = None  # what gives the application, while there is maintenance
        self.listener_timeout: float | None = None  # that a script had set on the listener: it bounds handle_request
        self.stopping = threading.Event()  # serve_forever is to return
        self.stopped = threading.Event()  # it has; not set before it ran, as socketserver has it
        self.turning = threading.RLock()  # threads that call handle_request take turns; an application may nest it


def state_of(server: Any) -> ServerState:
    """The state of ``server``, in one attribute: the names of a user's subclass are the user's."""
    known: dict[str, Any] = vars(server)
    found: ServerState = known.get(_STATE) or known.setdefault(_STATE, ServerState())
    return found


class AdoptedServer:
    """What a worker does with its server. The other half of the class sets ``application`` and ``base_environ``."""

    socket: Any
    server_address: Any
    server_name: str
    server_port: int
    base_environ: dict[str, Any]
    application: Any
    get_app: Any
    setup_environ: Any  # sets base_environ: the CGI variables that each request has

    def _ready_loop(self) -> EventLoop:
        context, state = context_of(self), state_of(self)
        if state.loop is None:
            state.listener_timeout = self.socket.gettimeout()
            self.socket.setblocking(False)
            if self.socket.family in (socket.AF_INET, socket.AF_INET6):
                # Inherited by connections: an answer in two writes must not wait for an ACK (tcp(7)).
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            state.loop = EventLoop(context)
            state.loop.acceptor.listeners.append(Listener(self.socket))
        if not context.worker:
            context.base_environ.set("wsgi.errors", sys.stderr)  # which a script may have replaced since
        return state.loop

    def adopt(
        self,
        listeners: Sequence[tuple[int, socket.socket]],
        handoff: tuple[int, int] | None,
        settings: Settings,
        log: ErrorLog,
        access: AccessLog,
        row: Row | None,
        board: Scoreboard | None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Be one worker: serve ``listeners``, bound by the master, from ``open`` on.

        Each comes with its number, below zero where the service manager owns it and its queue is for the next program.
        ``handoff`` are the descriptors of both ends of the queue of connections that workers hand on; ``row`` is the
        worker's row of the scoreboard ``board``. TCP listeners speak ``tls``. ``clock`` is
        CLOCK_MONOTONIC in seconds. Names of addresses are not looked up.
        """
        if (own := vars(self).get("socket")) is not None:
            own.close()
        first = listeners[0][1]
        self.socket = first
        self.server_address = first.getsockname()
        names = [names_of(listening) for _, listening in listeners]
        self.server_name, self.server_port = names[0][0], int(names[0][1])
        self.setup_environ()
        context = make_context(self, settings, log, access, True, _trust(settings), row, board or ())
        queue = Handoff(*handoff) if handoff is not None else None
        state_of(self).loop = loop = EventLoop(context, row, board, queue, clock)
        loop.acceptor.tls = tls
        several, allowed = len(set(names)) > 1, proxy_protocol_policy(settings)
        for (number, listening), name in zip(listeners, names, strict=True):
            listening.setblocking(False)
            listener = Listener(listening, name if several else None, abs(number), inherited=number < 0)
            listener.allowed = allowed
            if tls is not None and listening.family != socket.AF_UNIX:
                listener.tls = tls
            loop.acceptor.listeners.append(listener)
        if settings.threads > 1 and not is_threading(type(self)):
            from forkserver.server.threads.thread_pool import Pool  # late: one thread needs none

            calls, enlist, wake = loop.calls, context.request_deadline.enlist, loop.wake
            calls.engage(Pool(settings.threads, loop.threads, clock, enlist, calls.serve_next, calls.recover, wake))
        else:
            context.request_deadline.enlist(0)

    def open(self) -> None:
        """Begin to accept."""
        self._ready_loop().acceptor.start()

    def check(self, path: str) -> int:
        """The status code with which the application answers ``GET path``, asked before any client can connect."""
        return ask(self._ready_loop(), path)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback()`` from the loop whenever ``fd`` is readable, in whichever thread turns it."""
        self._ready_loop().poller.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """Forget a watched descriptor, before it is closed."""
        self._ready_loop().poller.unwatch(fd)

    @property
    def on_due_for_recycling(self) -> Callable[[str], object] | None:
        """Called once, with the reason in words, when ``max_requests`` have been served."""
        return self._ready_loop().calls.recycling.on_due

    @on_due_for_recycling.setter
    def on_due_for_recycling(self, call: Callable[[str], object] | None) -> None:
        self._ready_loop().calls.recycling.on_due = call

    def drain(self) -> None:
        """Serve on, and answer with ``Connection: close``: new connections are to go elsewhere."""
        self._ready_loop().drain()

    def maintain(self, on: bool) -> None:
        """Answer 503 in place of the application, but for ``ready_path``; or let it answer again."""
        context, state = context_of(self), state_of(self)
        if not on:
            self._end_maintenance()
        elif state.displaced is None:
            if context.hooks.get_app:  # a class of the user's gives the application, for each request anew
                asked: Any = self.get_app
                state.displaced = "get_app", asked
                standing_in = MaintenancePage(asked, context.settings.ready_path)
                self.get_app = lambda: standing_in
            else:
                state.displaced = "application", self.application
                application: Any = self.application
                self.application = MaintenancePage(lambda: application, context.settings.ready_path)

    def _end_maintenance(self) -> None:
        state = state_of(self)
        if state.displaced is not None:
            (name, value), state.displaced = state.displaced, None
            setattr(self, name, value)

    def drop(self, number: int) -> None:
        """Stop serving the listener of that number: take what is queued there, and close it."""
        self._ready_loop().acceptor.forgo(number)

    def retire(self, grace_seconds: float, handoff: bool) -> None:
        """Take what is queued, then nothing more, and leave when no connection is left, at the latest after the grace.

        With ``handoff`` siblings get the connections that wait for a request; else those are closed with their next
        answer, or when they have stayed idle for a moment.
        """
        self._ready_loop().retire(grace_seconds, handoff)

    def expire(self, thread: int, since: int) -> bool:
        """End that thread's call of ``since`` (ns), which lasts too long, and retire; False where it is over."""
        return self._ready_loop().expire(thread, since)

    def call_of(self, thread: int) -> tuple[str, int | None]:
        """The client of what application ``thread`` has in hand, empty where that has none, and the thread's ident."""
        loop = self._ready_loop()
        calling = (each for each in loop.connections if each.state is CALLING and each.thread == thread)
        connection = next(calling, None)
        client = "" if connection is None else client_address(connection)
        return client, loop.context.request_deadline.thread_of(thread)

    @property
    def retired(self) -> bool:
        """Whether nothing is left to do: after ``retire``, or in a child that came back from the application's call."""
        loop = state_of(self).loop
        return loop is not None and (loop.forked or (loop.retiring and loop.retirement.complete))

    def close_now(self) -> None:
        """Drop every connection and listener at once."""
        loop = self._ready_loop()
        loop.closing = loop.retiring = True
        loop.acceptor.drop()
        loop.retirement.close_all()

    # Around a fork of the application's: no thread of ours may be in the middle of something

    def before_fork(self) -> None:
        """Let the background driver and application threads come to a point where nothing is half done."""
        if (loop := state_of(self).loop) is not None:
            loop.loop_lock.take_for_fork()

    def after_fork(self) -> None:
        """In parent and child: go on."""
        if (loop := state_of(self).loop) is not None:
            loop.loop_lock.return_from_fork()

    def forget(self) -> None:
        """In a child that the application forked: close what is the worker's, without touching its connections.

        Once, in the first child: what that opens itself may get the same numbers.
        """
        context_of(self).forget()
        if (loop := state_of(self).loop) is not None:
            loop.forget()


class NoHandler:
    """Stands for the handler class where the settings name none: no hook of it differs, so none is ever made."""


class WorkerServer(AdoptedServer):
    """The server of a worker without classes of the application's; as a WSGIServer that is not bound."""

    def __init__(
        self, server_address: Any, RequestHandlerClass: type = NoHandler, bind_and_activate: bool = False
    ) -> None:
        self.server_address, self.RequestHandlerClass = server_address, RequestHandlerClass
        self.application: Any = None

    def setup_environ(self) -> None:
        """As wsgiref.simple_server.WSGIServer sets it."""
        self.base_environ = {
            "SERVER_NAME": self.server_name,
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_PORT": str(self.server_port),
            "REMOTE_HOST": "",
            "CONTENT_LENGTH": "",
            "SCRIPT_NAME": "",
        }

    def set_app(self, application: Any) -> None:
        """Serve ``application``."""
        self.application = application

    def handle_request(self) -> None:
        """One turn of the loop."""
        self._ready_loop().turn()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell the error log of the exception that is being handled."""
        log_fault(self, client_address)

    def server_close(self) -> None:
        """Close the listener and every connection."""
        close_loop(self)
        self.socket.close()


def log_fault(server: Any, client_address: Any) -> None:
    """Tell a worker's error log of the exception that is being handled."""
    if (error := sys.exc_info()[1]) is not None:
        context_of(server).log.exception(f"exception while serving {client_address[0] or 'a local client'}", error)


def close_loop(server: Any) -> None:
    """Close every connection of ``server``."""
    state = state_of(server)
    loop, state.loop = state.loop, None
    if loop is not None:
        loop.close()


def prepare(settings: Settings, server_class: type, handler_class: type) -> None:
    """Find out before the fork what every worker would find out for itself: its memory is shared then."""
    overrides_of(server_class, handler_class)
    _trust(settings)


def _trust(settings: Settings) -> TrustedProxies:
    notes = settings.error_page == "on"  # which no request has that was passed on
    return trusted_proxies(tuple(settings.forwarded_allow_ips), tuple(settings.forwarded_fields), notes)


# A request of a worker to itself before any client can connect: its answer says whether the application is ready. It
# goes the way of every other one, through a socket pair to a connection of the loop, and to the application.

_HEAD_BYTES: Final = 64 * 1024


def ask(loop: EventLoop, path: str) -> int:
    """The status code of the answer to ``GET path``, as a client of this machine would get it.

    Raises ConnectionError where there is no answer.
    """
    ours, theirs = socketpair(socket.SOCK_STREAM)
    with ours:
        ours.setblocking(False)
        theirs.setblocking(False)
        server = loop.context.server
        name = f"[{server.server_name}]" if ":" in server.server_name else server.server_name
        host = f"{name}:{server.server_port}"
        ours.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: forkserver\r\nConnection: close\r\n\r\n".encode()
        )
        first = loop.acceptor.listeners[0]
        loop.context.base_environ.follow(server.base_environ)  # what has come is read before the first turn
        loop.acceptor.introduce(theirs, ("127.0.0.1", 0), Listener(first.sock, first.names, first.number))
        loop.calls.recycling.allow_one_more()
        loop.poller.watch(
            ours.fileno(), _nothing
        )  # an answer of another thread is nothing that would end the loop's wait
        try:
            return _status(loop, ours)
        finally:
            loop.poller.unwatch(ours.fileno())


def _nothing() -> None:
    """What has come is read between the turns."""


def _status(loop: EventLoop, ours: socket.socket) -> int:
    """Turn the loop until the whole answer is there."""
    came = b""
    while True:
        loop.turn(0)
        try:
            data = ours.recv(_HEAD_BYTES)
        except BlockingIOError:
            loop.turn()
            continue
        if not data:
            break
        came = (came + data)[:_HEAD_BYTES]
    words = came.split(b" ", 2)
    if len(words) < 3 or not words[1].isdigit():
        raise ConnectionError("the connection ended without an answer")
    return int(words[1])
