"""What the connections and handlers of one server work with: settings, logs, spool, hooks. It does not change.

The context lies in one attribute of the server object, so that a server class whose ``__init__`` leaves ours out has
one too, and the names of a user's subclass stay the user's. A script's is made when it is first asked for;
``WSGIServer.adopt`` puts a worker's in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

from forkserver.config import settings as settings_table
from forkserver.config.settings import Settings
from forkserver.http1 import response as wire
from forkserver.http1.headers import HeadLimits
from forkserver.ipc.scoreboard import Row
from forkserver.linux.common.records import Record
from forkserver.linux.sockets.tls_socket import is_tls
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.error_stream import ErrorStream
from forkserver.server.buffers.spool import Spool
from forkserver.server.client_notices import Notices
from forkserver.server.proxy.forwarded_headers import TrustedProxies
from forkserver.server.proxy.request_id import RequestIds
from forkserver.server.threads.request_deadline import RequestDeadline
from forkserver.server.wsgi.answer_counter import AnswerCounter
from forkserver.server.wsgi.environ import BaseEnviron, wsgi_variables
from forkserver.server.wsgi.overrides import Overrides, is_threading, overrides_of

SOFTWARE: Final = "forkserver"  # SERVER_SOFTWARE
_ATTRIBUTE: Final = "_forkserver_context"


class ServerContext(Record, frozen=True):
    """What stays the same as long as ``server`` serves. ``worker``: it is one of several processes under a master."""

    server: Any
    settings: Settings
    log: ErrorLog
    access: AccessLog
    worker: bool
    trust: TrustedProxies | None  # the proxies that are believed; a script's application sees to that itself
    request_ids: RequestIds
    id_header: str  # the field that tells a client the id of its request; empty for none
    hooks: Overrides
    notes_by_handler: bool  # ``log_request`` is called for each answer: in a script, and where a subclass logs
    notices: Notices
    spool: Spool
    request_deadline: RequestDeadline
    head_limits: HeadLimits  # what the head of a request may be
    clock: wire.Clock  # the lines Date and Server
    base_environ: BaseEnviron
    stream: ErrorStream
    answers: AnswerCounter
    unended: dict[int, str]  # what threads have begun of lines on a worker's ``wsgi.errors``

    @property
    def errors(self) -> Any:
        """``wsgi.errors`` where the handler class does not say otherwise: standard error, or a worker's error log."""
        return self.stream if self.worker else sys.stderr

    def end_lines(self) -> None:
        """Write what this thread has left without its line feed: its request is over."""
        self.stream.flush()

    def id_line(self, request_id: str) -> str:
        """The header field that tells a client the id of its request; empty where ``id_header`` is, or it has none."""
        return f"{self.id_header}: {request_id}\r\n" if self.id_header and request_id else ""

    @property
    def concurrency(self) -> tuple[bool, bool]:
        """``wsgi.multithread`` and ``wsgi.multiprocess``."""
        return _concurrency(self.server, self.settings, self.worker)

    @property
    def blocking(self) -> bool:
        """Whether every request is served by a blocking handler."""
        return self.hooks.blocking or is_tls(self.server.socket)

    def software(self, handler: Any) -> str:
        """The value of the Server field: the setting's, or what a subclass of the handler says."""
        return str(handler.version_string()) if self.hooks.version else self.settings.server_header

    def forget(self) -> None:
        """In a child that the application forked: what is gathered for the logs is for the worker to write."""
        self.request_ids.reseed()
        self.access.forget()
        self.answers.forget()
        self.stream.forget()
        self.spool.forget()


def make_context(
    server: Any,
    settings: Settings,
    log: ErrorLog,
    access: AccessLog,
    worker: bool = False,
    trust: TrustedProxies | None = None,
    row: Row | None = None,
    board: Iterable[Row] = (),
) -> ServerContext:
    """The context of ``server``, which becomes its own. ``row`` is the worker's row of the scoreboard ``board``."""
    stream = ErrorStream(log)
    request_deadline = RequestDeadline(row, settings.timeout)
    errors = stream if worker else sys.stderr
    base_environ = BaseEnviron(SOFTWARE, wsgi_variables(errors, *_concurrency(server, settings, worker)))
    base_environ.set("forkserver.extend_deadline", request_deadline.extend)
    # A script may change its classes between two servers.
    hooks = (overrides_of if worker else Overrides)(type(server), server.RequestHandlerClass)
    context = ServerContext(
        server,
        settings,
        log,
        access,
        worker,
        trust,
        RequestIds(trust, settings.request_id_from),
        settings.request_id_header or "",
        hooks,
        hooks.log or not worker,
        Notices(log),
        Spool(settings.spool_dir, settings.max_spool, settings.body_memory, settings.spool_keep_free, row, board),
        request_deadline,
        HeadLimits.of(settings),
        wire.Clock(settings.server_header),
        base_environ,
        stream,
        AnswerCounter(row),
        stream.unended if worker else {},
    )
    vars(server)[_ATTRIBUTE] = context
    return context


def context_of(server: Any) -> ServerContext:
    """The context of ``server``; a script's, with the default settings, where it has none yet."""
    known: dict[str, Any] = vars(server)
    found: ServerContext | None = known.get(_ATTRIBUTE)
    if found is None:
        found = make_context(server, settings_table.defaults(), ErrorLog("-", "info", "server"), AccessLog(None))
    return found


def _concurrency(server: Any, settings: Settings, worker: bool) -> tuple[bool, bool]:
    return settings.threads > 1 or is_threading(type(server)), worker
