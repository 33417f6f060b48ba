"""make_server and WSGIServer: the stdlib's page, made fast. ``handle_request`` is one turn.

The documented methods do what https://docs.python.org/3/library/wsgiref.html#module-wsgiref.simple_server and the
pages on its base classes say, alone in a script as under the master, which calls ``adopt`` and what follows it.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final
from wsgiref import simple_server

from forkserver.config.settings import Settings
from forkserver.errors import BindError
from forkserver.ipc.scoreboard import Row, Scoreboard
from forkserver.linux.sockets.resets import resets_at_close
from forkserver.linux.syscalls import monotonic
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.server.connection.states import CLOSED, LINGERING
from forkserver.server.context import context_of, make_context
from forkserver.server.handoff.queue import Handoff
from forkserver.server.loop.event_loop import EventLoop
from forkserver.server.loop.listener import Listener, names_of
from forkserver.server.loop.self_request import ask
from forkserver.server.proxy.forwarded_headers import TrustedProxies, trusted_proxies
from forkserver.server.proxy.proxy_header_reader import proxy_protocol_policy
from forkserver.server.request_handler import WSGIRequestHandler
from forkserver.server.threads.thread_pool import Pool
from forkserver.server.wsgi import run
from forkserver.server.wsgi.maintenance import MaintenancePage
from forkserver.server.wsgi.overrides import is_threading, overrides_of

_STATE: Final = "_forkserver_state"
_SERVICE_SECONDS: Final = 0.5  # serve_forever's documented default between two calls of service_actions


class ServerState:
    """What changes while a server serves: its loop, and what was asked of it."""

    def __init__(self) -> None:
        self.loop: EventLoop | None = None
        self.displaced: tuple[str, Any] | None = None  # what gives the application, while there is maintenance
        self.listener_timeout: float | None = None  # that a script had set on the listener: it bounds handle_request
        self.stopping = threading.Event()  # serve_forever is to return
        self.stopped = threading.Event()  # it has; not set before it ran, as socketserver has it
        self.turning = threading.RLock()  # threads that call handle_request take turns; an application may nest it


def state_of(server: simple_server.WSGIServer) -> ServerState:
    """The state of ``server``, in one attribute: the names of a user's subclass are the user's."""
    known: dict[str, Any] = vars(server)
    found: ServerState = known.get(_STATE) or known.setdefault(_STATE, ServerState())
    return found


class WSGIServer(simple_server.WSGIServer):
    """A WSGI server on one listening address.

    Takes ``server_address`` as ``(host, port)`` and ``RequestHandlerClass``. Raises BindError, an OSError, where the
    address cannot be listened on. Source: https://docs.python.org/3/library/wsgiref.html#wsgiref.simple_server.WSGIServer
    """

    request_queue_size = 2048

    def __init__(
        self, server_address: Any, RequestHandlerClass: Callable[..., Any], bind_and_activate: bool = True
    ) -> None:
        if isinstance(server_address, tuple) and ":" in str(server_address[0]):
            self.address_family = socket.AF_INET6
        try:
            super().__init__(server_address, RequestHandlerClass, bind_and_activate)
        except BindError:
            raise
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT and not bind_and_activate:
                # What is made here is replaced by a listener of the master's, and a service may be allowed Unix sockets
                # alone: RestrictAddressFamilies= in systemd.exec(5).
                self.address_family = socket.AF_UNIX
                super().__init__(server_address, RequestHandlerClass, bind_and_activate)
                return
            name = ":".join(map(str, server_address[:2])) if isinstance(server_address, tuple) else server_address
            raise BindError(
                f"cannot listen on {name}: {error.strerror or error}; choose another address", error.errno
            ) from error

    # The documented ways to serve

    def serve_forever(self, poll_interval: float = _SERVICE_SECONDS) -> None:
        """Serve until ``shutdown`` is called from another thread, finish what is being answered, and return.

        ``service_actions`` is called every ``poll_interval`` seconds where it is overridden; nothing else wakes the
        server without need. Source: https://docs.python.org/3/library/socketserver.html
        """
        context, state = context_of(self), state_of(self)
        state.stopped.clear()
        try:
            loop = self._ready_loop()
            loop.acceptor.start()
            while not state.stopping.is_set():
                loop.turn(poll_interval if context.hooks.service_actions else None)
                if state.stopping.is_set():
                    break
                self.service_actions()
            loop.finish()
        finally:
            state.stopping.clear()
            state.stopped.set()

    def shutdown(self) -> None:
        """From another thread: have ``serve_forever`` return, and wait until it has."""
        state = state_of(self)
        state.stopping.set()
        loop = state.loop  # once: serve_forever may return, and the server be closed, in the next moment
        if loop is not None:
            loop.wake()
        state.stopped.wait()

    def handle_request(self) -> None:
        """Serve one request, answered with ``Connection: close``, or call ``handle_timeout`` after ``timeout`` seconds.

        Returns when the kernel has the whole answer, or it failed. In a worker: one turn of its loop.
        """
        context, state = context_of(self), state_of(self)
        if context.worker and state.loop is not None:
            if context.hooks.service_actions:
                state.loop.turn(_SERVICE_SECONDS)
                state.loop.calls.call_hook(self.service_actions, b"service_actions")
            else:
                state.loop.turn()
        elif self._wait_for_client():
            with state.turning:
                self._serve_one(self._ready_loop())
        else:
            self.handle_timeout()

    def _wait_for_client(self) -> bool:
        """Wait for ``timeout`` or the listener's own timeout, whichever is shorter."""
        limits = [limit for limit in (self.socket.gettimeout(), state_of(self).listener_timeout) if limit]
        if self.timeout is not None:
            limits.append(max(0.0, self.timeout))
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(min(limits) * 1000 if limits else None))

    def _serve_one(self, loop: EventLoop) -> None:
        closing, loop.closing = loop.closing, True
        try:
            connection = loop.acceptor.take(loop.acceptor.listeners[0])
            if connection is None:
                return
            loop.guard(connection, loop.acceptor.begin, connection)
            while connection.state not in (LINGERING, CLOSED):
                loop.turn()
            connection.part()
        finally:
            loop.closing = closing

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

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Construct the handler, which serves the request; shake hands before, where that was left for this thread."""
        if isinstance(request, ssl.SSLSocket) and request.version() is None:
            try:
                request.do_handshake()
            except OSError as error:  # as BaseServer: a connection that cannot be had is none
                context_of(self).log.debug(f"no TLS with {client_address[0]}: {error}")
                return
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of the exception that a hook or a handler raised: on standard error, or a worker's error log."""
        context = context_of(self)
        error = sys.exc_info()[1]
        if context.worker and error is not None:
            context.log.exception(f"exception while serving {client_address[0] or 'a local client'}", error)
        else:
            super().handle_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End one connection: in order, or by a reset where its answer broke off."""
        if resets_at_close(request):
            self.close_request(request)  # a shutdown would tell the client of an orderly end
        else:
            super().shutdown_request(request)

    def close_request(self, request: Any) -> None:
        """Close one connection's socket."""
        super().close_request(request)
        context, state = context_of(self), state_of(self)
        loop = state.loop  # once: this may be a thread of ThreadingMixIn's, and the server be closed meanwhile
        if loop is not None:
            loop.handler_sockets.discard(request)
            if loop.forked:
                context.access.flush()  # a process of ForkingMixIn's ends as soon as this has returned
            elif context.worker:
                loop.wake()  # a thread of ThreadingMixIn is through: a retiring worker waits for that

    def server_close(self) -> None:
        """Close the listener and every connection; threads of ThreadingMixIn finish their answers."""
        state = state_of(self)
        loop, state.loop = state.loop, None
        if loop is not None:
            loop.close()
        super().server_close()

    # Under the master

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
        self.socket.close()
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
            calls, enlist = loop.calls, context.request_deadline.enlist
            calls.engage(Pool(settings.threads, loop.threads, clock, enlist, calls.serve_next))
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
                self.get_app = lambda: standing_in  # type: ignore[method-assign]
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


def prepare(settings: Settings, server_class: type[WSGIServer], handler_class: type) -> None:
    """Find out before the fork what every worker would find out for itself: its memory is shared then."""
    overrides_of(server_class, handler_class)
    _trust(settings)


def _trust(settings: Settings) -> TrustedProxies:
    return trusted_proxies(tuple(settings.forwarded_allow_ips), tuple(settings.forwarded_fields))


def make_server(
    host: str,
    port: int,
    app: run.App,
    server_class: type[simple_server.WSGIServer] = WSGIServer,
    handler_class: type[simple_server.WSGIRequestHandler] = WSGIRequestHandler,
) -> Any:
    """A server of ``server_class`` listening on ``host`` and ``port``, for ``app``, with ``handler_class``.

    Raises BindError, an OSError. Source: https://docs.python.org/3/library/wsgiref.html#wsgiref.simple_server.make_server
    """
    server = server_class((host, port), handler_class)
    server.set_app(app)
    return server


demo_app = simple_server.demo_app
