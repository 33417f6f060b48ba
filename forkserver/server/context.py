"""What one server's loop and handlers work with: settings, logs, spool, memo, and the hooks that its classes override.

It promises that every server has them, the stdlib's own and one whose class leaves our ``__init__`` out too, and that
they lie in one attribute of it: the names of a user's subclass are the user's. It refuses to know connections.
"""

from __future__ import annotations

import socketserver
import ssl
import sys
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from forkserver.config import settings as settings_table
from forkserver.http1.headers import HeadLimits
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.error_stream import ErrorStream
from forkserver.server.buffers.spool import Spool
from forkserver.server.client_notices import Notices
from forkserver.server.wsgi.overrides import Overrides, is_threading, overrides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forkserver.config.settings import Settings
    from forkserver.ipc.scoreboard import Row
    from forkserver.server.loop.event_loop import Loop
    from forkserver.server.proxy.forwarded_headers import TrustedProxies
    from forkserver.server.request_handler import WSGIRequestHandler
    from forkserver.server.wsgi.response import Response

_ATTRIBUTE: Final = "_forkserver_means"


class ServerContext:
    """The means of ``server``; a script's until ``WSGIServer.adopt`` makes them a worker's."""

    trust: TrustedProxies | None = None  # whom to believe; a script's application does that itself
    worker = False  # one of several processes under a master
    loop: Loop | None = None
    row: Row | None = None  # of the scoreboard, and all of its rows; a script has none
    board: Iterable[Row] = ()
    displaced: tuple[str, Any] | None = None  # what gives the application, by name, while there is maintenance
    listener_timeout: float | None = None  # what a script had set on the listener: it bounds handle_request too

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._server: Any = server
        self.access = AccessLog(None)
        self.stopping = threading.Event()  # serve_forever is to return
        self.stopped = threading.Event()  # it has; not set before it ran, as socketserver has it
        self.turning = threading.RLock()  # threads that call handle_request take turns; an application may nest it

    @cached_property
    def settings(self) -> Settings:
        """A script's are the defaults; a worker has its own before anybody asks."""
        return settings_table.defaults()

    @cached_property
    def log(self) -> ErrorLog:
        """The error log; a script's is standard error."""
        return ErrorLog("-", "info", "server")

    @cached_property
    def hooks(self) -> Overrides:
        """The documented hooks that the classes of this server override."""
        from forkserver.server.request_handler import WSGIRequestHandler  # both stand on this module
        from forkserver.server.wsgi_server import WSGIServer

        find = overrides_of if self.worker else Overrides  # a script may change its classes between two servers
        return find(type(self._server), self._server.RequestHandlerClass, WSGIServer, WSGIRequestHandler)

    @cached_property
    def spool(self) -> Spool:
        """Where the bodies and answers go that are too long for memory."""
        settings = self.settings
        return Spool(
            settings.spool_dir, settings.max_spool, settings.body_memory, settings.spool_keep_free, self.row, self.board
        )

    @cached_property
    def head_limits(self) -> HeadLimits:
        """What a request's head may be."""
        return HeadLimits.of(self.settings)

    @cached_property
    def notices(self) -> Notices:
        """What clients and proxies did, for the error log."""
        return Notices(self.log)

    @cached_property
    def _stream(self) -> ErrorStream:
        return ErrorStream(self.log)

    @property
    def errors(self) -> Any:
        """``wsgi.errors`` where the handler class does not say otherwise: standard error, or a worker's error log."""
        return self._stream if self.worker else sys.stderr

    @property
    def unended(self) -> dict[int, str]:
        """What threads have begun of lines on a worker's ``wsgi.errors``; a script's stream keeps that itself."""
        return self._stream.unended if self.worker else {}

    def end_lines(self) -> None:
        """Write what this thread has left without its line feed: its request is over."""
        self._stream.flush()

    @property
    def concurrency(self) -> tuple[bool, bool]:
        """``wsgi.multithread`` and ``wsgi.multiprocess``."""
        return self.settings.threads > 1 or is_threading(type(self._server)), self.worker

    @property
    def blocking(self) -> bool:
        """Whether every request is served by a blocking handler."""
        return bool(self.hooks.classic) or isinstance(self._server.socket, ssl.SSLSocket)

    def forget(self) -> None:
        """In a child that the application forked: what is gathered for the logs is for the worker to write."""
        self.access.forget()
        self._stream.forget()
        self.spool.forget()

    def software(self, handler: WSGIRequestHandler) -> str:
        """The value of the Server field: the setting's, or what a subclass of the handler says."""
        return handler.version_string() if self.hooks.version else self.settings.server_header

    @property
    def notes_by_handler(self) -> bool:
        """Whether ``log_request`` is called for each answer: in a script always, in a worker where a subclass logs."""
        return self.hooks.log or not self.worker


def context_of(server: socketserver.BaseServer) -> ServerContext:
    """The means of ``server``, made when they are first asked for."""
    known: dict[str, Any] = vars(server)
    found: ServerContext = known.get(_ATTRIBUTE) or known.setdefault(_ATTRIBUTE, ServerContext(server))
    return found


def note(
    add: Callable[[str, str, str, int, int, str, str], object],
    line: str,
    fields: dict[str, str],
    environ: dict[str, Any],
    response: Response,
) -> None:
    """Give to ``add``, as AccessLog's, what is logged of an answer to a request with ``fields``, by their WSGI names.

    ``environ`` is the application's to change: who asks is as it leaves it, the rest is as it came.
    """
    get, field = environ.get, fields.get
    peer, user = get("REMOTE_ADDR", ""), get("REMOTE_USER", "")  # the client behind trusted proxies
    if not (type(peer) is type(user) is str):
        peer, user = _text(peer), _text(user)
    add(peer, user, line, response.status, response.sent, field("HTTP_REFERER", ""), field("HTTP_USER_AGENT", ""))


def _text(value: object) -> str:
    """The characters of a str of any class; of anything else, what it calls itself."""
    return str.__str__(value) if isinstance(value, str) else str(value)
