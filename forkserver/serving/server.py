"""make_server and WSGIServer: the stdlib's page, made fast. ``handle_request`` is one turn.

It promises what https://docs.python.org/3/library/wsgiref.html#module-wsgiref.simple_server and the pages on its base
classes say, alone in a script as under the master. It refuses to know processes.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final
from wsgiref import simple_server

from forkserver import settings as settings_table
from forkserver.errors import BindError
from forkserver.logs import AccessLog, ErrorLog, ErrorStream
from forkserver.scoreboard import Row
from forkserver.serving import gateway
from forkserver.serving.acceptor import Listener
from forkserver.serving.buffers import Spool
from forkserver.serving.connection import CLOSED, LINGERING
from forkserver.serving.handler import WSGIRequestHandler
from forkserver.serving.hooks import Hooks, is_threading
from forkserver.serving.loop import Loop
from forkserver.serving.pool import Pool
from forkserver.settings import Settings
from forkserver.wire.request import FieldMemo

_SERVICE_SECONDS: Final = 0.5  # serve_forever's documented default between two calls of service_actions


class WSGIServer(simple_server.WSGIServer):
    """A WSGI server on one listening address.

    Takes ``server_address`` as ``(host, port)`` and ``RequestHandlerClass``. Raises BindError, an OSError, where the
    address cannot be listened on. Source: https://docs.python.org/3/library/wsgiref.html#wsgiref.simple_server.WSGIServer
    """

    request_queue_size = 2048
    software = "forkserver"  # the Server field
    _adopted = False
    _loop: Loop | None = None
    _stopping = False

    def __init__(
        self, server_address: tuple[str, int], RequestHandlerClass: Callable[..., Any], bind_and_activate: bool = True
    ) -> None:
        if ":" in server_address[0]:
            self.address_family = socket.AF_INET6
        self._stopped = threading.Event()
        self._stopped.set()
        try:
            super().__init__(server_address, RequestHandlerClass, bind_and_activate)
        except OSError as error:
            host, port = server_address[:2]
            raise BindError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose another address", error.errno
            ) from error

    # What a handler and the loop need, found when first asked for: subclasses may leave parts of __init__ out.

    @cached_property
    def settings(self) -> Settings:
        """The settings this server works by; a script has the defaults."""
        return settings_table.defaults()

    @cached_property
    def hooks(self) -> Hooks:
        """The documented hooks that the classes of this server override."""
        return Hooks(type(self), self.RequestHandlerClass, WSGIServer, WSGIRequestHandler)

    @cached_property
    def log(self) -> ErrorLog:
        """The error log; a script's is standard error."""
        return ErrorLog("-", "info", "server")

    @cached_property
    def spool(self) -> Spool:
        """Where the bodies of blocking handlers go."""
        return Spool(self.settings.spool_dir, self.settings.max_spool)

    @cached_property
    def memo(self) -> FieldMemo:
        """Header lines known to blocking handlers."""
        return FieldMemo(self.settings)

    @property
    def errors(self) -> Any:
        """``wsgi.errors`` where the handler class does not say otherwise: standard error, or a worker's error log."""
        return ErrorStream(self.log) if self._adopted else sys.stderr

    @cached_property
    def concurrency(self) -> tuple[bool, bool]:
        """``wsgi.multithread`` and ``wsgi.multiprocess``."""
        return self.settings.threads > 1 or is_threading(type(self)), self._adopted

    @property
    def classic(self) -> bool:
        """Whether requests are served the blocking way."""
        return bool(self.hooks.classic) or isinstance(self.socket, ssl.SSLSocket)

    def report(self, handler: WSGIRequestHandler, message: str) -> None:
        """Tell the error log what went wrong around ``handler``'s request."""
        self.log.error(f"{handler.requestline}: {message}")

    # The documented ways to serve

    def serve_forever(self, poll_interval: float = _SERVICE_SECONDS) -> None:
        """Serve until ``shutdown`` is called from another thread.

        ``service_actions`` is called every ``poll_interval`` seconds where it is overridden; nothing else wakes the
        server without need. Source: https://docs.python.org/3/library/socketserver.html
        """
        self._stopped.clear()
        try:
            loop = self._ready_loop()
            loop.acceptor.start()
            while not self._stopping:
                loop.turn(poll_interval if self.hooks.service_actions else None)
                self.service_actions()
            loop.acceptor.stop()
        finally:
            self._stopping = False
            self._stopped.set()

    def shutdown(self) -> None:
        """From another thread: have ``serve_forever`` return, and wait until it has."""
        self._stopping = True
        if self._loop is not None:
            self._loop.wake()
        self._stopped.wait()

    def handle_request(self) -> None:
        """Serve one request, answered with ``Connection: close``, or call ``handle_timeout`` after ``timeout`` seconds.

        Returns when the kernel has the whole answer, or it failed. In a worker: one turn of its loop.
        """
        if self._adopted:
            self._ready_loop().turn(_SERVICE_SECONDS if self.hooks.service_actions else None)
            self.service_actions()
            return
        if not self._wait_for_client():
            self.handle_timeout()
            return
        self._serve_one(self._ready_loop())

    def _wait_for_client(self) -> bool:
        limits = [limit for limit in (self.socket.gettimeout(), self.timeout) if limit]
        if self.timeout == 0:
            limits = [0]
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(min(limits) * 1000 if limits else None))

    def _serve_one(self, loop: Loop) -> None:
        loop.closing = True
        try:
            connection = loop.acceptor.take(loop.acceptor.listeners[0])
            if connection is None:
                return
            loop.guard(connection, loop.acceptor.begin, connection)
            while connection.state not in (LINGERING, CLOSED):
                loop.turn()
            if connection.state == LINGERING:
                connection.discard()  # with nothing unread, closing cannot become a reset
                connection.close()
        finally:
            loop.closing = False

    def _ready_loop(self) -> Loop:
        if self._loop is None:
            self.socket.setblocking(False)
            self._loop = Loop(self, self.settings, self.log, AccessLog(None), None, siblings=False)
            self._loop.acceptor.listeners.append(Listener(self.socket))
        return self._loop

    def close_request(self, request: Any) -> None:
        """Close one connection's socket."""
        super().close_request(request)
        if self._loop is not None and self.hooks.classic:
            self._loop.wake()  # a thread of ThreadingMixIn is through: a retiring worker waits for that

    def server_close(self) -> None:
        """Close the listener and every connection."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        super().server_close()

    # Under the master

    def adopt(
        self,
        listeners: Sequence[socket.socket],
        settings: Settings,
        log: ErrorLog,
        access: AccessLog,
        row: Row | None,
        siblings: bool,
    ) -> None:
        """Serve ``listeners``, bound by somebody else, as one worker of several if ``siblings``.

        ``row`` is the worker's row of the scoreboard. Names of addresses are not looked up.
        """
        self.socket.close()
        self.settings, self.log = settings, log
        self._adopted = True
        self.socket = listeners[0]
        self.server_address = listeners[0].getsockname()
        names = [_names(listener) for listener in listeners]
        self.server_name, self.server_port = names[0][0], int(names[0][1])
        self.setup_environ()
        self._loop = Loop(self, settings, log, access, row, siblings)
        several = len(set(names)) > 1
        for listener, name in zip(listeners, names, strict=True):
            listener.setblocking(False)
            self._loop.acceptor.listeners.append(Listener(listener, name if several else None))
        if settings.threads > 1 and not is_threading(type(self)):
            self._loop.threaded = True
            self._loop.pool = Pool(self._loop, settings.threads)
        self._loop.acceptor.start()

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback()`` from the loop whenever ``fd`` is readable."""
        self._ready_loop().watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """Forget a watched descriptor, before it is closed."""
        self._ready_loop().unwatch(fd)

    def retire(self, grace_seconds: float) -> None:
        """Take what is queued, then nothing more; answer what is held; close what stays idle; end in time."""
        self._ready_loop().retire(grace_seconds)

    @property
    def retired(self) -> bool:
        """Whether nothing is left to do after ``retire``."""
        return self._ready_loop().empty

    def close_now(self) -> None:
        """Drop every connection and listener at once."""
        loop = self._ready_loop()
        loop.closing = True
        loop.acceptor.drop()
        loop.close_all()

    def forget(self) -> None:
        """In a child that the application forked: close what is the worker's, without touching its connections."""
        if self._loop is not None:
            self._loop.forget()


def _names(listener: socket.socket) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT of a listener; PEP 3333 wants neither empty."""
    address = listener.getsockname()
    if not isinstance(address, tuple):
        return "localhost", "80"
    host = address[0]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return host, str(address[1])


def make_server(
    host: str,
    port: int,
    app: gateway.App,
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
