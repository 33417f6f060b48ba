"""Handlers and servers that must run the blocking way: ``handler_class(request, client_address, server)``.

It promises the calls of the stdlib's socketserver page in their order, and that a client that sends nothing occupies
nobody: the blocking begins when a head has arrived. It refuses to know what the handler does.

Source: https://docs.python.org/3/library/socketserver.html, recv(2) on MSG_PEEK.
"""

from __future__ import annotations

import select
import socket
import ssl
from typing import Final

from forkserver.serving.connection import CALLING, CLOSED, READING, Connection

_PEEK_BYTES: Final = 64 * 1024


class ClassicConnection(Connection):
    """A connection that is given to ``server.process_request`` as soon as a head can be read from it."""

    __slots__ = ("_line",)
    read_mask = select.EPOLLIN | select.EPOLLET  # what was peeked at stays in the kernel: ask only when more comes

    def readable(self, _event: int = 0) -> None:
        """Look whether a whole head has come, and leave it in the kernel."""
        try:
            data = self.sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        secret = isinstance(self.loop.server.socket, ssl.SSLSocket)
        # The stdlib's handlers take bare line feeds too.
        if secret or b"\r\n\r\n" in data or b"\n\n" in data or len(data) == _PEEK_BYTES:
            self._line = b"" if secret else data.split(b"\n", 1)[0].rstrip().rpartition(b" ")[0]
            if self.loop.pool is None:
                self.loop.suspend(self)
            self.loop.call(self)

    def serve(self, thread: int = 0) -> None:
        """Run the blocking handler; what it raises is for the server's ``handle_error``."""
        row = self.loop.row
        self.state = CALLING
        if row is not None:
            row.begin(self._line.partition(b"?")[0], thread)
        self._process()
        if row is not None:
            row.end(thread)
        if not self.loop.threaded:
            self.answered()

    def _process(self) -> None:
        server, request = self.loop.server, self.sock
        self.loop.classic.add(request)
        try:
            request.settimeout(self.loop.settings.body_timeout)
            if isinstance(server.socket, ssl.SSLSocket):
                request = server.socket.context.wrap_socket(request, server_side=True)
                self.loop.classic.add(request)
            server.process_request(request, self.peer)
        except Exception:
            server.handle_error(request, self.peer)
            server.shutdown_request(request)

    def answered(self) -> None:
        """The socket is the server's now: closed, or still with a thread of its own."""
        self.state = CLOSED
        if self.queue is not None:
            self.queue.discard(self)
            self.queue = None
        self.loop.leave(self)

    def overdue(self) -> None:
        """No head came in time, or the worker retires."""
        if self.state == READING:
            self.close()
