"""Connections for handlers and servers that need a blocking socket: ``handler_class(request, client_address, server)``.

The socket goes to ``server.process_request`` as soon as a whole head can be read from it, so that a client that sends
nothing occupies no thread. From there on the calls are those of the stdlib's socketserver page, in their order.

Source: https://docs.python.org/3/library/socketserver.html, recv(2) on MSG_PEEK.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol

from forkserver.errors import ProtocolError
from forkserver.http1 import response as wire
from forkserver.http1.in_the_clear import HANDSHAKE, HINT, IN_THE_CLEAR
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.tls_socket import is_tls
from forkserver.linux.syscalls import wall_time
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.protocols import ConnectionLoop, ListenerInfo
from forkserver.server.connection.rejection import client_address, id_of, log_refused, request_line
from forkserver.server.connection.states import CALLING, CLOSED, READING, READY
from forkserver.server.threads.thread_starter import NO_THREAD, ThreadStarter
from forkserver.server.wsgi.overrides import is_threading, serves_apart
from forkserver.server.wsgi.response_sink import ClientGoneError

if TYPE_CHECKING:
    import ssl

_PEEK_BYTES: Final = 64 * 1024
_LINE_END: Final = b"\r\n"


class BlockingLoop(ConnectionLoop, Protocol):
    """The loop, as such a connection sees it."""

    handler_sockets: set[Any]  # that a blocking handler has, perhaps in a thread of its own
    threads: ThreadStarter


class BlockingConnection(Connection):
    """A connection that is given to ``server.process_request`` as soon as a head can be read from it."""

    __slots__ = ("_line", "_passed_on", "_timeout")
    # What was peeked at stays in the kernel: ask only when more comes, or when no more will.
    read_mask = select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP
    speaks_tls = False  # the handler's socket does
    loop: BlockingLoop

    def __init__(self, loop: BlockingLoop, sock: socket.socket, peer: tuple[Any, ...], listener: ListenerInfo) -> None:
        super().__init__(loop, sock, peer, listener)
        self._line = b""
        self._passed_on: Any = None  # the socket, once it is the server's
        # What get_request has set, or socket.setdefaulttimeout, goes before ours.
        self._timeout = sock.gettimeout() or loop.context.settings.body_timeout

    def readable(self, event: int = 0) -> None:
        """Look whether a whole head has come, and leave it in the kernel."""
        if self.state is not READING:
            return
        if type(self.sock) is not PlainSocket:  # get_request's own: what it has read already cannot be seen
            self._begin()
            return
        try:
            data = self.sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
        elif self.listener.tls is not None and data[0] != HANDSHAKE:
            self._answer_in_the_clear()
        elif self._context() is not None:
            self._begin()  # a handshake begins
        elif _has_head(data) or len(data) == _PEEK_BYTES or event & select.EPOLLRDHUP:
            self._line = data.lstrip(_LINE_END).split(b"\n", 1)[0].rstrip().rpartition(b" ")[0]
            self._begin()

    def _answer_in_the_clear(self) -> None:
        """A client speaks HTTP to an HTTPS port: no handler is to see it."""
        self.buffer = self.transport.recv(_PEEK_BYTES)  # what was left unread would make a reset of the close
        context, error = self.loop.context, ProtocolError(400, IN_THE_CLEAR)
        request_id = id_of(self, error)
        date, method = context.clock.at(wall_time()), "HEAD" if self.buffer.startswith(b"HEAD ") else "GET"
        answer = wire.error(400, date, method, context.id_line(request_id), HINT)
        size = wire.body_size(answer)
        log_refused(context, error, client_address(self), request_line(self), size, request_id)
        try:
            self.transport.send(answer)
        except ClientGoneError:
            self.close()
        else:
            self.linger()

    @property
    def line(self) -> bytes:
        """What was peeked at of it; nothing where it came in TLS."""
        return self._line

    def _begin(self) -> None:
        self.loop.poller.suspend(self)
        self.state = READY
        self.loop.calls.submit(self, b"")  # what a sibling needs is in the kernel still

    def serve(self, thread: int = 0) -> None:
        """Run the blocking handler; what it raises is for the server's ``handle_error``."""
        loop, row = self.loop, self.loop.row
        self.state = CALLING
        self.thread = thread
        if row is not None:
            row.begin(self._line, thread, since=self.whole_at)
            if loop.dozing:
                loop.rouse_driver()
        try:
            loop.loop_lock.lend(self._process)
        except BaseException:
            self._end_passed_on()
            raise
        finally:
            if loop.row is not None:  # asked anew: a child of the application's may have come back
                loop.row.end(thread)
            loop.timeouts.now = loop.timeouts.clock()
            self.answered()

    def _process(self) -> None:
        """As ``BaseServer`` does it, with a timeout on the socket."""
        server = self.loop.context.server
        request = self._ready_request()
        if request is None:
            return
        self._passed_on = request
        self.loop.handler_sockets.add(request)
        try:
            try:
                server.process_request(request, self.peer)
            except RuntimeError as error:
                if not (self.loop.context.worker and is_threading(type(server)) and str(error) == NO_THREAD):
                    raise
                self._serve_without_thread(request)
        except Exception:
            server.handle_error(request, self.peer)
            server.shutdown_request(request)
        except BaseException:
            server.shutdown_request(request)
            raise

    def _end_passed_on(self) -> None:
        """Close what the server does not: an exception, as of a time limit that comes late, has broken it off."""
        if self._passed_on is None:
            self.sock.close()
        elif not serves_apart(type(self.loop.context.server)):
            self._passed_on.close()
            self.loop.handler_sockets.discard(self._passed_on)

    def _serve_without_thread(self, request: Any) -> None:
        """Serve in this thread what ThreadingMixIn had no thread for."""
        server = self.loop.context.server
        if begun := vars(server).get("_threads"):
            begun[:] = [thread for thread in begun if thread.is_alive()]  # its end joins them; one never began
        self.loop.threads.refused(NO_THREAD, "requests are served one by one", self.loop.timeouts.now)
        server.process_request_thread(request, self.peer)

    def _ready_request(self) -> Any:
        """The socket for the handler, in TLS where the listener is; None where the handshake failed.

        A server that serves in threads or processes of its own shakes hands there (``WSGIServer.finish_request``): here
        a client that sends half of its part would hold up all others.
        """
        request = self.sock
        request.settimeout(self._timeout)
        context = self._context()
        if context is None or is_tls(request):
            return request
        try:
            here = not serves_apart(type(self.loop.context.server))
            return context.wrap_socket(request, server_side=True, do_handshake_on_connect=here)
        except OSError as error:  # as BaseServer: a connection that cannot be had is none
            self.loop.context.log.debug(f"no TLS with {self.peer[0]}: {error}")
            request.close()
            return None

    def _context(self) -> ssl.SSLContext | None:
        """The listener's TLS: a worker's, or that of a script which has put an SSLSocket in its place."""
        listening = self.loop.context.server.socket
        return self.listener.tls or (listening.context if is_tls(listening) else None)

    def answered(self) -> None:
        """The socket is the server's now: closed, or still with a thread of its own."""
        self.loop.poller.suspend(self)
        self.fd = -1
        self.state = CLOSED
        self.forget_deadline()
        self.loop.leave(self)

    def turn_away(self) -> None:
        """As ``BaseServer`` does with a request that ``verify_request`` does not want."""
        self.answered()
        with self.loop.calls.in_hook(b"shutdown_request"):
            self.loop.context.server.shutdown_request(self.sock)

    def overdue(self) -> None:
        """No head came in time, or the worker retires."""
        if self.state is READING:
            self.close()
        else:
            super().overdue()


def _has_head(data: bytes) -> bool:
    """Whether ``data`` has a whole head, behind empty lines, which are none (RFC 9112 section 2.2).

    The stdlib's handlers take bare line feeds, too.
    """
    head = data.lstrip(_LINE_END)
    return b"\r\n\r\n" in head or b"\n\n" in head
