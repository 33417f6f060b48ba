"""One request being answered: the call of the application, its answer on the way out, and what is logged of both.

An exchange begins when the application is called and ends when the answer is sent, or the connection is closed. It is
the ``Sink`` of the call's Response: bytes go through the transport of the connection, which keeps what the client does
not take. Where the call is cut off, the client gets 504 if nothing was sent, else a reset. An answer that the client
takes late is logged when it is out, with the bytes that it has really taken.

Source: PEP 3333.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from errno import EBUSY
from functools import partial
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from forkserver.errors import ProtocolError
from forkserver.http1 import response as wire
from forkserver.http1.request import RequestHead
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.resets import reset_at_close
from forkserver.linux.syscalls import monotonic
from forkserver.logs.access_format import NO_FACTS, Facts
from forkserver.server.buffers.request_body import StreamedBody
from forkserver.server.connection.lifecycle import OpenConnection
from forkserver.server.connection.rejection import client_address, error_page, refuse, send_page
from forkserver.server.connection.states import CALLING, UPGRADED
from forkserver.server.proxy.request_id import VARIABLE
from forkserver.server.wsgi.access_log_entry import UNLOGGED, Add, Entry, facts_of, log_answer, values_of
from forkserver.server.wsgi.environ import apply_forwarded, complete_environ, make_environ, scheme_of
from forkserver.server.wsgi.error_reports import report_fault
from forkserver.server.wsgi.response import Response
from forkserver.server.wsgi.response_sink import ClientGoneError
from forkserver.server.wsgi.run import run
from forkserver.server.wsgi.websocket import SOCKET, UpgradedSocket, end_silence

if TYPE_CHECKING:
    from forkserver.server.wsgi.accelerator._exchange import Request


class Exchange:
    """The request of ``connection``, which has the head ``head``, and its answer."""

    response: Response | None = None  # of the call in hand, None once that has returned
    _websocket: UpgradedSocket | None = None  # that the application may take, or has
    _errors: Any = None  # wsgi.errors, where the handler class gives it
    _unlogged: Entry | None = None  # of an answer that is not out yet
    _counted = False  # before the end of its call
    _called: tuple[float, float] | None = None  # when the call has begun and ended, where the access log says so

    def __init__(self, connection: OpenConnection, head: RequestHead | Request) -> None:
        self.connection = connection
        self.head: Any = head
        self.request_id = ""
        self.context = connection.loop.context
        self.loop_lock = connection.loop.loop_lock
        self._transport = transport = connection._transport or connection.transport
        self.send = transport.send

    def answer(self) -> None:
        """Call the application and send its answer, or refuse the request."""
        connection, head, context = self.connection, self.head, self.context
        loop, server = connection.loop, context.server
        response = Response(
            self,
            self._clock_of_handler() if context.hooks.version else context.clock,
            head.method,
            head.http11,
            head.persistent and not (loop.closing or (connection.stays and loop.retiring)),
        )
        try:
            environ = self._environ(response)
        except ProtocolError as error:
            refuse(connection, error)
            return
        self.response = response
        connection.exchange = self
        try:
            if loop.row is not None:
                loop.row.begin(head.line, connection.thread, self.request_id, connection.whole_at)
                if loop.dozing:
                    loop.rouse_driver()
            run(server.get_app() if context.hooks.get_app else server.application, environ, response)
        finally:  # a hook of the handler's that speaks of the fault may raise
            self.end_call()
        self.conclude(environ, response)

    def end_call(self) -> None:
        """The application has returned, and what it returned is sent or kept."""
        loop, thread = self.connection.loop, self.connection.thread
        if loop.row is not None:  # asked anew: a child of the application's may have come back
            if loop.watched and not loop.context.access.plain:
                self._called = loop.row.since(thread), monotonic()
            loop.row.end(thread)
        self.response = None
        if loop.context.unended:
            loop.context.end_lines()

    def conclude(self, environ: dict[str, Any], response: Response) -> None:
        """Note of the answer what the connection and the logs are to know."""
        connection = self.connection
        connection.persistent = response.persistent
        if self.head.websocket:
            self._take_back_socket(response)
        if not self._counted:
            self._count(response)
        if connection.loop.watched:
            self._log(environ, response)

    def _count(self, response: Response) -> None:
        connection = self.connection
        if (row := connection.loop.row) is not None:
            row.answer(response.status, response.sent, 0 if connection.upload is None else connection.upload.size)

    def _clock_of_handler(self) -> wire.Clock:
        with self._in_hook():
            return wire.Clock(self.connection.handler_object().version_string())

    def _in_hook(self) -> AbstractContextManager[None]:
        """Around a hook of the application's classes, for which the loop waits: ``timeout`` bounds it as a call."""
        row = self.connection.loop.row
        return nullcontext() if row is None else row.hook(self.head.line, self.connection.thread)

    def _close_in_view(self, close: Callable[[], object]) -> None:
        """Close a file of the application's in whichever thread turns the loop: ``timeout`` bounds that, too."""
        row = self.connection.loop.row
        with nullcontext() if row is None else row.hook(self.head.line, row.loop):
            close()

    # The environ

    def _environ(self, response: Response) -> dict[str, Any]:
        """The whole environ. Raises ProtocolError where the request is not to be served."""
        connection, head, context = self.connection, self.head, self.context
        if context.hooks.any:
            environ = self._environ_by_handler()
        else:
            peer, base = connection.peer, context.base_environ.environ
            environ = make_environ(base, head, peer, connection.listener.names, self._transport.extra)
            apply_forwarded(environ, peer, context.trust, context.notices)
        environ[VARIABLE] = self.request_id = context.request_ids.of(head.fields, connection.peer)
        if context.id_header:
            response.id_line = context.id_line(self.request_id)
        upload = connection.upload
        if upload is None:
            complete_environ(environ, head, BytesIO(), 0, response)
        else:
            if upload.unread:
                upload.fetch()
            assert upload.stream is not None
            complete_environ(environ, head, upload.stream, upload.size, response)
        if head.websocket:
            self._offer_socket(environ)
        return environ

    def _environ_by_handler(self) -> dict[str, Any]:
        context, handler = self.context, self.connection.handler_object()
        with self._in_hook():
            environ: dict[str, Any] = handler.get_environ()
            environ.update(context.base_environ.wsgi)
            if context.hooks.stderr:
                environ["wsgi.errors"] = self._errors = handler.get_stderr()
        environ["wsgi.url_scheme"] = scheme_of(environ)
        return environ

    # An application that speaks WebSocket itself

    def _offer_socket(self, environ: dict[str, Any]) -> None:
        """Let the application have the socket if it wants it. Raises ProtocolError."""
        connection = self.connection
        if self.head.method != "GET" or connection.upload is not None or self._socket_obstacle() is not None:
            return
        if connection.buffer:  # RFC 6455 section 4.1: the client waits; a library would miss these bytes
            raise ProtocolError(400, "bytes behind a WebSocket handshake")
        self._websocket = environ[SOCKET] = UpgradedSocket(self, connection.sock)

    def _socket_obstacle(self) -> str | None:
        """Why the application cannot have the socket, and what to do about it; None where it can."""
        if self._transport.websocket_obstacle is not None:
            return self._transport.websocket_obstacle
        if type(self.connection.sock) is not PlainSocket:
            return "get_request gives a socket of its own"
        if not self.connection.loop.calls.threaded:
            return "with one thread it would stop the worker; start with --threads N, one for each open WebSocket"
        return None

    def detach(self) -> None:
        """The application takes the socket: from here on the loop knows nothing of it. With the loop lock.

        Raises OSError where the answer has begun, or the connection has gone.
        """
        connection, response = self.connection, self.response
        loop, transport = connection.loop, self._transport
        if connection.state is not CALLING or response is None or response.head_sent or transport.out:
            raise OSError(EBUSY, "the answer to this request has begun, or its client has gone")
        loop.poller.suspend(connection)
        connection.forget_deadline()
        connection.state = UPGRADED
        connection.sock.settimeout(None)
        end_silence(connection.sock, self.context.settings.write_timeout)
        transport.recv = partial(_receive_what_is_there, connection.sock)  # the socket blocks, and the loop must not
        response.detach()
        if loop.row is not None:
            loop.row.upgrade(connection.thread)
        if loop.retiring:
            connection.stop_reading()

    def _take_back_socket(self, response: Response) -> None:
        """The call is over: what the application still has of an offered socket leads nowhere."""
        connection = self.connection
        if self._websocket is not None:
            if connection.state is UPGRADED:
                response.sent = self._websocket.sent
            else:
                self._websocket.end()
                self._websocket = None
        elif response.status >= 500 and (why := self._socket_obstacle()) is not None:
            # Only now: an application without WebSocket is asked for one by strangers as well.
            line = self.head.line.partition(b"?")[0].decode("latin-1")  # a query may hold secrets
            self.context.notices.no_websocket(line, why)

    def close_socket(self) -> bool:
        """End what the application has of the socket; whether the descriptor is closed from there."""
        client_socket, self._websocket = self._websocket, None
        if client_socket is None or not client_socket.end():
            return False
        if self.response is not None:
            self.response.sent = client_socket.sent
        return True

    # Logging

    def _log(self, environ: dict[str, Any], response: Response) -> None:
        """Tell the access log and the handler's hook what was answered."""
        connection, context = self.connection, self.context
        if context.notes_by_handler:
            with self._in_hook():
                connection.handler_object().log_request(str(response.status), response.sent)
        unlogged = UNLOGGED in environ and context.settings.error_page == "on"  # else it is the application's own word
        if not self._counted and context.access.enabled and not unlogged:
            self._log_answer(self._log_when_out if self._transport.out else context.access.add, environ, response)

    def _log_answer(self, add: Add, environ: dict[str, Any], response: Response) -> None:
        head = self.head
        facts = NO_FACTS if self.context.access.plain else self._facts(environ, response)
        log_answer(add, f"{head.line.decode('latin-1')} {head.protocol}", head.fields, environ, response, facts)

    def _facts(self, environ: dict[str, Any], response: Response) -> Facts:
        """What other formats of the access log than the combined one say besides."""
        connection, headers, row = self.connection, response.headers, self.connection.loop.row
        began, ended = self._called or (0.0 if row is None else row.since(connection.thread), monotonic())
        text, length = ("", None) if headers is None or not response.head_sent else (headers.text, headers.length)
        values = values_of(self.context.access.named, lambda: self.head.fields, environ, text, length)
        return facts_of(self.request_id, environ, connection.whole_at, began, ended, values)

    def log_before_end(self) -> None:
        """Log an answer that is over although its call is not, which may outlive the worker."""
        context, response = self.context, self.response
        if response is None or self._counted:
            return
        self._count(response)
        self._counted = True
        if context.access.enabled:
            self._log_answer(context.access.add, {"REMOTE_ADDR": client_address(self.connection)}, response)

    def _log_when_out(self, *entry: Any) -> None:
        self._unlogged = entry

    def log_out(self, unsent: int = 0) -> None:
        """The answer is over: log it, if it waits for that; ``unsent`` bytes, head and framing included, are lost."""
        if self._unlogged is not None:
            entry, self._unlogged = self._unlogged, None
            add: Add = self.context.access.add
            add(*entry[:4], max(0, entry[4] - unsent), *entry[5:])

    def lose(self, unsent: int) -> None:
        """The client does not get the last ``unsent`` bytes of the answer, head and framing included."""
        if self.response is not None:
            self.response.sent = max(0, self.response.sent - unsent)
        self.log_out(unsent)

    # What else a response asks of its sink

    @property
    def worker(self) -> bool:
        """Whether this is one process of several under a master."""
        return self.context.worker

    def report(self, message: str, error: BaseException | None = None) -> None:
        """Tell of the application's fault: a script on ``wsgi.errors``, a worker in the error log."""
        context, stream = self.context, self._errors
        if stream is None and not context.worker:
            stream = context.base_environ.wsgi["wsgi.errors"]
        report_fault(stream, context.log, self.head.line.decode("latin-1"), self.request_id, message, error)

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        """As the transport does it. Where ``file`` is the request's body, its disk space is taken until it is sent."""
        upload, close = self.connection.upload, partial(self._close_in_view, close)
        if isinstance(upload, StreamedBody) and upload.buffer.is_file(file):
            close = partial(_close_both, close, upload.buffer.pass_on())
        self._transport.send_file(head, file, offset, count, close)

    def fail(self, status: int) -> int:
        """Answer in place of the application; the bytes of the page, which says nothing of what happened."""
        extra = self.context.id_line(self.request_id)
        return send_page(self.connection, error_page(self.connection, status, extra))

    def renew(self) -> None:
        """The application has yielded something: its deadline counts from now."""
        self.context.request_deadline.renew()

    def abort(self) -> None:
        """Cut the connection when the application is through with it: the answer is not whole, and must not seem so."""
        self.connection.doomed = True

    def delimit_by_close(self) -> None:
        """The client takes the connection's end for the body's: should the worker be killed, the kernel resets it."""
        self.connection.open_ended = True
        reset_at_close(self.connection.sock)

    def expire(self) -> None:
        """The application was interrupted and is still at it: answer without it where nothing was sent."""
        connection, response = self.connection, self.response
        if connection.state is not CALLING or response is None or (response.head_sent and response.remaining == 0):
            return
        if response.head_sent:
            connection.reset()  # the answer is not whole, and must not seem so
            self.log_before_end()
            return
        response.give_up(504)
        connection.persistent = False
        try:
            response.sent = self.fail(504)
        except ClientGoneError:
            connection.close()
            return
        finally:
            self.log_before_end()
        if self._transport.out:
            connection.drain()
        else:
            connection.linger()


def _receive_what_is_there(sock: socket.socket, size: int) -> bytes:
    """As ``sock.recv`` of a socket that does not head."""
    return sock.recv(size, socket.MSG_DONTWAIT)


def _close_both(first: Callable[[], object], second: Callable[[], object]) -> None:
    try:
        first()
    finally:
        second()
