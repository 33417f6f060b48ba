"""WSGIRequestHandler: the documented hooks, and the complete blocking way to serve one request.

It promises that a subclass written for the stdlib's page works here. ``handle`` answers one request and closes; the
event-driven worker does not call it, but makes a handler with ``for_request`` where a subclass's hooks want one.

Source: the stdlib's pages on wsgiref.simple_server and http.server.
"""

from __future__ import annotations

import http.client
import io
import socket
import sys
import traceback
from collections.abc import Callable
from email.message import Message
from functools import cached_property
from time import time
from typing import IO, TYPE_CHECKING, Any, Final, cast
from wsgiref import simple_server

from forkserver.errors import ProtocolError
from forkserver.serving import gateway
from forkserver.serving.buffers import BodyBuffer
from forkserver.wire import response as wire
from forkserver.wire.body import Body, ChunkedBody, FixedBody
from forkserver.wire.request import Block, HeadReader

if TYPE_CHECKING:
    from forkserver.serving.server import WSGIServer

_READ_BYTES: Final = 64 * 1024


class WSGIRequestHandler(simple_server.WSGIRequestHandler):
    """Answers one WSGI request.

    Takes the ``request`` socket, the ``client_address`` tuple and the ``server``; serves the request while it is
    constructed. Source: https://docs.python.org/3/library/wsgiref.html#wsgiref.simple_server.WSGIRequestHandler
    """

    server_version = "forkserver"
    sys_version = ""
    server: WSGIServer
    _head: HeadReader | None = None  # the request line, once there is one
    _block: Block
    _raw: bytes = b""
    _names: tuple[str, str] | None = None  # SERVER_NAME and SERVER_PORT where there are several listeners

    @cached_property
    def headers(self) -> Message:  # type: ignore[override]
        """The request's header fields, as ``http.client.parse_headers`` gives them."""
        return http.client.parse_headers(io.BytesIO(self._raw))

    def version_string(self) -> str:
        """The value of the Server field: ``server_version`` and, where set, ``sys_version``."""
        return f"{self.server_version} {self.sys_version}".strip()

    def get_environ(self) -> dict[str, Any]:
        """A new dict of the request's CGI variables: the server's ``base_environ`` and what the request says."""
        head = self._head
        if head is None:
            return super().get_environ()
        environ = gateway.environ_for(self.server.base_environ, self._block, self.client_address, self._names)
        gateway.add_request_line(environ, head)
        host = self.address_string()
        if host != self.client_address[0]:
            environ["REMOTE_HOST"] = host
        return environ

    def get_stderr(self) -> Any:
        """The stream for ``wsgi.errors``."""
        return sys.stderr

    def handle(self) -> None:
        """Answer one request on the blocking socket, and close."""
        self.close_connection = True
        try:
            self.raw_requestline = self.rfile.readline(self.server.settings.limit_request_line + 3)
            if not self.raw_requestline or not self.parse_request():
                return
            body = BodyBuffer(self.server.spool)
            try:
                if self._collect(body):
                    self._respond(body)
            finally:
                body.close()
        except (TimeoutError, ConnectionError) as error:
            self.log_error("connection lost: %r", error)

    def parse_request(self) -> bool:
        """Read the head that ``raw_requestline`` begins; False where it was refused and the answer is sent."""
        self.requestline = ""
        self.request_version = self.command = ""
        reader = HeadReader(self.server.memo)
        data = self.raw_requestline
        try:
            while (block := reader.read(data)) is None:
                line = self.rfile.readline(_READ_BYTES)
                if not line:
                    raise ProtocolError(400, "the head ends early")
                data += line
        except ProtocolError as error:
            self._refuse(error)
            return False
        self.take_head(reader, block)
        return True

    def take_head(self, head: HeadReader, block: Block) -> None:
        """Show the head that was read in the documented attributes."""
        self._head, self._block = head, block
        line_end = block.raw.index(b"\r\n") + 2
        self._raw = block.raw[line_end:]
        self.raw_requestline = head.line + block.raw[:line_end]
        self.requestline = f"{head.line.decode('latin-1')} {block.protocol}"
        self.command = head.method
        self.path = head.target
        self.request_version = block.protocol

    def _refuse(self, error: ProtocolError) -> None:
        self.request_version = "HTTP/1.1"  # else BaseHTTPRequestHandler answers in the manner of HTTP/0.9
        self.send_error(error.status)

    def _collect(self, body: BodyBuffer) -> bool:
        """Read the whole request body; False where it was refused."""
        block = self._block
        if not block.has_body:
            return True
        if block.expects_continue and not self.handle_expect_100():
            return False
        framing: Body = (
            ChunkedBody(self.server.settings.max_body) if block.chunked else FixedBody(cast(int, block.length))
        )
        try:
            while not framing.done:
                # By lines where the framing is lines: a read must not wait for what follows the body.
                data = self.rfile.readline(_READ_BYTES) if block.chunked else self.rfile.read1(_READ_BYTES)
                if not data:
                    raise ProtocolError(400, "the body ends early")
                body.add(framing.feed(data))
        except ProtocolError as error:
            self._refuse(error)
            return False
        except OSError as error:
            if isinstance(error, (TimeoutError, ConnectionError)):
                raise
            self.server.report(self, f"cannot keep a request body: {error}")
            self._refuse(ProtocolError(503, "no room for the body"))
            return False
        return True

    def _respond(self, body: BodyBuffer) -> None:
        block = self._block
        environ = self.get_environ()
        if block.chunked:
            environ["CONTENT_LENGTH"] = str(body.size)
        environ.update(gateway.wsgi_variables(self.get_stderr(), *self.server.concurrency))
        environ["wsgi.url_scheme"] = gateway.scheme_of(environ)
        environ["wsgi.input"] = body.open()
        sink = StreamSink(self)
        response = gateway.Response(sink, wire.Clock(self.version_string()), self.command, block.http11, False)
        app = cast(gateway.App, self.server.get_app())
        gateway.run(app, environ, response)
        self.log_request(response.fields.code if response.fields else 500, response.sent)

    @classmethod
    def for_request(cls, request: Any, peer: Any, server: Any, names: tuple[str, str] | None) -> WSGIRequestHandler:
        """A handler that has not served anything, with its documented attributes, for the event-driven worker."""
        self = cls.__new__(cls)
        self.request = self.connection = request
        self.client_address = peer
        self.server = server
        self.rfile, self.wfile = io.BytesIO(), io.BytesIO()
        self.close_connection = True
        self.command = self.path = self.requestline = ""
        self.raw_requestline = b""
        self.request_version = "HTTP/1.1"
        self._names = names
        return self


class StreamSink:
    """Sends a response through a handler's ``wfile``; blocking, so that nothing is ever kept."""

    def __init__(self, handler: WSGIRequestHandler) -> None:
        self._handler = handler
        self._write = handler.wfile.write

    def send(self, data: bytes, body: bytes = b"") -> None:
        try:
            self._write(data + body if len(body) < _READ_BYTES else data)
            if len(body) >= _READ_BYTES:
                self._write(body)
        except (TimeoutError, ConnectionError) as error:
            raise gateway.ClientGoneError from error

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        try:
            self.send(head)
            while count and (data := file.read(min(count, _READ_BYTES))):
                self.send(data)
                count -= len(data)
        finally:
            close()

    def report(self, message: str, error: BaseException | None = None) -> None:
        """As wsgiref does: to the stream that ``get_stderr`` gives."""
        stream = self._handler.get_stderr()
        print(f"{message}: {self._handler.requestline}", file=stream)
        if error is not None:
            traceback.print_exception(error, file=stream)

    def fail(self, error: BaseException) -> None:
        clock = wire.Clock(self._handler.version_string())
        clock.at(time())
        try:
            self.send(wire.error(500, clock.both, self._handler.command))
        except gateway.ClientGoneError:
            self.report("the client left before the error page", None)

    def abort(self) -> None:
        """Make the closing that follows visible as one: a reset, not an orderly end."""
        request = self._handler.request
        if isinstance(request, socket.socket):
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
