"""WSGIRequestHandler: the documented hooks, and the complete blocking way to serve one request.

A subclass written for the stdlib's page works here. ``handle`` answers one request and closes; the event-driven worker
does not call it, but makes a handler with ``for_request`` where a subclass's hooks want one.

Source: the stdlib's pages on wsgiref.simple_server and http.server.
"""

from __future__ import annotations

import http.client
import io
import ssl
from email.message import Message
from functools import cached_property
from typing import Any, Final
from wsgiref import simple_server

from forkserver.errors import ProtocolError
from forkserver.http1.request import RequestHead, read_head
from forkserver.linux.common.records import NamedTuple
from forkserver.server.blocking import exchange
from forkserver.server.context import SOFTWARE, context_of
from forkserver.server.proxy.client_address import SECURE, ProxiedAddress, variables
from forkserver.server.wsgi.environ import apply_forwarded, make_environ

_READ_BYTES: Final = 64 * 1024
Names = tuple[str, str]  # SERVER_NAME and SERVER_PORT
Head = tuple[RequestHead, dict[str, Any] | None]  # as Seen


class Seen(NamedTuple):
    """The head that a handler speaks for, as it came from the client."""

    head: RequestHead
    extra: dict[str, Any] | None = None  # what is known of the client beside


class WSGIRequestHandler(simple_server.WSGIRequestHandler):
    """Answers one WSGI request.

    Takes the ``request`` socket, the ``client_address`` tuple and the ``server``; serves the request while it is
    constructed. Source: https://docs.python.org/3/library/wsgiref.html#wsgiref.simple_server.WSGIRequestHandler
    """

    server_version = SOFTWARE
    sys_version = ""
    protocol_version = "HTTP/1.1"
    # Underscored and few: a subclass has attributes of its own.
    _seen: Seen | None = None
    _fields: list[tuple[str, str]] | None = None  # of ``headers``, when it was made
    _names: Names | None = None  # where there are several listeners
    _refusing = False  # ``send_error`` answers a request that was refused, of which a worker's log tells otherwise
    _refused_id = ""  # of that request

    @cached_property
    def headers(self) -> Message:  # type: ignore[override]
        """The request's header fields, as ``http.client.parse_headers`` gives them."""
        raw = self._seen.head.raw if self._seen else b"\r\n\r\n"
        lines = io.BytesIO(raw[raw.index(b"\r\n") + 2 :])
        headers: Message = http.client.parse_headers(lines, _class=self.MessageClass)
        self._fields = headers.items()
        return headers

    def version_string(self) -> str:
        """The value of the Server field: ``server_version`` and, where set, ``sys_version``."""
        return f"{self.server_version} {self.sys_version}".strip()

    def get_environ(self) -> dict[str, Any]:
        """A new dict of the request's CGI variables: the server's ``base_environ`` and what the request says."""
        seen = self._seen
        if seen is None or self._differs(seen):
            environ = self._environ_as_changed()
            environ.pop("HTTP_TRANSFER_ENCODING", None)  # the application gets the body without it
            self._add_client(environ)
            return environ
        base: dict[str, Any] = self.server.base_environ  # type: ignore[attr-defined]
        environ = make_environ(base, seen.head, self.client_address, self._names)
        environ["SERVER_SOFTWARE"] = self.server_version
        self._add_client(environ)
        host = self.address_string()
        if host != self.client_address[0]:
            environ["REMOTE_HOST"] = host
        return environ

    def _environ_as_changed(self) -> dict[str, Any]:
        """The environ of what an override has set, as the standard library makes it.

        Fields that ``http1.headers`` drops are left out here too: X_Forwarded_For would pass for X-Forwarded-For.
        """
        headers, kept = self.headers, self.MessageClass()
        for name, value in headers.items():
            if "_" not in name and name.lower() != "proxy":
                kept[name] = value
        self.headers = kept
        try:
            return super().get_environ()
        finally:
            self.headers = headers

    def _add_client(self, environ: dict[str, Any]) -> None:
        """What is known of the client beside the request, in a worker."""
        context, peer = context_of(self.server), self.client_address
        if self._seen is not None and self._seen.extra is not None:
            environ.update(self._seen.extra)
        elif context.worker and isinstance(self.request, ssl.SSLSocket):
            environ.update(variables(self.request))
        elif isinstance(peer, ProxiedAddress) and peer.secure:
            environ.update(SECURE)
        apply_forwarded(environ, peer, context.trust, context.notices)

    def _differs(self, seen: Seen) -> bool:
        """Whether an override has set another method, path or header field than the client sent: it counts."""
        sent = (seen.head.method, seen.head.target, seen.head.protocol)
        if (self.command, self.path, self.request_version) != sent:
            return True
        headers: Message | None = vars(self).get("headers")
        return headers is not None and headers.items() != self._fields

    def get_stderr(self) -> Any:
        """The stream for ``wsgi.errors``: standard error, or a worker's error log."""
        return context_of(self.server).errors

    def end_headers(self) -> None:
        """End the header fields. Where the connection ends with the answer, they say so (RFC 9112 section 9.6).

        The page of a request that was refused has its id, where answers have one.
        """
        answer: list[bytes] = vars(self).get("_headers_buffer", [])
        interim = bool(answer) and answer[0].partition(b" ")[2].startswith(b"1")
        if self.close_connection and not interim and not any(line[:11].lower() == b"connection:" for line in answer):
            self.send_header("Connection", "close")
        if self._refusing and (name := context_of(self.server).id_header):
            self.send_header(name, self._refused_id)
        super().end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Note an answered request by ``log_message``. A worker notes it in its access log; here only for a subclass
        that logs by itself."""
        if not context_of(self.server).worker or type(self).log_message is not WSGIRequestHandler.log_message:
            super().log_request(code, size)

    def log_error(self, format: str, *args: Any) -> None:
        """Log an error by ``log_message``; a worker tells of requests that it refused by itself, limited in rate."""
        own = WSGIRequestHandler
        logs = type(self).log_error is not own.log_error or type(self).log_message is not own.log_message
        if logs or not (self._refusing and context_of(self.server).worker):
            super().log_error(format, *args)

    def log_message(self, format: str, *args: Any) -> None:
        """Log a line to standard error, in a worker to its error log."""
        context = context_of(self.server)
        if context.worker:
            context.log.info(f"{self.address_string()} {format % args}")
        else:
            super().log_message(format, *args)

    def handle(self) -> None:
        """Answer one request on the blocking socket, and close."""
        context = context_of(self.server)
        self.close_connection = True
        try:
            self.raw_requestline = self.rfile.readline(context.settings.limit_request_line + 3)
            if self.raw_requestline and self.parse_request() and self._seen is not None:
                exchange.answer(self, self._seen.head, context)
        except TimeoutError as error:
            self.log_error("Request timed out: %r", error)
        except (ConnectionError, ssl.SSLError) as error:
            self.log_error("Connection lost: %r", error)
        self.close_connection = True

    def parse_request(self) -> bool:
        """Read the head that ``raw_requestline`` begins; False where it was refused and the answer is sent."""
        self.close_connection = True
        data = self.raw_requestline
        self._show_line(data)
        context = context_of(self.server)
        scanned = 0
        try:
            while (head := read_head(data, context.head_limits, scanned)) is None:
                scanned = len(data)
                line = self.rfile.readline(_READ_BYTES)
                if not line:
                    raise ProtocolError(400, "the head ends early")
                data += line
        except ProtocolError as error:
            self._show_line(data.lstrip(b"\r\n"))
            exchange.refuse(self, error, context)
            return False
        self._show(head)
        if self.protocol_version >= "HTTP/1.1":  # an override of handle may go on with the next request
            self.close_connection = not head.persistent
        return not head.expects_continue or self.handle_expect_100()

    def _show_line(self, data: bytes) -> None:
        """Show a request line that may yet be refused, for the log and for an answer to HEAD without a body."""
        vars(self).pop("headers", None)
        self._seen = None
        self.requestline = data.split(b"\r\n", 1)[0].decode("latin-1")
        words = self.requestline.split()
        self.command, self.path = [*words, "", ""][:2]
        self.request_version = "HTTP/1.1"

    def _show(self, head: RequestHead) -> None:
        """Show the head that was read in the documented attributes."""
        vars(self).pop("headers", None)
        self._seen = Seen(head)
        self.requestline = f"{head.line.decode('latin-1')} {head.protocol}"
        self.raw_requestline = head.raw[: head.raw.index(b"\r\n") + 2]
        self.command = head.method
        self.path = head.target
        self.request_version = head.protocol

    @classmethod
    def for_request(
        cls, request: Any, peer: Any, server: Any, names: Names | None, line: bytes, head: Head | None
    ) -> WSGIRequestHandler:
        """A handler that serves nothing itself, with its documented attributes, for the event-driven worker.

        ``line`` is the beginning of a head that is refused; where it was accepted ``head`` is that head.
        """
        self = cls.__new__(cls)
        self.request = self.connection = request
        self.client_address = peer
        self.server = server
        self.rfile, self.wfile = io.BytesIO(), io.BytesIO()
        self.close_connection = True
        self._names = names
        if head is None:
            self.raw_requestline = line
            self._show_line(line)
        else:
            self._show(head[0])
            self._seen = Seen(*head)
        return self
