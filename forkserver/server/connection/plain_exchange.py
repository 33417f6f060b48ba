"""The seam to the extension: which connections it reads from, and how Python goes on where it stops.

The extension reads a plain request into an object that is head and start_response in one, calls the application, and
sends an answer that comes at once. For everything else it asks for a Response (``_adopt``), or gives back what it has:
a result that is not plain, a block and the iterator behind it, bytes that the kernel has not taken, an exception. The
exchange then goes on as if it had been Python's from the beginning (``conclude``).

The loop leaves to it all that is ready (``receive_all``), and each request in its turn (``serve``): to connections that
are as they should be it does what ``Connection.readable`` and ``serve`` do, and the others it leaves to those.

Where a connection speaks TLS, the transport receives and opens (``receive``), and seals and sends; what stands between
is the extension's as elsewhere.

Nothing is left to the extension where a class overrides a hook that is called for each request, nor in a script, where
the handler logs each request.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from forkserver.http1.request import read_head
from forkserver.http1.response import BODILESS, check
from forkserver.ipc.scoreboard import Row
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.syscalls import monotonic
from forkserver.logs.access_format import NO_FACTS
from forkserver.server.connection.exchange import Exchange
from forkserver.server.connection.lifecycle import OpenConnection
from forkserver.server.connection.protocols import UNKNOWN
from forkserver.server.connection.states import CALLING, READING, READY
from forkserver.server.proxy.client_address import sender
from forkserver.server.wsgi.accelerator.loading import load
from forkserver.server.wsgi.access_log_entry import add_entry, values_of
from forkserver.server.wsgi.access_log_entry import facts_of as answer_facts
from forkserver.server.wsgi.error_reports import report_fault
from forkserver.server.wsgi.response import Response
from forkserver.server.wsgi.response_sink import ClientGoneError
from forkserver.server.wsgi.run import go_on

if TYPE_CHECKING:
    from forkserver.server.connection.protocols import ConnectionLoop
    from forkserver.server.context import ServerContext
    from forkserver.server.wsgi.accelerator._exchange import Context, Facts, Request

    Outcome = bool | bytes | tuple[()] | tuple[object] | None

_SLOTS: Final = {name: vars(OpenConnection)[name] for name in OpenConnection.__slots__}


def make_context(loop: ConnectionLoop, connection_class: type[OpenConnection]) -> Context | None:
    """What the extension needs to serve plain requests of ``loop``; None where Python serves them all."""
    context, row = loop.context, loop.row
    hooks, limits = context.hooks, context.head_limits
    if type(row) is not Row or hooks.any or hooks.get_app or context.blocking or context.notes_by_handler:
        return None
    if context.settings.error_page == "on":  # Python notes which request was passed on, and what is not logged
        return None
    try:
        extension = load()
    except ImportError as error:
        context.log.warning(f"Python serves, as the C extension cannot be loaded: {error}; install forkserver anew")
        return None
    if extension is None:
        return None
    line_parts = context.access.parts
    add_lines = context.access.add_lines if line_parts else None
    made: Context = extension.Context(
        limits=(limits.request_line, limits.fields, limits.field_size, limits.head),
        forwarded=context.trust and context.trust.fields,
        trusts=context.trust and context.trust.trusts,
        id_fields=tuple(context.settings.request_id_from),
        id_header=context.id_header.encode(),
        base_environ=context.base_environ,
        loop=loop,
        loop_lock=loop.loop_lock,
        adopt=partial(_adopt, loop),
        read_head=lambda raw: read_head(raw, context.head_limits),
        server_line=context.clock.server.encode("latin-1"),
        row=row.memory,
        threads=row.places,
        renewal=context.request_deadline.renewal,
        add_lines=add_lines,
        log_answer=partial(_log_answer, context) if context.access.enabled else None,
        line_parts=line_parts,
    )
    if add_lines is not None:
        context.access.collect_from(made.hand_over_lines)
    states = READING, READY, CALLING
    made.attach(connection_class, _SLOTS, states, loop.timeouts, loop.calls.submit, context.unended)
    return made


def _log_answer(context: ServerContext, connection: OpenConnection, request: Request, environ: dict[str, Any]) -> None:
    """Tell the access log of an answer that was sent, where that is not told by one line that is made in C."""
    access = context.access
    facts = NO_FACTS
    if not access.plain:
        values = values_of(access.named, lambda: request.fields, environ, request.text, _length_of(request))
        began = request.began * 1e-9
        facts = answer_facts(request.request_id, environ, connection.whole_at, began, monotonic(), values)
    line = f"{request.line.decode('latin-1')} {request.protocol}"
    add_entry(
        access.add, line, environ, request.code, request.sent_size, request.referer or "", request.agent or "", facts
    )


def _length_of(request: Request) -> int | None:
    return None if request.length < 0 else request.length


def facts_of(connection: OpenConnection) -> Facts | None:
    """What every request of ``connection`` says in its environ; None where the extension cannot serve it."""
    context, transport, peer = connection.loop.context, connection.transport, connection.peer
    if type(connection.sock) is not PlainSocket:
        return None
    name, name_port = connection.listener.names or (None, None)
    port = str(peer[1]) if len(peer) > 1 and peer[0] else None
    host = sender(peer)
    trusted = context.trust is not None and host is not None and context.trust.trusts(host)
    return str(peer[0]), port, name, name_port, trusted, transport.extra, transport.send_whole


def receive(connection: OpenConnection, size: int) -> Request | bytes:
    """What the transport receives: a Request where that was opened here, and is plain. Raises OSError."""
    transport = connection.transport
    data = transport.recv(size)
    if transport.facts is UNKNOWN:
        transport.facts = facts_of(connection)
    if transport.facts is None or connection.buffer or not data:
        return data
    return connection.loop.plain.take(data, transport.facts)  # type: ignore[union-attr]


def answer(connection: OpenConnection, request: Request) -> None:
    """Call the application with ``request`` and send its answer."""
    loop = connection.loop
    connection.exchange = request
    persistent = request.persistent and not (loop.closing or (connection.stays and loop.retiring))
    try:
        outcome = request.answer(loop.context.server.application, connection, connection.thread, persistent)
    except BaseException as error:
        conclude(connection, request, None, error)
    else:
        conclude(connection, request, outcome, None)


def conclude(connection: OpenConnection, request: Request, outcome: Outcome, error: BaseException | None) -> None:
    """The application was called, which has given ``outcome`` (request.c) or raised ``error``: go on with that."""
    if error is not None:
        try:
            raise error
        except BaseException:
            if request.ended:  # it is not the application's
                connection.exchange = None
                raise
            _go_on(connection, request, None, error)
        finally:
            del error  # whose traceback has this frame: no circle keeps what the application had
    elif outcome is True or outcome is False:
        connection.exchange = None
        connection.persistent = outcome
        if connection.loop.context.unended:
            connection.loop.context.end_lines()
    else:
        _go_on(connection, request, outcome, None)


def _adopt(loop: ConnectionLoop, connection: OpenConnection | None, request: Request) -> Response:
    """The Response that goes on with what the application has said so far. With the loop lock.

    ``connection`` is None where the call is over.
    """
    if connection is None:
        return _late_response(loop, request)
    exchange = Exchange(connection, request)
    response = Response(exchange, loop.context.clock, request.method, request.http11, request.kept_open)
    exchange.request_id = request.request_id
    response.id_line = loop.context.id_line(request.request_id)
    if request.code:
        line, *fields = request.text.split("\r\n")[:-1]
        headers = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
        if request.length >= 0:
            headers.append(("Content-Length", str(request.length)))
        response.headers = check(line.removeprefix("HTTP/1.1 "), headers)
    if request.sent:
        _note_sent(response, request)
    exchange.response = response
    connection.exchange = exchange
    return response


def _note_sent(response: Response, request: Request) -> None:
    """The answer went out, or is in what was given back."""
    response.head_sent = True
    response.status = request.code
    response.remaining = 0
    response.sent = request.sent_size
    response.muted = request.method == "HEAD" or request.code in BODILESS


def _late_response(loop: ConnectionLoop, request: Request) -> Response:
    """For an application that has kept ``start_response`` or ``write``: faults are reported, and nothing is sent."""
    sink: Any = _LateSink(loop, request.line, request.request_id)
    response = Response(sink, loop.context.clock, request.method, request.http11, False)
    response.headers = check("200 OK", [])
    _note_sent(response, request)
    return response


class _LateSink:
    """In place of an exchange that is over. It refers to no connection, and to no request."""

    def __init__(self, loop: ConnectionLoop, line: bytes, request_id: str) -> None:
        self.loop_lock = loop.loop_lock
        self._log, self._line, self._request_id = loop.context.log, line.decode("latin-1"), request_id

    def report(self, message: str, error: BaseException | None = None) -> None:
        report_fault(None, self._log, self._line, self._request_id, message, error)


def _go_on(connection: OpenConnection, request: Request, outcome: Outcome, error: BaseException | None) -> None:
    """Send what the extension has left."""
    response = request.adopt()
    exchange: Any = response.sink
    environ = request.environ
    assert environ is not None
    try:
        go_on(response, request.result, partial(_send_rest, connection, request, response, outcome), error)
    finally:
        exchange.end_call()
        request.finish()
    exchange.conclude(environ, response)


def _send_rest(connection: OpenConnection, request: Request, response: Response, outcome: Any) -> None:
    """Send what ``outcome`` has of the answer, and what comes behind it. Raises ClientGoneError."""
    if outcome is None:
        raise ClientGoneError
    if not isinstance(outcome, bytes):
        if outcome:
            response.send_rest(request.iterator, *outcome)
        else:
            response.send_result(request.result)
        return
    if outcome:
        try:
            connection.transport.keep(outcome)
        except ClientGoneError as gone:
            response.sent -= min(response.sent, gone.unsent)
            raise
    if request.iterator is not None:
        response.sink.renew()
        response.send_rest(request.iterator)
