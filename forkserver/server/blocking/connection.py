"""Handlers and servers that must run the blocking way: ``handler_class(request, client_address, server)``.

It promises the calls of the stdlib's socketserver page in their order, and that a client that sends nothing occupies
nobody: the blocking begins when a head has arrived. It refuses to know what the handler does.

Source: https://docs.python.org/3/library/socketserver.html, recv(2) on MSG_PEEK.
"""

from __future__ import annotations

import select
import socket
import ssl
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from forkserver.errors import ProtocolError
from forkserver.http1 import response as wire
from forkserver.http1.request import first_line
from forkserver.server.connection.connection import CALLING, CLOSED, READING, Connection
from forkserver.server.connection.tls_transport import HANDSHAKE, HINT, IN_THE_CLEAR
from forkserver.server.threads.thread_starter import NO_THREAD
from forkserver.server.wsgi.overrides import is_threading, serves_apart
from forkserver.server.wsgi.sink import ClientGoneError

if TYPE_CHECKING:
    from forkserver.server.loop.acceptor import Listener
    from forkserver.server.loop.event_loop import Loop

_PEEK_BYTES: Final = 64 * 1024
_LINE_END: Final = b"\r\n"


class BlockingConnection(Connection):
    """A connection that is given to ``server.process_request`` as soon as a head can be read from it."""

    __slots__ = ("_line", "_timeout")
    # What was peeked at stays in the kernel: ask only when more comes, or when no more will.
    read_mask = select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP

    def __init__(self, loop: Loop, sock: socket.socket, peer: tuple[Any, ...], listener: Listener) -> None:
        super().__init__(loop, sock, peer, listener)
        self._line = b""
        # What get_request has set, or socket.setdefaulttimeout, goes before ours.
        self._timeout = sock.gettimeout() or loop.settings.body_timeout

    def readable(self, event: int = 0) -> None:
        """Look whether a whole head has come, and leave it in the kernel."""
        if self.state != READING:
            return
        if type(self.sock) is not socket.socket:  # get_request's own: what it has read already nobody can see
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
        """Somebody speaks HTTP to an HTTPS port: no handler is to see it."""
        self.buffer = self._recv(_PEEK_BYTES)  # what was left unread would make a reset of the close
        answer = wire.error(
            400, self.loop.clock.at(time()), "HEAD" if self.buffer.startswith(b"HEAD ") else "GET", hint=HINT
        )
        self._tell_refused(ProtocolError(400, IN_THE_CLEAR), wire.body_size(answer))
        try:
            self.send(answer)
        except ClientGoneError:
            self.close()
        else:
            self.linger()

    @property
    def line(self) -> bytes:
        """What was peeked at of it; nothing where it came in TLS."""
        return self._line

    def _asked(self) -> str:
        """What was peeked at of the request line, without its version."""
        return first_line(self._line, self.loop.settings.limit_request_line) or super()._asked()

    def _begin(self) -> None:
        self.loop.suspend(self)
        self.loop.call(self, b"")  # what a sibling needs is in the kernel still

    def serve(self, thread: int = 0) -> None:
        """Run the blocking handler; what it raises is for the server's ``handle_error``."""
        loop, row = self.loop, self.loop.row
        self.state = CALLING
        self.thread = thread
        if row is not None:
            row.begin(self._line, thread)
            if loop.dozing:
                loop.rouse_steward()
        try:
            self.loop_lock.lend(self._process)
        finally:
            if loop.row is not None:  # asked anew: a child of the application's may have come back
                loop.row.end(thread)
            loop.now = monotonic()
            self.answered()

    def _process(self) -> None:
        """As ``BaseServer`` does it, with a timeout on the socket."""
        server = self.loop.server
        request = self._ready_request()
        if request is None:
            return
        self.loop.classic.add(request)
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

    def _serve_without_thread(self, request: Any) -> None:
        """Serve in this thread what ThreadingMixIn had no thread for."""
        server: Any = self.loop.server
        if begun := vars(server).get("_threads"):
            begun[:] = [thread for thread in begun if thread.is_alive()]  # its end joins them; one never began
        self.loop.threads.refused(NO_THREAD, "requests are served one by one", self.loop.now)
        server.process_request_thread(request, self.peer)

    def _ready_request(self) -> Any:
        """The socket for the handler, in TLS where the listener is; None where the handshake failed.

        A server that serves in threads or processes of its own shakes hands there (``WSGIServer.finish_request``): here
        a client that sends half of its part would hold up all others.
        """
        request = self.sock
        request.settimeout(self._timeout)
        context = self._context()
        if context is None or isinstance(request, ssl.SSLSocket):
            return request
        try:
            here = not serves_apart(type(self.loop.server))
            return context.wrap_socket(request, server_side=True, do_handshake_on_connect=here)
        except OSError as error:  # as BaseServer: a connection that cannot be had is none
            self.loop.log.debug(f"no TLS with {self.peer[0]}: {error}")
            request.close()
            return None

    def _context(self) -> ssl.SSLContext | None:
        """The listener's TLS: a worker's, or that of a script which has put an SSLSocket in its place."""
        listening: Any = self.loop.server.socket
        return self.listener.tls or (listening.context if isinstance(listening, ssl.SSLSocket) else None)

    def answered(self) -> None:
        """The socket is the server's now: closed, or still with a thread of its own."""
        self.state = CLOSED
        if self.queue is not None:
            self.queue.discard(self)
            self.queue = None
        self.loop.leave(self)

    def turn_away(self) -> None:
        """As ``BaseServer`` does with a request that ``verify_request`` does not want."""
        self.answered()
        self.loop.server.shutdown_request(self.sock)

    def overdue(self) -> None:
        """No head came in time, or the worker retires."""
        if self.state == READING:
            self.close()
        else:
            super().overdue()


def _has_head(data: bytes) -> bool:
    """Whether ``data`` has a whole head, behind empty lines, which are none (RFC 9112 section 2.2).

    The stdlib's handlers take bare line feeds, too.
    """
    head = data.lstrip(_LINE_END)
    return b"\r\n\r\n" in head or b"\n\n" in head
