"""One client connection, from accept to close.

It promises that a connection is in exactly one state, that a request is handed to the application only when it is
whole, and that an answer reaches the client or visibly does not. It refuses to know processes.

    READING   waits for a request head; idle when nothing of one has come
    BODY      collects the request's body
    READY     has a whole request, which waits for the application
    CALLING   the application has it
    UPGRADED  the application has the socket itself, for WebSocket; the loop has forgotten it
    DRAINING  the client has not taken the whole answer yet
    LINGERING the answer is out and the writing side shut; the client's rest is read and dropped, bounded
    CLOSED
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from errno import EBUSY
from functools import partial
from io import BytesIO
from time import monotonic, time
from typing import IO, TYPE_CHECKING, Any, Final

from forkserver.errors import ProtocolError
from forkserver.http1 import response as wire
from forkserver.http1.request import RequestHead, first_line, read_head
from forkserver.linux.sockets import receive_queue
from forkserver.linux.sockets.resets import reset_at_close
from forkserver.logs.access_log import quoted
from forkserver.server.blocking.exchange import LINGER_BYTES, LINGER_SECONDS, tell
from forkserver.server.connection.receive_rate import ReceiveRate
from forkserver.server.connection.request_body import BufferedBody, StreamedBody
from forkserver.server.connection.transport import WAIT_SECONDS, Sending
from forkserver.server.context import note
from forkserver.server.handoff.queue import HandedConnection, Handoff
from forkserver.server.proxy.client_address import SECURE, ProxiedAddress
from forkserver.server.request_handler import Seen
from forkserver.server.wsgi.environ import apply_forwarded, complete_environ, make_environ, scheme_of
from forkserver.server.wsgi.response import Response
from forkserver.server.wsgi.run import run
from forkserver.server.wsgi.sink import ClientGoneError
from forkserver.server.wsgi.websocket import SOCKET, ClientSocket, end_silence

if TYPE_CHECKING:
    from forkserver.server.buffers.send_buffer import SendBuffer
    from forkserver.server.connection.timeouts import TimeoutQueue
    from forkserver.server.loop.acceptor import Listener
    from forkserver.server.loop.event_loop import Loop
    from forkserver.server.request_handler import WSGIRequestHandler

READING, BODY, READY, CALLING, UPGRADED, DRAINING, LINGERING, CLOSED = range(8)

_HEAD_BYTES: Final = 16 * 1024  # of one read while a head is expected
_LINE_CHARS: Final = 200  # of a request line in the log
_DISCARD_BYTES: Final = 256 * 1024
_TCP: Final = (socket.AF_INET, socket.AF_INET6)
FAIR_RATE: Final = 64 * 1024  # bytes a second: a client that takes less must not keep a thread from others
_FAREWELL_SECONDS: Final = 0.5  # for a request that crosses the close of an idle connection
_LEAST_RATE: Final = (
    256  # bytes a second, on average over write_timeout: what a client takes more slowly is no progress
)
_Entry = tuple[str, str, str, int, int, str, str]  # what AccessLog.add takes
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(Sending):
    """One accepted socket and everything that is known of it. Made by the loop, which calls it when it is ready."""

    __slots__ = (
        "_recv", "buffer", "discarded", "errors", "extra", "handler", "head", "interest", "linger_until", "listener",
        "logged", "parked_at", "peer", "persistent", "queue", "queued", "response", "scanned", "state", "stays",
        "unlogged", "upload", "websocket",
    )  # fmt: skip
    read_mask = select.EPOLLIN

    def __init__(self, loop: Loop, sock: socket.socket, peer: tuple[Any, ...], listener: Listener) -> None:
        super().__init__(loop, sock)
        self.peer = peer
        self.listener = listener
        self.extra: dict[str, Any] | None = None  # of the environ: what is known of the client beside its request
        self.stays = False  # nobody else can have it: its keys, or its introduction, are here
        self._recv: Callable[[int], bytes] = sock.recv
        self.state = READING
        self.buffer = b""  # bytes read and not yet understood
        self.scanned = 0  # bytes of ``buffer`` that were found to be a head's beginning
        self.head: RequestHead | None = None  # of the request in hand
        self.interest = 0  # what epoll watches for
        self.upload: StreamedBody | BufferedBody | None = None  # the body of the request in hand
        self.persistent = True
        self.queue: TimeoutQueue[Connection] | None = None  # the one deadline queue it is in
        self.queued = False  # in the loop's ready queue: what it has read comes before what it could read
        self.parked_at = 0.0
        self.discarded = 0
        self.linger_until = 0.0  # until when what follows a refused request is dropped
        self.response: Response | None = None  # of the call in hand
        self.unlogged: _Entry | None = None  # line of the access log, of an answer that is not out yet
        self.logged: Response | None = None  # of a call that was not over when its answer was
        self.handler: WSGIRequestHandler | None = None
        self.errors: Any = None  # wsgi.errors, where the handler class gives it
        self.websocket: ClientSocket | None = None  # that the application may take, or has

    # Reading

    def readable(self, event: int = 0) -> None:
        """Read what has come, and do what it makes possible."""
        if self.queued:
            return
        state = self.state
        if state > BODY:
            self._not_now(event)
            return
        if state == BODY:
            self._read_body()
            return
        try:
            data = self._recv(_HEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self.receive(self.buffer + data if self.buffer else data)
        else:
            self.close()  # half a head cannot be answered

    def receive(self, data: bytes, invited: bool = False) -> None:
        """Take ``data``, the start of a head: serve it when it is whole and needs no body.

        ``invited``: if it announces a body, that has been asked for.
        """
        try:
            head = read_head(data, self.loop.head_limits, self.scanned)
        except ProtocolError as error:
            self.buffer = data
            self.refuse(error)
            return
        if head is None:
            self.buffer = data
            self.scanned = len(data)
            if self.queue is not self.loop.heads:
                self.wait_in(self.loop.heads)
            return
        self.buffer = data[head.size :]
        self.scanned = 0
        self.head = head
        if head.has_body:
            self._expect_body(head, data, invited or not head.expects_continue)
        else:
            self.state = READY
            loop = self.loop
            loop.calls.append((self, data, loop.now))
            if loop.pool is not None:
                loop.pool.submit()

    def _not_now(self, event: int) -> None:
        """The next request comes before this one is answered, or the client goes: look no further until then."""
        self.loop.suspend(self)
        if self.state == READY and event & (select.EPOLLHUP | select.EPOLLERR):
            self.close()  # nobody is left to be answered

    def set_client_address(self, client: ProxiedAddress) -> None:
        """A proxy has told who the client is."""
        self.peer = client
        if client.secure:
            self.extra = SECURE

    def arrive(self, handed: HandedConnection) -> None:
        """Go on where the worker that handed this connection on has stopped."""
        loop = self.loop
        if isinstance(handed.peer, ProxiedAddress):
            self.set_client_address(handed.peer)
        if not handed.data:
            self.wait_in(loop.resting)
            if loop.resting is loop.idle:
                loop.put_until(loop.idle, self, handed.deadline)
        else:
            self.receive(handed.data, invited=True)  # whoever has a whole head has handed on a whole request
            if self.state == READY:
                _, data, _ = loop.calls.pop()
                loop.calls.append((self, data, min(handed.since or loop.now, loop.now)))
            elif self.queue is loop.heads:
                loop.put_until(loop.heads, self, handed.deadline)
        if self.state in (READING, BODY) and not self.interest:
            loop.watch_reading(self)

    def give(self, handoff: Handoff, data: bytes, since: float) -> bool:
        """Let a sibling have this connection, with ``data`` that was read of it; False where it stays ours."""
        if self.out or self.stays or type(self.sock) is not socket.socket:
            return False
        self.loop.suspend(self)
        deadline = self.queue.deadline(self) if self.queue is not None else self.loop.now + self.loop.heads.seconds
        if not handoff.give(self.sock, HandedConnection(self.listener.number, self.peer, deadline, since, data)):
            if self.state == READING:
                self.loop.watch_reading(self)
            return False
        self.close()  # our copy of it: the connection lives on in the queue
        return True

    def resume(self) -> None:
        """Go on with bytes that were read together with an earlier request."""
        self.queued = False
        if self.state == READING:
            data, self.buffer = self.buffer, b""
            self.receive(data)
        elif self.state == BODY:
            self._collect(b"")

    def _wait_for_turn(self) -> None:
        """Go on in the next turn with what was read: others come first."""
        self.queued = True
        self.loop.ready.append(self)
        self.loop.wake_other()

    def _expect_body(self, head: RequestHead, data: bytes, invited: bool) -> None:
        """Collect the body of a request that begins ``data``; what has come of it is in ``buffer``."""
        loop, rest = self.loop, self.buffer
        length = -1 if head.chunked else head.length or 0
        if 0 <= length <= len(rest):
            self.upload = BufferedBody(rest[:length])
            self.buffer = rest[length:]
            loop.call(self, data)
            return
        progress = ReceiveRate(loop.now, loop.late_seconds)
        progress.add(len(rest), loop.now)
        self.upload = upload = StreamedBody(
            head, data[: len(data) - len(rest)], loop.spool, loop.settings.max_body, progress
        )
        self.buffer = b""
        self.state = BODY
        self.wait_in(loop.bodies.fresh)
        if (why := loop.eviction.make_spool_room(upload, length)) is not None:  # before it is asked for
            self._refuse_for_room(why)
            return
        if receive_queue.SOUND and upload.has_memory and self._recv == self.sock.recv and self.sock.family in _TCP:
            upload.rest_in(self.sock)
        if rest or invited:
            self._collect(rest)
            return
        try:
            self.invite()
        except OSError:  # a client that takes not even this, or has gone
            self.close()

    def invite(self) -> None:
        """Ask for the body. Raises OSError."""
        self._send(CONTINUE)

    def _read_body(self) -> None:
        """Read what has come of the body, unless it may stay where it is until it is called for."""
        upload = self.upload
        assert isinstance(upload, StreamedBody)
        try:
            if upload.arrived():
                self.loop.call(self, upload.as_sent())
                return
            data = self._recv(upload.read_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self._note_body(len(data))
            self._collect(data)
        else:
            self.refuse(ProtocolError(400, "the body ends early"))

    def _note_body(self, count: int) -> None:
        """``count`` bytes of a body were read from the socket."""
        if isinstance(self.upload, StreamedBody):
            self.upload.progress.add(count, self.loop.now)

    def _collect(self, data: bytes) -> None:
        upload = self.upload
        assert isinstance(upload, StreamedBody)
        try:
            upload.feed(data)
        except ProtocolError as error:
            self.refuse(error)
            return
        except OSError as error:
            self._refuse_for_room(error.strerror or str(error))
            return
        if upload.done:
            self.buffer = upload.rest
            self.loop.call(self, upload.as_sent())
        elif upload.more:
            self._wait_for_turn()
        else:
            upload.wait()

    def _refuse_for_room(self, why: str) -> None:
        """There is no room for the body."""
        self.loop.notices.no_room(why)
        self.refuse(ProtocolError(503, "no room for the body"))

    @property
    def head_bytes(self) -> int:
        """Bytes that have come of a head that is not whole, with what had to come before it."""
        return len(self.buffer)

    @property
    def size_in_spool(self) -> int:
        """Bytes of the body so far that were not lent memory."""
        upload = self.upload
        return upload.size if isinstance(upload, StreamedBody) and not upload.has_memory else 0

    def body_rate(self) -> float:
        """Bytes a second of the body of late."""
        upload = self.upload
        assert isinstance(upload, StreamedBody)
        with suppress(OSError):  # of a connection that has failed
            upload.look(self.loop.now)
        return upload.progress.rate(self.loop.now)

    def look_at_body(self) -> float | None:
        """Refuse the body if it is too slow; else its rate of late, in bytes a second."""
        loop, upload = self.loop, self.upload
        assert isinstance(upload, StreamedBody)
        if self.queued:
            upload.progress.excuse(loop.now)
        with suppress(OSError):  # of a connection that has failed: what reads next hears of it
            upload.look(loop.now)
        limits = loop.settings
        why = upload.progress.verdict(loop.now, loop.late_seconds, limits.body_timeout, limits.body_min_rate)
        if why is not None:
            self.refuse(ProtocolError(408, why))
            return None
        return upload.progress.look(loop.now)

    def _fetch_body(self, upload: StreamedBody | BufferedBody) -> bool:
        """Read the body that stayed in the kernel's queue; False where it is not to be had, which is answered."""
        try:
            upload.fetch()
        except ProtocolError as error:
            self.refuse(error)
            return False
        return True

    # Calling the application

    def serve(self, thread: int = 0) -> None:
        """Call the application with the request that is complete, and send its answer."""
        loop, head, upload = self.loop, self.head, self.upload
        assert head is not None
        server, hooks = loop.server, loop.hooks
        self.state = CALLING
        self.thread = thread
        try:
            environ = self._environ_by_handler() if hooks.any else self._environ(head)
        except ProtocolError as error:  # of a proxy's: what it says of the client cannot be read
            self.refuse(error)
            return
        if upload is not None and upload.unread and not self._fetch_body(upload):
            return
        if head.websocket and not self._offer_socket(environ):
            return
        app: Any = server.get_app() if hooks.get_app else server.application
        self.response = response = Response(
            self,
            self._own_clock() if hooks.version else loop.clock,
            head.method,
            head.http11,
            head.persistent and not (loop.closing or (self.stays and loop.retiring)),
        )
        body, size = (BytesIO(), 0) if upload is None else (upload.stream, upload.size)
        complete_environ(environ, head, body, size, response)  # type: ignore[arg-type]
        try:
            if loop.row is not None:
                loop.row.begin(head.line, thread)
                if loop.dozing:
                    loop.rouse_steward()
            run(app, environ, response)
        finally:  # a hook of the handler's that speaks of the fault may raise
            if loop.row is not None:  # asked anew: a child of the application's may have come back
                loop.row.end(thread)
            self.response = None
            if loop.unended:
                loop.context.end_lines()
        persistent = self.persistent = response.persistent
        if head.websocket:
            self._take_back_socket(response)
        if loop.watched:
            self._tell(environ, response)
        if upload is not None or self.handler is not None:
            self._put_away()
        now = loop.now = monotonic()  # the call may have taken long, and deadlines count from here
        if (
            persistent
            and self.queue is loop.resting  # so it was neither cut nor answered meanwhile
            and not self.out  # a file, for example
            and now - self.parked_at <= loop.park_seconds
            and self.interest == self.read_mask
            and not self.buffer
        ):
            self.state = READING  # parked as before
            self.head = None
        elif self.state == CALLING:  # else it was cut meanwhile, or answered without the application
            if self.doomed:
                self.reset()
            elif self.out:
                self._drain()
            elif self.persistent:
                self.park()
            else:
                self._finish()
        elif self.state == UPGRADED:
            self.linger()

    # An application that speaks WebSocket itself

    def _offer_socket(self, environ: dict[str, Any]) -> bool:
        """Let the application of ``environ`` have the socket if it wants it; False where the request is refused."""
        if environ["REQUEST_METHOD"] != "GET" or self.upload is not None or self.socket_obstacle() is not None:
            return True
        if self.buffer:  # RFC 6455 section 4.1: the client waits for the answer; a library would miss these bytes
            self.refuse(ProtocolError(400, "bytes behind a WebSocket handshake"))
            return False
        self.websocket = environ[SOCKET] = ClientSocket(self, self.sock)
        return True

    def socket_obstacle(self) -> str | None:
        """Why the application cannot have the socket, and what to do about it; None where it can."""
        if type(self.sock) is not socket.socket:
            return "get_request gives a socket of its own"
        if self.loop.pool is None:
            return "with one thread it would stop the worker; start with --threads N, one for each open WebSocket"
        return None

    def detach(self) -> None:
        """The application takes the socket: from here on the loop knows nothing of it. With the baton.

        Raises OSError where the answer has begun, or the connection has gone.
        """
        loop, response = self.loop, self.response
        if self.state != CALLING or response is None or response.head_sent or self.out:
            raise OSError(EBUSY, "the answer to this request has begun, or its client has gone")
        loop.suspend(self)
        self._forget_deadline()
        self.state = UPGRADED
        self.sock.settimeout(None)
        end_silence(self.sock, loop.settings.write_timeout)
        self._recv = partial(_receive_what_is_there, self.sock)  # the socket blocks, and the loop must not
        response.detach()
        if loop.row is not None:
            loop.row.upgrade(self.thread)
        if loop.retiring:
            self.stop_reading()

    def end_with_answer(self) -> None:
        """No other worker can have the connection: let the answer in hand say so, if it can."""
        if (response := self.response) is not None and not response.head_sent:
            response.persistent = False

    def stop_reading(self) -> None:
        """The worker retires: an application that speaks WebSocket sees the end of what its client sends."""
        if self.state == UPGRADED:
            try:
                self.sock.shutdown(socket.SHUT_RD)
            except OSError:  # it has gone
                pass

    @property
    def streams(self) -> bool:
        """Whether the call in hand has begun its answer, or has become a WebSocket."""
        return self.response is not None and (self.response.head_sent or self.response.detached)

    def _take_back_socket(self, response: Response) -> None:
        """The call is over: what the application still has of an offered socket leads nowhere."""
        if self.websocket is not None:
            if self.state == UPGRADED:
                response.sent = self.websocket.sent
            else:
                self.websocket.end()
                self.websocket = None
        elif response.status >= 500 and (why := self.socket_obstacle()) is not None:
            # Only now: an application without WebSocket is asked for one by strangers as well.
            line = self.line.partition(b"?")[0].decode("latin-1")  # a query may hold secrets
            self.loop.notices.no_websocket(line, why)

    def _put_away(self) -> None:
        """What belonged to the request that has been answered."""
        if self.upload is not None:
            self.upload.close()
            self.upload = None
        self.handler = self.errors = None

    def _environ(self, head: RequestHead) -> dict[str, Any]:
        loop = self.loop
        environ = make_environ(loop.base_environ.environ, head, self.peer, self.listener.names, self.extra)
        if loop.trust is not None:
            apply_forwarded(environ, self.peer, loop.trust, loop.notices)
        return environ

    def _speaker(self) -> WSGIRequestHandler:
        """The handler object whose hooks speak for the request in hand, made when it is first asked for."""
        if self.handler is None:
            loop, names, seen = self.loop, self.listener.names, None
            if self.state != READING and self.head is not None:  # else the head, if any, is an earlier request's
                seen = Seen(self.head, self.extra)
            self.handler = loop.handler_class.for_request(self.sock, self.peer, loop.server, names, self.buffer, seen)
        return self.handler

    def _own_clock(self) -> wire.Clock:
        """Date, and Server as the handler class says it for this request."""
        return wire.Clock(self._speaker().version_string())

    def _environ_by_handler(self) -> dict[str, Any]:
        handler = self._speaker()
        environ = handler.get_environ()
        environ.update(self.loop.base_environ.wsgi)
        if self.loop.hooks.stderr:
            environ["wsgi.errors"] = self.errors = handler.get_stderr()
        environ["wsgi.url_scheme"] = scheme_of(environ)
        return environ

    def _tell(self, environ: dict[str, Any], response: Response) -> None:
        """Tell the access log and the handler's hook what was answered."""
        loop = self.loop
        if loop.notes_by_handler:
            self._speaker().log_request(str(response.status), response.sent)
        if response is self.logged:
            self.logged = None
        elif loop.access.enabled and self.head is not None:
            self._note(self._log_when_out if self.out else loop.access.add, self.head, environ, response)

    def _note(
        self, add: Callable[[*_Entry], object], head: RequestHead, environ: dict[str, Any], response: Response
    ) -> None:
        note(add, f"{head.line.decode('latin-1')} {head.protocol}", head.fields, environ, response)

    def _log_before_end(self, response: Response) -> None:
        """Log an answer that is over although its call is not, which may outlive the worker."""
        if self.loop.access.enabled and self.head is not None and response is not self.logged:
            self.logged = response
            self._note(self.loop.access.add, self.head, {"REMOTE_ADDR": self._client()}, response)

    def _log_when_out(self, *entry: *_Entry) -> None:
        """Log an answer when its client has taken it, or has gone: how much that was is known by then."""
        self.unlogged = entry

    def _log(self, unsent: int) -> None:
        """Log the answer that is over now, of which so many bytes were ``unsent``, head and framing included."""
        if self.unlogged is not None:
            (peer, user, line, status, size, referer, agent), self.unlogged = self.unlogged, None
            self.loop.access.add(peer, user, line, status, max(0, size - unsent), referer, agent)

    def park(self) -> None:
        """Wait for the next request."""
        loop = self.loop
        self.state = READING
        self.head = None
        if loop.retiring:
            self.wait_in(loop.heads if self.buffer else loop.idle)  # its time counts from now, whoever it waits with
            if loop.hand_on(self):
                return
        if self.buffer:
            self._wait_for_turn()
        if self.queue is not loop.resting or loop.now - self.parked_at > loop.park_seconds:
            self.parked_at = loop.now
            self.wait_in(loop.resting)
        if self.interest != self.read_mask:
            loop.watch_reading(self)
        if loop.acceptor.crowded:
            loop.acceptor.start()  # there is an idle one to close again

    def _drain(self) -> None:
        self.state = DRAINING
        self.wait_in(self.loop.writes)
        self.loop.watch_writing(self)
        self.loop.note_unsent()

    def kept(self) -> None:
        """What the client has not taken goes on while the application is at work on the rest."""
        if self.state == CALLING:  # also while nobody drives beside: the steward may come yet
            self.wait_in(self.loop.writes)
            self.loop.watch_writing(self)

    def waiting(self, waits: bool) -> None:
        """The application's thread begins to wait for the client, or has done so."""
        (self.loop.slow_readers.waiting.add if waits else self.loop.slow_readers.waiting.discard)(self)

    def judge(self, size: int) -> None:
        """Raises ClientGoneError where the wait for room for ``size`` bytes is to end without it."""
        pace, now = self.pace, monotonic()
        if pace is None or now < pace.judged_at + WAIT_SECONDS:
            return
        pace.judged_at = now
        if self._last_progress(now) + self.loop.settings.write_timeout <= now or self._must_yield(size):
            self.doomed = True
            raise ClientGoneError

    def _must_yield(self, size: int) -> bool:
        """Whether the wait for room for ``size`` bytes ends because others wait for the thread."""
        readers, out = self.loop.slow_readers, self.out
        own_share = out is not None and out.exceeds_share(size)
        return (
            readers.keep_others_waiting()
            and (own_share or not readers.make_room(size, FAIR_RATE))
            and readers.is_slowest(self)
        )

    def _last_progress(self, now: float) -> float:
        """When the client last took enough of the answer to count."""
        return self.pace.look(now, _LEAST_RATE * self.loop.settings.write_timeout) if self.pace is not None else now

    def wait_in(self, queue: TimeoutQueue[Connection]) -> None:
        """Have the deadline that ``queue`` gives, and no other."""
        if self.queue is not queue:
            if self.queue is not None:
                self.queue.discard(self)
            self.queue = queue
        self.loop.put(queue, self)

    # What else gateway.Sink asks for

    @property
    def worker(self) -> bool:
        """Whether this is one process of several under a master."""
        return self.loop.context.worker

    def report(self, message: str, error: BaseException | None = None) -> None:
        """Tell of the application's fault: a script on ``wsgi.errors``, a worker in the error log."""
        line = self.line.decode("latin-1")
        if self.errors is not None or not self.loop.context.worker:
            tell(
                self.loop.base_environ.wsgi["wsgi.errors"] if self.errors is None else self.errors, line, message, error
            )
        elif error is None:
            self.loop.log.error(f"{line}: {message}")
        else:
            self.loop.log.exception(f"{line}: {message}", error)

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        """As ``Sending`` does it. Where ``file`` is the request's body, its disk space is taken until it is sent."""
        upload = self.upload
        if isinstance(upload, StreamedBody) and upload.is_file(file):
            close = partial(_close_both, close, upload.pass_on())
        super().send_file(head, file, offset, count, close)

    def fail(self, status: int) -> int:
        """Answer in place of the application; the page, whose size in bytes is given, says nothing of what happened."""
        return self._send_error(status)

    def renew(self) -> None:
        """The application has yielded something: its deadline counts from now."""
        self.loop.renew()

    def expire(self) -> None:
        """The application was interrupted and is still at it: answer without it where nothing was sent."""
        response = self.response
        if self.state != CALLING or response is None or (response.head_sent and response.remaining == 0):
            return
        if response.head_sent:
            self.reset()  # the answer is not whole, and must not seem so
            self._log_before_end(response)
            return
        response.give_up(504)
        self.persistent = False
        try:
            response.sent = self._send_error(504)
        except ClientGoneError:
            self.close()
            return
        finally:
            self._log_before_end(response)
        if self.out:
            self._drain()
        else:
            self.linger()

    def abort(self) -> None:
        """Cut the connection when the application is through with it: the answer is not whole, and must not seem so."""
        self.doomed = True

    # Draining and closing

    def writable(self, _event: int = 0) -> None:
        """Go on sending what the client had not taken."""
        if self.state == CLOSED:
            return  # a moment ago, in the same turn
        try:
            progress = self.flush()
        except ClientGoneError as gone:
            if isinstance(gone.__cause__, EOFError):
                self.report(str(gone.__cause__))
            self.reset()
            return
        if self.out:
            if progress:
                self._note_progress()
        elif self.state == CALLING:
            self.loop.suspend(self)  # the application has more to say
            self._forget_deadline()
        else:
            self._log(0)
            if self.persistent:
                self.park()
                self.loop.note_unsent()
            else:
                self._finish()

    def _note_progress(self) -> None:
        """Put the deadline off where the client has taken enough since it was put off last."""
        loop, pace = self.loop, self.pace
        if pace is not None and loop.now - pace.progress_at >= min(1.0, loop.writes.seconds / 10):
            before = pace.progress_at
            if self._last_progress(loop.now) > before:
                self.wait_in(loop.writes)

    def _takes_slowly(self) -> bool:
        """Whether the client has made progress that no event told of; its deadline counts from there then."""
        loop = self.loop
        deadline = self._last_progress(loop.now) + loop.writes.seconds
        if self.pace is None or deadline <= loop.now:
            return False
        self.wait_in(loop.writes)
        loop.put_until(loop.writes, self, deadline)
        return True

    def refuse(self, error: ProtocolError) -> None:
        """Answer a request that is not accepted, and close."""
        loop = self.loop
        if self.upload is not None:
            self.upload.drop()
            self.upload = None
        self.persistent = False
        try:
            if loop.hooks.error or loop.context.notes_by_handler:
                size = self._send_documented_error(error)
            else:
                size = self._send_error(error.status)
        except ClientGoneError:
            self._tell_refused(error, 0)
            self.close()
            return
        self._tell_refused(error, size)
        self.buffer = b""
        if error.status != 408:  # a client that was too slow gets no further time
            self.linger_until = loop.now + LINGER_SECONDS
        if self.out:
            self._drain()
        else:
            self.linger()

    def _tell_refused(self, error: ProtocolError, size: int) -> None:
        """Tell both logs of a request that was refused with a page of ``size`` bytes; a script's handlers have told."""
        loop, client = self.loop, self._client()
        if loop.context.worker:
            loop.notices.refused(client, error, self._asked)
        if loop.access.enabled:
            loop.access.add(client, "", self._asked(), error.status, size, "", "")

    def _client(self) -> str:
        """The address of the client that is refused: as trusted proxies name it, once the head was read."""
        peer = str(self.peer[0])
        if self.state == READING or self.head is None or self.loop.trust is None:
            return peer
        environ: dict[str, Any] = {"REMOTE_ADDR": peer, **self.head.fields}
        try:
            apply_forwarded(environ, self.peer, self.loop.trust, self.loop.notices)
        except ProtocolError:  # it may be what the request is refused for
            return peer
        return str(environ["REMOTE_ADDR"])

    def _asked(self) -> str:
        """The request line of the request that is refused, as far as it was read."""
        if self.state != READING and self.head is not None:
            return f"{self.head.line.decode('latin-1')} {self.head.protocol}"
        return first_line(self.buffer, self.loop.settings.limit_request_line)

    def described(self) -> str:
        """The request in hand without its query, which may hold secrets, and its client, for the log."""
        line = self.line.partition(b"?")[0].decode("latin-1")
        return f"{quoted(line, _LINE_CHARS)} from {self._client() or 'a client of a Unix socket'}"

    @property
    def line(self) -> bytes:
        """The line of the request in hand, without its version; empty where that is not known."""
        return b"" if self.head is None else self.head.line

    def _send_error(self, status: int) -> int:
        """Gives the bytes of the page."""
        answer = self._error(status)
        self.send(answer)
        return wire.body_size(answer)

    def _error(self, status: int, hint: str = "") -> bytes:
        clock = self._own_clock() if self.loop.hooks.version else self.loop.clock
        if self.state == READING or self.head is None:  # no head yet, or none that could be read
            method = "HEAD" if self.buffer.startswith(b"HEAD ") else "GET"
        else:
            method = self.head.method
        extra = "Retry-After: 1\r\n" if status == 503 else ""
        return wire.error(status, clock.at(time()), method, extra, hint)

    def _send_documented_error(self, error: ProtocolError) -> int:
        """Gives the bytes of the page."""
        answer = self._documented_error(error)
        self.send(answer)
        return wire.body_size(answer)

    def _documented_error(self, error: ProtocolError, hint: str | None = None) -> bytes:
        """As BaseHTTPRequestHandler.send_error does it, with what the subclass overrides."""
        handler = self._speaker()
        handler._refusing = True
        handler.send_error(error.status, explain=hint)
        answer: bytes = handler.wfile.getvalue()  # type: ignore[attr-defined]
        return answer

    def _finish(self) -> None:
        """Close after a whole answer. Unread bytes would turn the close into a reset that can overtake the answer."""
        head = self.head
        # Who has asked for the close sends nothing more (RFC 9112 section 9.6), but for old clients' CRLF after a body.
        said = head is not None and not (head.persistent or self.buffer or self.linger_until)
        if said and not (head.has_body and self.has_more()):  # type: ignore[union-attr]
            self.close()
        else:
            self.linger()

    def has_more(self) -> bool:
        """Whether something has come that was not read; the end of the client's bytes is nothing."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def part(self) -> None:
        """Close unless an answer is on its way: with nothing unread, closing cannot become a reset."""
        if self.state == LINGERING:
            self.discard()
        if self.state == LINGERING or (self.state == READING and not self.queued):
            self.close()

    def linger(self) -> None:
        """Shut the writing side and read the client's rest for a bounded time (RFC 9112 section 9.6).

        After a refusal the rest may be a whole upload. A proxy writes all of it before it reads the answer; if the
        connection is reset meanwhile, the proxy answers 502 in place of the refusal.
        """
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.state = LINGERING
        self.buffer = b""
        if self.response is None:  # else the call in hand is told of when it ends
            self.head = None
        self.wait_in(self.loop.refusing if self.linger_until else self.loop.lingering)
        self.loop.watch_reading(self, self.discard)
        if self.loop.acceptor.crowded:
            self.loop.acceptor.start()

    def discard(self, _event: int = 0) -> None:
        """Read and drop."""
        try:
            size = len(self._recv(_DISCARD_BYTES))
        except BlockingIOError:
            return
        except OSError:
            size = 0
        loop, self.discarded = self.loop, self.discarded + size
        if not size or self.discarded > LINGER_BYTES:
            self.close()
        elif self.queue is loop.discarding and loop.now + loop.discarding.seconds <= self.linger_until:
            loop.put(loop.discarding, self)

    def turn_down(self) -> None:
        """Its request has waited here too long for the application: better an answer now than a right one too late."""
        self.state = CALLING
        self.refuse(ProtocolError(503, "the request has waited longer than queue_timeout"))

    def overdue(self) -> None:
        """Its deadline has passed."""
        if self.state == READY or (self.state == CALLING and not self.out):
            return  # whom it waits for is the application
        if self.queued and self.state == READING:
            self.wait_in(self.loop.resting)  # its next request has come in time; it is we who are late
        elif self.state == BODY:
            if (rate := self.look_at_body()) is not None:
                self.wait_in(self.loop.bodies.queue(rate))
        elif self.state == READING and self.buffer:
            self.refuse(ProtocolError(408, "the request took too long"))
        elif self.state == DRAINING or self.state == CALLING:
            if not self._takes_slowly():
                self.reset()
        elif self.state == READING and self.loop.retiring and self.loop.hand_on(self):
            return
        elif self.state == READING and (self.loop.closing or self.loop.retiring):
            self._part_from_idle()
        else:
            self.close()

    def evict(self, shortage: str) -> None:
        """Make room at once: a client in the middle of a request is answered 408, as far as it takes that now."""
        if self.state == DRAINING:
            self.reset()  # the answer is not whole, and must not seem so
        elif self.state == BODY or self.buffer:
            self.refuse(ProtocolError(408, f"the request was too slow while the worker was short of {shortage}"))
            if self.state == LINGERING:
                self.discard()  # what is left unread would make a reset of the close
        self.close()

    def _part_from_idle(self) -> None:
        """End a connection that stayed idle while the worker retires.

        A request may cross the close on its way; it must not be answered by a reset.
        """
        self.linger()
        if self.state == LINGERING:
            self.loop.put_until(self.loop.lingering, self, self.loop.now + _FAREWELL_SECONDS)

    def turn_away(self) -> None:
        """Close a connection that ``verify_request`` does not want."""
        self.close()

    def reset(self) -> None:
        """Close so that the client can tell: by a reset, which drops what is unsent."""
        reset_at_close(self.sock)
        self.close()

    def cut(self) -> None:
        """Close at once, whatever is going on; an answer that is not whole must not seem so."""
        response = self.response
        begun = response is not None and response.head_sent and response.remaining != 0
        if self.out or begun:
            self.reset()
        else:
            self.close()
        if response is not None:
            self._log_before_end(response)

    def close(self) -> None:
        """Give everything back. Closing twice is once."""
        if self.state == CLOSED:
            return
        called, self.state = self.response is not None, CLOSED
        self._forget_deadline()
        try:
            if self.upload is not None and not called:  # else the application still reads from it
                self.upload.close()
            if self.out is not None:
                self._forgo(self.out)
        finally:
            self.loop.leave(self)
            client_socket, self.websocket = self.websocket, None
            if client_socket is None or not client_socket.end():
                self.sock.close()
            elif self.response is not None:
                self.response.sent = client_socket.sent
            self.fd = -1

    def _forgo(self, out: SendBuffer) -> None:
        """Drop what the client has not taken, of which the access log is not to speak as sent."""
        unsent = out.size
        out.close()
        if self.response is not None:
            self.response.sent = max(0, self.response.sent - unsent)
        self._log(unsent)

    def forget(self) -> None:
        """In a child that the application forked: close its copies of descriptors; the client is the parent's.

        The body of a call in hand stays: the child may be there to read it.
        """
        self.sock.close()
        self.fd = -1
        self.interest = 0  # its registration is the parent's, too
        self.unlogged = None
        if self.out is not None:
            self.out.forget()
        if self.upload is not None and self.state != CALLING:
            self.upload.close()

    def _forget_deadline(self) -> None:
        if self.queue is not None:
            self.queue.discard(self)
            self.queue = None


def _receive_what_is_there(sock: socket.socket, size: int) -> bytes:
    """As ``sock.recv`` of a socket that does not block."""
    return sock.recv(size, socket.MSG_DONTWAIT)


def _close_both(first: Callable[[], object], second: Callable[[], object]) -> None:
    try:
        first()
    finally:
        second()
