"""One request answered on a blocking socket: collect its body, call the application, send what it returns.

The rules are those of the event-driven connection (limits, error pages, logs), at the cost of a thread that waits.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from typing import IO, Any, Final, cast

from forkserver.errors import ProtocolError
from forkserver.http1 import response as wire
from forkserver.http1.body import Body, ChunkedBody, FixedBody
from forkserver.http1.request import RequestHead
from forkserver.linux.files.file_size_limit import why_unwritten
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.resets import close_in_order, reset_at_close
from forkserver.linux.syscalls import monotonic, wall_time
from forkserver.logs.access_format import NO_FACTS
from forkserver.server.buffers.body_buffer import BodyBuffer
from forkserver.server.buffers.receive_rate import ReceiveRate
from forkserver.server.connection.rejection import log_refused
from forkserver.server.connection.timeouts import LINGER_BYTES, LINGER_QUIET_SECONDS, LINGER_SECONDS
from forkserver.server.context import ServerContext
from forkserver.server.proxy.request_id import VARIABLE
from forkserver.server.threads.loop_lock import acquired_lock
from forkserver.server.wsgi.access_log_entry import facts_of, log_answer, values_of
from forkserver.server.wsgi.environ import complete_environ, scheme_of, wsgi_variables
from forkserver.server.wsgi.error_reports import report_fault
from forkserver.server.wsgi.response import Response
from forkserver.server.wsgi.response_sink import ClientGoneError
from forkserver.server.wsgi.run import run

Handler = Any  # a WSGIRequestHandler, whose module stands on this one

_READ_BYTES: Final = 64 * 1024
_OF_UPLOADS: Final = (413, 503)  # refused for their size or for want of room, while the client sends on


def answer(handler: Handler, head: RequestHead, context: ServerContext) -> None:
    """Answer the request whose head ``handler`` has read, and whose body, if any, its ``rfile`` holds."""
    body = BodyBuffer(context.spool)
    try:
        _collect(handler, head, body, context)
        _respond(handler, head, body, context)
    except ProtocolError as error:
        refuse(handler, error, context)
    finally:
        body.close()


def refuse(handler: Handler, error: ProtocolError, context: ServerContext) -> None:
    """Answer a request that is not accepted, by the documented ``send_error``."""
    handler.request_version = "HTTP/1.1"  # else BaseHTTPRequestHandler answers in the manner of HTTP/0.9
    fields = handler._seen.head.fields if handler._seen else error.fields
    handler._refused_id = request_id = context.request_ids.of(fields or {}, handler.client_address)
    handler._refusing = True
    stream, handler.wfile = handler.wfile, io.BytesIO()
    try:
        handler.send_error(error.status)
    finally:
        handler._refusing = False
        answer = handler.wfile.getvalue()
        handler.wfile = stream
        client, size = str(handler.client_address[0]), wire.body_size(answer)
        log_refused(context, error, client, handler.requestline, size, request_id)
        handler.wfile.write(answer)
    if error.status in _OF_UPLOADS and isinstance(handler.connection, PlainSocket):
        handler.wfile.flush()
        _linger(handler.connection)


def _linger(client: socket.socket) -> None:
    """Shut the writing side, and drop what still comes of a body that was refused.

    Left unread it would make a reset of the close, which can overtake the answer (RFC 9112 section 9.6).
    """
    until, dropped = monotonic() + LINGER_SECONDS, 0
    try:
        client.shutdown(socket.SHUT_WR)
        while dropped < LINGER_BYTES and (left := until - monotonic()) > 0:
            client.settimeout(min(left, LINGER_QUIET_SECONDS))
            size = len(client.recv(_READ_BYTES))
            if not size:
                break
            dropped += size
    except OSError:  # it has gone, or sends nothing more
        return


def _collect(handler: Handler, head: RequestHead, body: BodyBuffer, context: ServerContext) -> None:
    """Read the whole request body. Raises ProtocolError where it is refused."""
    if not head.has_body:
        return
    limits, progress = context.settings, ReceiveRate(monotonic())
    framing: Body = ChunkedBody(limits.max_body) if head.chunked else FixedBody(cast(int, head.length))
    while not framing.done:
        # By lines where the framing is lines: a read must not wait for what follows the body.
        data = handler.rfile.readline(_READ_BYTES) if head.chunked else handler.rfile.read1(_READ_BYTES)
        if not data:
            raise ProtocolError(400, "the body ends early")
        progress.add(len(data), now := monotonic())
        if why := progress.verdict(now, 0.0, limits.body_timeout, limits.body_min_rate):
            raise ProtocolError(408, why)
        _keep(body, framing.feed(data), handler, context)


def _keep(body: BodyBuffer, data: bytes, handler: Handler, context: ServerContext) -> None:
    try:
        body.add(data)
    except OSError as error:
        context.notices.no_room(why_unwritten(error))
        raise ProtocolError(503, "no room for the body") from error


def _respond(handler: Handler, head: RequestHead, body: BodyBuffer, context: ServerContext) -> None:
    environ = handler.get_environ()  # raises ProtocolError where a proxy's word of the client cannot be read
    errors = handler.get_stderr()
    environ.update(wsgi_variables(errors, *context.concurrency))
    environ["forkserver.extend_deadline"] = context.request_deadline.here()
    environ["wsgi.url_scheme"] = scheme_of(environ)
    environ[VARIABLE] = request_id = context.request_ids.of(head.fields, handler.client_address)
    context.request_deadline.name(request_id)
    sink = StreamSink(handler, errors, context, request_id)
    response = Response(sink, wire.Clock(context.software(handler)), handler.command, head.http11, False)
    response.id_line = context.id_line(request_id)
    complete_environ(environ, head, body.open(), body.size, response)
    server = handler.server
    began = monotonic()
    run(server.get_app(), environ, response)
    sink.end()
    if context.unended:
        context.end_lines()
    context.answers.add(response.status, response.sent, body.size)
    if context.notes_by_handler:
        handler.log_request(str(response.status), response.sent)
    if context.access.enabled:
        _log(handler, head, environ, response, context, (request_id, began, monotonic()))


def _log(
    handler: Handler,
    head: RequestHead,
    environ: dict[str, Any],
    response: Response,
    context: ServerContext,
    call: tuple[str, float, float],
) -> None:
    """Tell the access log of the answer to a ``call``: the request's id, when it began, and when it ended."""
    facts, access = NO_FACTS, context.access
    if not access.plain:
        headers, (request_id, began, ended) = response.headers, call
        text, length = ("", None) if headers is None or not response.head_sent else (headers.text, headers.length)
        values = values_of(access.named, lambda: head.fields, environ, text, length)
        facts = facts_of(request_id, environ, None, began, ended, values)
    log_answer(access.add, handler.requestline, head.fields, environ, response, facts)


class StreamSink:
    """Sends a response through a handler's ``wfile``; blocking, so that nothing is ever kept."""

    def __init__(self, handler: Handler, errors: Any, context: ServerContext, request_id: str = "") -> None:
        self._handler = handler
        self._errors = errors
        self._context = context
        self._request_id = request_id
        self._write = handler.wfile.write
        self._open_ended = False  # the connection's end is the body's, which is not whole yet
        self.loop_lock = acquired_lock()

    def send(self, data: bytes, body: bytes = b"") -> None:
        if len(body) < _READ_BYTES:
            self._write_all(data + body, 0)
            return
        self._write_all(data, len(body))
        for at in range(0, len(body), _READ_BYTES):  # of a write that fails nothing says how much was sent
            self._write_all(body[at : at + _READ_BYTES], max(0, len(body) - at - _READ_BYTES))

    def _write_all(self, data: bytes, left: int) -> None:
        """Send ``data``, behind which ``left`` bytes are to follow."""
        try:
            self._write(data)
        except OSError as error:
            self.abort()  # it may be there yet, and have taken nothing for too long
            raise ClientGoneError(len(data) + left) from error

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        try:
            self.send(head)
            while count and (data := file.read(min(count, _READ_BYTES))):
                self.send(data)
                count -= len(data)
        except ClientGoneError as gone:
            gone.unsent = count  # all of the block that was not sent whole
            raise
        finally:
            close()
        if count:
            self.report("the file became shorter while it was sent")
            self.abort()

    def report(self, message: str, error: BaseException | None = None) -> None:
        """Tell of the application's fault on ``wsgi.errors``; in a worker as one event of the error log."""
        context = self._context
        stream = None if context.worker and self._errors is context.errors else self._errors
        report_fault(stream, context.log, self._handler.requestline, self._request_id, message, error)

    @property
    def worker(self) -> bool:
        return self._context.worker

    def renew(self) -> None:
        self._context.request_deadline.renew()

    def fail(self, status: int) -> int:
        date = wire.Clock(self._context.software(self._handler)).at(wall_time())
        answer = wire.error(status, date, self._handler.command, self._context.id_line(self._request_id))
        self.send(answer)
        return wire.body_size(answer)

    def abort(self) -> None:
        """Make the closing that follows visible as one: a reset, not an orderly end."""
        self._open_ended = False
        reset_at_close(self._handler.request)

    def delimit_by_close(self) -> None:
        """The client takes the connection's end for the body's: should the process be killed, the kernel resets it."""
        self._open_ended = True
        reset_at_close(self._handler.request)

    def end(self) -> None:
        """The call is over; a body that did not break off is whole."""
        if self._open_ended:
            close_in_order(self._handler.request)
