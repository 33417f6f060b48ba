"""make_server and WSGIServer: the stdlib's page, made fast. ``handle_request`` is one turn.

The documented methods do what https://docs.python.org/3/library/wsgiref.html#module-wsgiref.simple_server and the
pages on its base classes say, alone in a script as under the master, which calls ``adopt`` and
what stands beside it (loop/worker_server.py).
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final
from wsgiref import simple_server

from forkserver.errors import BindError
from forkserver.linux.sockets.resets import resets_at_close
from forkserver.server.connection.states import CLOSED, LINGERING
from forkserver.server.context import context_of
from forkserver.server.loop.event_loop import EventLoop
from forkserver.server.loop.worker_server import AdoptedServer, close_loop, log_fault, state_of
from forkserver.server.request_handler import WSGIRequestHandler
from forkserver.server.wsgi import run

_SERVICE_SECONDS: Final = 0.5  # serve_forever's documented default between two calls of service_actions


class WSGIServer(AdoptedServer, simple_server.WSGIServer):
    """A WSGI server on one listening address.

    Takes ``server_address`` as ``(host, port)`` and ``RequestHandlerClass``. Raises BindError, an OSError, where the
    address cannot be listened on. Source: https://docs.python.org/3/library/wsgiref.html#wsgiref.simple_server.WSGIServer
    """

    request_queue_size = 2048

    def __init__(
        self, server_address: Any, RequestHandlerClass: Callable[..., Any], bind_and_activate: bool = True
    ) -> None:
        if isinstance(server_address, tuple) and ":" in str(server_address[0]):
            self.address_family = socket.AF_INET6
        try:
            super().__init__(server_address, RequestHandlerClass, bind_and_activate)
        except BindError:
            raise
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT and not bind_and_activate:
                # What is made here is replaced by a listener of the master's, and a service may be allowed Unix sockets
                # alone: RestrictAddressFamilies= in systemd.exec(5).
                self.address_family = socket.AF_UNIX
                super().__init__(server_address, RequestHandlerClass, bind_and_activate)
                return
            name = ":".join(map(str, server_address[:2])) if isinstance(server_address, tuple) else server_address
            raise BindError(
                f"cannot listen on {name}: {error.strerror or error}; choose another address", error.errno
            ) from error

    # The documented ways to serve

    def serve_forever(self, poll_interval: float = _SERVICE_SECONDS) -> None:
        """Serve until ``shutdown`` is called from another thread, finish what is being answered, and return.

        ``service_actions`` is called every ``poll_interval`` seconds where it is overridden; nothing else wakes the
        server without need. Source: https://docs.python.org/3/library/socketserver.html
        """
        context, state = context_of(self), state_of(self)
        state.stopped.clear()
        try:
            loop = self._ready_loop()
            loop.acceptor.start()
            while not state.stopping.is_set():
                loop.turn(poll_interval if context.hooks.service_actions else None)
                if state.stopping.is_set():
                    break
                self.service_actions()
            loop.finish()
        finally:
            state.stopping.clear()
            state.stopped.set()

    def shutdown(self) -> None:
        """From another thread: have ``serve_forever`` return, and wait until it has."""
        state = state_of(self)
        state.stopping.set()
        loop = state.loop  # once: serve_forever may return, and the server be closed, in the next moment
        if loop is not None:
            loop.wake()
        state.stopped.wait()

    def handle_request(self) -> None:
        """Serve one request, answered with ``Connection: close``, or call ``handle_timeout`` after ``timeout`` seconds.

        Returns when the kernel has the whole answer, or it failed. In a worker: one turn of its loop.
        """
        context, state = context_of(self), state_of(self)
        if context.worker and state.loop is not None:
            if context.hooks.service_actions:
                state.loop.turn(_SERVICE_SECONDS)
                state.loop.calls.call_hook(self.service_actions, b"service_actions")
            else:
                state.loop.turn()
        elif self._wait_for_client():
            with state.turning:
                self._serve_one(self._ready_loop())
        else:
            self.handle_timeout()

    def _wait_for_client(self) -> bool:
        """Wait for ``timeout`` or the listener's own timeout, whichever is shorter."""
        limits = [limit for limit in (self.socket.gettimeout(), state_of(self).listener_timeout) if limit]
        if self.timeout is not None:
            limits.append(max(0.0, self.timeout))
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(min(limits) * 1000 if limits else None))

    def _serve_one(self, loop: EventLoop) -> None:
        closing, loop.closing = loop.closing, True
        try:
            connection = loop.acceptor.take(loop.acceptor.listeners[0])
            if connection is None:
                return
            loop.guard(connection, loop.acceptor.begin, connection)
            while connection.state not in (LINGERING, CLOSED):
                loop.turn()
            connection.part()
        finally:
            loop.closing = closing

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Construct the handler, which serves the request; shake hands before, where that was left for this thread."""
        if isinstance(request, ssl.SSLSocket) and request.version() is None:
            try:
                request.do_handshake()
            except OSError as error:  # as BaseServer: a connection that cannot be had is none
                context_of(self).log.debug(f"no TLS with {client_address[0]}: {error}")
                return
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of the exception that a hook or a handler raised: on standard error, or a worker's error log."""
        if context_of(self).worker:
            log_fault(self, client_address)
        else:
            super().handle_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End one connection: in order, or by a reset where its answer broke off."""
        if resets_at_close(request):
            self.close_request(request)  # a shutdown would tell the client of an orderly end
        else:
            super().shutdown_request(request)

    def close_request(self, request: Any) -> None:
        """Close one connection's socket."""
        super().close_request(request)
        context, state = context_of(self), state_of(self)
        loop = state.loop  # once: this may be a thread of ThreadingMixIn's, and the server be closed meanwhile
        if loop is not None:
            loop.handler_sockets.discard(request)
            if loop.forked:
                context.access.flush()  # a process of ForkingMixIn's ends as soon as this has returned
            elif context.worker:
                loop.wake()  # a thread of ThreadingMixIn is through: a retiring worker waits for that

    def server_close(self) -> None:
        """Close the listener and every connection; threads of ThreadingMixIn finish their answers."""
        close_loop(self)
        super().server_close()


def make_server(
    host: str,
    port: int,
    app: run.App,
    server_class: type[simple_server.WSGIServer] = WSGIServer,
    handler_class: type[simple_server.WSGIRequestHandler] = WSGIRequestHandler,
) -> Any:
    """A server of ``server_class`` listening on ``host`` and ``port``, for ``app``, with ``handler_class``.

    Raises BindError, an OSError. Source: https://docs.python.org/3/library/wsgiref.html#wsgiref.simple_server.make_server
    """
    server = server_class((host, port), handler_class)
    server.set_app(app)
    return server


demo_app = simple_server.demo_app
