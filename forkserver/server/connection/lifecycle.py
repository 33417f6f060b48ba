"""One accepted socket and where it is in its life: its state, its deadline, and how it ends.

Every change of state is made in this folder, in the order of ``states.NEXT``. A connection waits in one deadline queue
at a time (``wait_in``). Unread bytes turn a close into a reset, which can overtake the answer on its way;
so after an answer the writing side is shut and the client's rest is read for a bounded time (``linger``), unless it is
known that nothing comes. An answer that is not whole ends in a reset on purpose (``reset``).

Source: RFC 9112 section 9.6.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any, Protocol

from forkserver.http1.request import RequestHead
from forkserver.linux.sockets.plain_socket import PlainSocket, of_accepted
from forkserver.linux.sockets.resets import close_in_order, reset_at_close
from forkserver.server.buffers.request_body import BufferedBody, StreamedBody
from forkserver.server.connection.protocols import UNKNOWN, ConnectionLoop, ListenerInfo
from forkserver.server.connection.states import CALLING, CLOSED, DRAINING, LINGERING, READING, UPGRADED, ConnectionState
from forkserver.server.connection.timeout_queue import TimeoutQueue
from forkserver.server.connection.timeouts import LINGER_BYTES
from forkserver.server.connection.transport import Transport
from forkserver.server.proxy.client_address import SECURE, ProxiedAddress
from forkserver.server.wsgi.response import Response

if TYPE_CHECKING:
    from forkserver.server.wsgi.accelerator._exchange import AcceptedSocket, Facts, Request

_DISCARD_BYTES = 256 * 1024


class OpenExchange(Protocol):
    """The request that is being answered."""

    response: Response | None  # of the call in hand, None once that has returned

    def lose(self, unsent: int) -> None:
        """The client does not get the last ``unsent`` bytes of the answer, head and framing included."""

    def log_before_end(self) -> None:
        """Log an answer that is over although its call is not, which may outlive the worker."""

    def log_out(self) -> None:
        """The answer is out: log it, if it waits for that."""

    def report(self, message: str) -> None:
        """Tell of the application's fault."""

    def expire(self) -> None:
        """The call was interrupted and is still at work: answer without the application."""

    def close_socket(self) -> bool:
        """End what the application has of the socket; whether the descriptor is closed from there."""


class OpenConnection:
    """A connection of ``loop`` to the client ``peer``, accepted from ``listener``.

    It has a socket ``sock``, or what the extension has ``accepted``, which the plain exchange needs no socket for.
    """

    __slots__ = (
        "_accepted", "_sock", "_transport", "backlog_seconds", "buffer", "discarded", "doomed", "exchange", "facts",
        "fd", "handler", "head", "interest", "linger_until", "listener", "loop", "open_ended", "parked_at", "peer",
        "persistent", "queue", "queued", "scanned", "state", "stays", "thread", "upload", "whole_at",
    )  # fmt: skip
    read_mask = select.EPOLLIN
    speaks_tls = True  # where its listener does; else the handler wraps the socket itself

    def __init__(
        self,
        loop: ConnectionLoop,
        sock: socket.socket | None,
        peer: tuple[Any, ...],
        listener: ListenerInfo,
        accepted: AcceptedSocket | None = None,
    ) -> None:
        self.loop = loop
        self._sock = sock
        self._accepted = accepted
        self._transport: Transport | None = None
        # The facts are None where the extension does not receive here. The descriptor is -1 once it is closed.
        self.facts: Facts | None
        if accepted is not None:
            self.fd, self.facts = accepted.fileno(), accepted.facts
        else:
            assert sock is not None
            self.fd, self.facts = sock.fileno(), None if loop.plain is None else UNKNOWN
        self.peer = peer
        self.listener = listener
        self.stays = False  # no sibling can have it: its keys, or a part of its PROXY header, are here
        self.state: ConnectionState = READING
        self.queue: TimeoutQueue[Any] | None = None  # the one deadline queue it is in
        self.interest = 0  # what epoll watches for
        self.queued = False  # in the loop's ready queue: what it has read comes before what it could read
        self.parked_at = 0.0
        self.discarded = 0
        self.linger_until = 0.0  # until when what follows a refused request is dropped
        # The request in hand.
        self.buffer = b""  # bytes read and not yet understood
        self.scanned = 0  # bytes of ``buffer`` that were found to be a head's beginning
        self.head: RequestHead | Request | None = None
        self.whole_at = 0.0  # when all of it was there
        self.backlog_seconds = 0.0  # that the first request had waited when the connection was accepted
        self.upload: StreamedBody | BufferedBody | None = None  # its body
        self.handler: Any = None  # the object whose documented hooks speak for it, where there are any
        self.exchange: OpenExchange | None = None  # while it is being answered
        self.thread = 0  # that calls the application
        self.persistent = True  # whether the connection goes on after the answer
        self.open_ended = False  # its end is the end of the body in hand
        self.doomed = False  # to be reset as soon as the application is through with it
        owner: Any = self  # a TransportOwner in the classes above
        if listener.tls is not None and self.speaks_tls:
            from forkserver.server.connection.tls_transport import TlsTransport  # late: it imports ssl

            self.facts = None
            self._transport = TlsTransport(loop, self.sock, owner, listener.tls)
        elif sock is not None:
            self._transport = Transport(loop, sock, owner)

    @property
    def sock(self) -> socket.socket:
        """Its socket, made when it is first asked for; a closed one where the connection is closed by then."""
        if self._sock is None:
            assert self._accepted is not None
            self._sock = of_accepted(self._accepted)
        return self._sock

    @property
    def transport(self) -> Transport:
        """What sends and receives, made when the plain exchange does not suffice."""
        if self._transport is None:
            owner: Any = self
            self._transport = Transport(self.loop, self.sock, owner)
        return self._transport

    @property
    def unsent(self) -> bool:
        """Whether a part of an answer is kept that the client has not taken."""
        return self._transport is not None and bool(self._transport.out)

    def set_client_address(self, client: ProxiedAddress) -> None:
        """A proxy has told the address of the client."""
        self.peer = client
        self.facts = None if self.facts is None else UNKNOWN
        if client.secure:
            self.transport.extra = SECURE

    def is_wanted(self) -> bool:
        """What ``verify_request`` says of it."""
        loop = self.loop
        with loop.calls.in_hook(b"verify_request"):
            return bool(loop.context.server.verify_request(self.sock, self.peer))

    def handler_object(self) -> Any:
        """The handler whose hooks speak for the request in hand, made when it is first asked for."""
        if self.handler is None:
            server, head = self.loop.context.server, None
            if self.state is not READING and self.head is not None:  # else the head, if any, is an earlier request's
                head = self.head, self.transport.extra
            make = server.RequestHandlerClass.for_request
            self.handler = make(self.sock, self.peer, server, self.listener.names, self.buffer, head)
        return self.handler

    @property
    def line(self) -> bytes:
        """The line of the request in hand, without its version; empty where that is not known."""
        return b"" if self.head is None else self.head.line

    @property
    def can_move(self) -> bool:
        """Whether another worker could go on with it."""
        return not (self.unsent or self.stays) and type(self.sock) is PlainSocket

    @property
    def begun(self) -> bool:
        """Whether something of its next request has come, or of the handshake that is under way before it."""
        return bool(self.buffer) or (self._transport is not None and self._transport.shaking)

    # Deadlines

    def wait_in(self, queue: TimeoutQueue[Any]) -> None:
        """Have the deadline that ``queue`` gives, and no other."""
        if self.queue is not queue:
            if self.queue is not None:
                self.queue.discard(self)
            self.queue = queue
        self.loop.timeouts.put(queue, self)

    def wait_for_client(self) -> None:
        """Have the client watched while it takes its answer."""
        answers = self.loop.timeouts.answers
        if not answers.holds(self.queue):
            self.wait_in(answers.fresh)

    def forget_deadline(self) -> None:
        """Have no deadline: the connection waits for the application."""
        if self.queue is not None:
            self.queue.discard(self)
            self.queue = None

    # Between requests

    def park(self) -> None:
        """Wait for the next request."""
        loop, timeouts = self.loop, self.loop.timeouts
        self.state = READING
        self.head = self.exchange = None
        if loop.retiring:
            self.wait_in(timeouts.heads if self.buffer else timeouts.idle)  # its time counts from now, wherever it is
            if loop.hand_on(self):
                return
        if self.buffer:
            self.wait_for_turn()
        if self.queue is not timeouts.resting or timeouts.now - self.parked_at > timeouts.park_seconds:
            self.parked_at = timeouts.now
            self.wait_in(timeouts.resting)
        if self.interest != self.read_mask:
            loop.poller.watch_reading(self)
        loop.note_closable()

    def wait_for_turn(self) -> None:
        """Go on in the next turn with what was read: others come first."""
        self.queued = True
        self.loop.resume_later(self)

    def drain(self) -> None:
        """Wait until the client has taken the answer."""
        self.state = DRAINING
        self.wait_for_client()
        self.loop.poller.watch_writing(self)
        self.loop.note_unsent()

    # Ending

    def finish(self) -> None:
        """Close after a whole answer."""
        head, transport = self.head, self._transport
        if self.open_ended:
            close_in_order(self.sock)
        # A client that has asked for the close sends nothing more, but for old clients' CRLF after a body.
        if (
            head is None
            or head.persistent
            or self.buffer
            or self.linger_until
            or ((head.has_body or (transport is not None and transport.seals)) and self.has_more())
        ):
            self.linger()
        else:
            self.close()

    def has_more(self) -> bool:
        """Whether something has come that was not read; the end of the client's bytes is nothing."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def linger(self) -> None:
        """Shut the writing side and read the client's rest for a bounded time.

        After a refusal the rest may be a whole upload. A proxy writes all of it before it reads the answer; if the
        connection is reset meanwhile, the proxy answers 502 in place of the refusal.
        """
        loop = self.loop
        self.transport.close_notify()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.state = LINGERING
        self.buffer = b""
        if self.exchange is None or self.exchange.response is None:  # else the call is logged when it ends
            self.head = None
        self.wait_in(loop.timeouts.refusing if self.linger_until else loop.timeouts.lingering)
        loop.poller.watch_reading(self, self.discard)
        loop.note_closable()

    def discard(self, _event: int = 0) -> None:
        """Read and drop."""
        try:
            size = len(self.transport.recv(_DISCARD_BYTES))
        except BlockingIOError:
            return
        except OSError:
            size = 0
        timeouts, self.discarded = self.loop.timeouts, self.discarded + size
        if not size or self.discarded > LINGER_BYTES:
            self.close()
        elif self.queue is timeouts.discarding and timeouts.now + timeouts.discarding.seconds <= self.linger_until:
            timeouts.put(timeouts.discarding, self)

    def reset(self) -> None:
        """Close so that the client can tell: by a reset, which drops what is unsent."""
        self.transport.omit_close_notify()
        reset_at_close(self.sock)
        self.close()

    def cut(self) -> None:
        """Close at once, whatever is going on; an answer that is not whole must not seem so."""
        exchange = self.exchange
        response = exchange.response if exchange is not None else None
        if self.unsent or (response is not None and response.head_sent and response.remaining != 0):
            self.reset()
        else:
            self.close()
        if exchange is not None and response is not None:
            exchange.log_before_end()

    def close(self) -> None:
        """Give everything back. Closing twice is once, but a close that an exception has broken off is gone on with."""
        if self.fd < 0 and self.state is CLOSED:
            return
        exchange, transport = self.exchange, self._transport
        called = exchange is not None and exchange.response is not None
        if transport is not None and transport.seals and not (called or transport.out or self.state is CLOSED):
            transport.close_notify()
        self.state = CLOSED
        if self.queue is not None:
            self.forget_deadline()
        try:
            if self.upload is not None and not called:  # else the application still reads from it
                self.upload.close()
            if transport is not None and transport.out is not None:
                unsent = transport.out.size
                transport.out.close()
                if exchange is not None:
                    exchange.lose(unsent)
        finally:
            try:
                self.loop.leave(self)
            finally:
                try:
                    if exchange is None or not exchange.close_socket():
                        self._close_descriptor()
                    self.fd = -1
                except BaseException:
                    self.loop.connections.add(self)  # else it would not be found by what goes on with the close
                    raise
            if transport is not None:
                transport.close()
            if not called:
                self.exchange = None

    def turn_away(self) -> None:
        """Close a connection that ``verify_request`` does not want."""
        self.close()

    def _close_descriptor(self) -> None:
        if self._sock is not None:
            self._sock.close()
        elif self._accepted is not None:
            self._accepted.close()

    def end_with_answer(self) -> None:
        """No other worker can have the connection: let the answer in hand say so, if it can."""
        response = self.exchange.response if self.exchange is not None else None
        if response is not None and not response.head_sent:
            response.persistent = False

    def stop_reading(self) -> None:
        """The worker retires: an application that speaks WebSocket sees the end of what its client sends."""
        if self.state is UPGRADED:
            try:
                self.sock.shutdown(socket.SHUT_RD)
            except OSError:  # it has gone
                pass

    @property
    def streams(self) -> bool:
        """Whether the call in hand has begun its answer, or has become a WebSocket."""
        response = self.exchange.response if self.exchange is not None else None
        return response is not None and (response.head_sent or response.detached)

    def forget(self) -> None:
        """In a child that the application forked: close its copies of descriptors; the client is the parent's.

        The body of a call in hand stays: the child may be there to read it.
        """
        self._close_descriptor()
        self.fd = -1
        self.interest = 0  # its registration is the parent's, too
        if self._transport is not None:
            self._transport.fd = -1
            if self._transport.out is not None:
                self._transport.out.forget()
        if self.upload is not None and self.state is not CALLING:
            self.upload.close()
        if self.state is DRAINING:
            self.exchange = None  # the parent logs it
