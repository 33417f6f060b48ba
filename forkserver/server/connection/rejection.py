"""Requests that are answered without the application: error pages, what is logged of them, and the end that follows.

``refuse`` sends the page for a ProtocolError (400, 408, 413, 431, 503 and so on) and closes. Clients often still send a
body that was refused: what follows is read and dropped (``OpenConnection.linger``), but for a client that was too slow.

Source: RFC 9110 section 15, RFC 9112 section 9.6.
"""

from __future__ import annotations

from forkserver.errors import ProtocolError
from forkserver.http1 import response as wire
from forkserver.http1.in_the_clear import HINT
from forkserver.http1.request import first_line
from forkserver.linux.syscalls import wall_time
from forkserver.logs.access_format import NO_FACTS
from forkserver.server.connection.lifecycle import OpenConnection
from forkserver.server.connection.states import READING
from forkserver.server.connection.timeouts import LINGER_SECONDS
from forkserver.server.context import ServerContext
from forkserver.server.wsgi.environ import apply_forwarded
from forkserver.server.wsgi.response_sink import ClientGoneError

_RETRY_SECONDS = 1  # Retry-After of a 503


def refuse(connection: OpenConnection, error: ProtocolError) -> None:
    """Answer a request that is not accepted, and close."""
    context, line = connection.loop.context, request_line(connection)
    client, request_id = client_address(connection), id_of(connection, error)
    if connection.upload is not None:
        connection.upload.drop()
        connection.upload = None
    connection.persistent = False
    try:
        if context.hooks.error or context.notes_by_handler:
            size = send_page(connection, documented_page(connection, error, request_id))
        else:
            size = send_page(connection, error_page(connection, error.status, context.id_line(request_id)))
    except ClientGoneError:
        log_refused(context, error, client, line, 0, request_id)
        connection.close()
        return
    log_refused(context, error, client, line, size, request_id)
    connection.buffer = b""
    if error.status != 408:  # a client that was too slow gets no further time
        connection.linger_until = connection.loop.timeouts.now + LINGER_SECONDS
    if connection.transport.out:
        connection.drain()
    else:
        connection.linger()


def error_page(connection: OpenConnection, status: int, extra: str = "") -> bytes:
    """The whole answer ``status``: fields, with the lines ``extra`` among them, and page."""
    context = connection.loop.context
    clock = context.clock
    if context.hooks.version:
        with connection.loop.calls.in_hook(b"version_string"):
            clock = wire.Clock(connection.handler_object().version_string())
    if connection.state is READING or connection.head is None:  # no head yet, or none that could be read
        method = "HEAD" if connection.buffer.startswith(b"HEAD ") else "GET"
    else:
        method = connection.head.method
    if status == 503:
        extra += f"Retry-After: {_RETRY_SECONDS}\r\n"
    return wire.error(status, clock.at(wall_time()), method, extra, HINT if connection.transport.in_the_clear else "")


def documented_page(connection: OpenConnection, error: ProtocolError, request_id: str) -> bytes:
    """As BaseHTTPRequestHandler.send_error makes it, with what the handler class overrides."""
    handler = connection.handler_object()
    handler._refusing, handler._refused_id = True, request_id
    with connection.loop.calls.in_hook(b"send_error"):
        handler.send_error(error.status, explain=HINT if connection.transport.in_the_clear else None)
    answer: bytes = handler.wfile.getvalue()
    return answer


def send_page(connection: OpenConnection, page: bytes) -> int:
    """Send ``page``, which has a head; the bytes of its body. Raises ClientGoneError."""
    connection.transport.send(page)
    return wire.body_size(page)


def log_refused(
    context: ServerContext, error: ProtocolError, client: str, line: str, size: int, request_id: str
) -> None:
    """Count a request refused with a page of ``size`` bytes, and tell both logs; a script's handler has done so."""
    context.answers.add(error.status, size)
    if context.worker:
        context.notices.refused(client, error, lambda: line, request_id)
    access = context.access
    if access.enabled:
        facts = NO_FACTS if access.plain else NO_FACTS._replace(request_id=request_id)
        access.add(client, "", line[: context.settings.limit_request_line], error.status, size, "", "", facts)


def client_address(connection: OpenConnection) -> str:
    """The address of the client: as trusted proxies name it, once the head was read."""
    peer = str(connection.peer[0])
    if connection.state is READING or connection.head is None:
        return peer
    context, environ = connection.loop.context, {"REMOTE_ADDR": peer, **connection.head.fields}
    try:
        apply_forwarded(environ, connection.peer, context.trust, context.notices)
    except ProtocolError:  # it may be what the request is refused for
        return peer
    return environ["REMOTE_ADDR"]


def id_of(connection: OpenConnection, error: ProtocolError) -> str:
    """An id for the request that is refused: a trusted proxy's where its head was understood, else one of ours."""
    head = None if connection.state is READING else connection.head
    fields = error.fields if head is None else head.fields
    return connection.loop.context.request_ids.of(fields or {}, connection.peer)


def request_line(connection: OpenConnection) -> str:
    """The request line of the request in hand, as far as it was read."""
    if connection.state is not READING and connection.head is not None:
        return f"{connection.head.line.decode('latin-1')} {connection.head.protocol}"
    return first_line(connection.buffer or connection.line, connection.loop.context.settings.limit_request_line)
