"""One client connection of the event-driven worker: from bytes that arrive to a whole request, and on to the next.

A request is passed to the application only when it is whole, its body included. What was read beyond it stays in
``buffer`` and is served in a later turn, so that a client with many requests in one packet waits like all others.
Deadlines (``overdue``), eviction and the retirement of the worker end a connection here; how an answer is made is in
``exchange.py``, how a request is refused in ``rejection.py``, and the states are in ``states.py``.

Source: RFC 9112 sections 2.2, 6 and 9.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import Any, Final

from forkserver.errors import ProtocolError
from forkserver.http1.in_the_clear import PlaintextError
from forkserver.http1.request import RequestHead, read_head
from forkserver.linux.files.file_size_limit import why_unwritten
from forkserver.linux.sockets import receive_queue
from forkserver.logs.client_text import quoted
from forkserver.server.buffers.receive_rate import ReceiveRate
from forkserver.server.buffers.request_body import BufferedBody, StreamedBody
from forkserver.server.connection.draining import DrainingConnection
from forkserver.server.connection.exchange import Exchange
from forkserver.server.connection.plain_exchange import answer, conclude, facts_of, receive
from forkserver.server.connection.protocols import UNKNOWN
from forkserver.server.connection.rejection import client_address, refuse
from forkserver.server.connection.states import BODY, CALLING, DRAINING, LINGERING, READING, READY, UPGRADED

_HEAD_BYTES: Final = 16 * 1024  # of one read while a head is expected
_LINE_CHARS: Final = 200  # of a request line in the log
_TCP: Final = (socket.AF_INET, socket.AF_INET6)
_FAREWELL_SECONDS: Final = 0.5  # for a request that crosses the close of an idle connection
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(DrainingConnection):
    """Reads requests and serves them. Made by the acceptor; the poller calls ``readable`` and ``writable``."""

    __slots__ = ()

    # Reading

    def readable(self, event: int = 0) -> None:
        """Read what has come, and do what it makes possible."""
        if self.queued:
            return
        if self.state is not READING:
            if self.state is BODY:
                self._read_body()
            else:
                self._not_now(event)
            return
        if self.facts is UNKNOWN:
            self.facts = facts_of(self)
        try:
            if self.facts is None or self.buffer:
                read: Any = receive(self, _HEAD_BYTES)
            elif (read := self.loop.plain.read(self.fd, self.facts)) is None:  # type: ignore[union-attr]
                return
            if not isinstance(read, bytes):
                self.head = read
                self.state = READY
                self.loop.calls.submit(self, read.raw)
                return
        except BlockingIOError:
            if self.loop.retiring and self.queue is self.loop.timeouts.heads and not self.begun:
                self.wait_in(self.loop.timeouts.resting)  # its handshake is complete: the request follows, or it idles
            return
        except OSError:
            self.close()
            return
        except PlaintextError as error:
            self.buffer = error.data
            refuse(self, error)
            return
        if read:
            self.receive(self.buffer + read if self.buffer else read)
        else:
            self.close()  # half a head cannot be answered

    def receive(self, data: bytes, invited: bool = False) -> None:
        """Take ``data``, the start of a head: call the application when the request is whole.

        ``invited``: if it announces a body, the client has been asked for that.
        """
        try:
            head = read_head(data, self.loop.context.head_limits, self.scanned)
        except ProtocolError as error:
            self.buffer = data
            refuse(self, error)
            return
        if head is None:
            self.buffer = data
            self.scanned = len(data)
            self.backlog_seconds = 0.0  # from here on it waits for its client
            if self.queue is not self.loop.timeouts.heads:
                self.wait_in(self.loop.timeouts.heads)
            return
        self.buffer = data[head.size :]
        self.scanned = 0
        self.head = head
        if head.has_body:
            self._expect_body(head, data, invited or not head.expects_continue)
        else:
            self.state = READY
            self.loop.calls.submit(self, data)

    def _not_now(self, event: int) -> None:
        """The next request comes before this one is answered, or the client goes: look no further until then."""
        self.loop.poller.suspend(self)
        if self.state is READY and event & (select.EPOLLHUP | select.EPOLLERR):
            self.close()  # no client is left to be answered

    def resume(self) -> None:
        """Go on with bytes that were read together with an earlier request."""
        self.queued = False
        if self.state is READING:
            data, self.buffer = self.buffer, b""
            self.receive(data)
        elif self.state is BODY:
            self._collect(b"")

    # The body

    def _expect_body(self, head: RequestHead, data: bytes, invited: bool) -> None:
        """Collect the body of a request that begins ``data``; what has come of it is in ``buffer``."""
        loop, rest = self.loop, self.buffer
        timeouts, context = loop.timeouts, loop.context
        length = -1 if head.chunked else head.length or 0
        if 0 <= length <= len(rest):
            self.upload = BufferedBody(rest[:length])
            self.buffer = rest[length:]
            self._submit(data)
            return
        progress = ReceiveRate(timeouts.now, timeouts.late_seconds)
        progress.add(len(rest), timeouts.now)
        raw = data[: len(data) - len(rest)]
        self.upload = upload = StreamedBody(head, raw, context.spool, context.settings.max_body, progress)
        self.buffer = b""
        self.state = BODY
        self.wait_in(timeouts.bodies.fresh)
        if (why := loop.eviction.make_spool_room(upload, length)) is not None:  # before it is asked for
            self._refuse_for_room(why)
            return
        if receive_queue.SOUND and upload.has_memory and not self.transport.seals and self.sock.family in _TCP:
            upload.rest_in(self.sock)
        if rest or invited:
            self._collect(rest)
            return
        self.backlog_seconds = 0.0
        try:
            self.transport.send_now(CONTINUE)
        except OSError:  # a client that takes not even this, or has gone
            self.close()

    def _read_body(self) -> None:
        """Read what has come of the body, unless it may stay where it is until the application is called."""
        upload = self.upload
        assert isinstance(upload, StreamedBody)
        try:
            if upload.arrived():
                self._submit(upload.as_sent())
                return
            data = self.transport.recv(upload.read_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            if not self.transport.seals:
                self.note_received(len(data))
            self._collect(data)
        else:
            refuse(self, ProtocolError(400, "the body ends early"))

    def note_received(self, count: int) -> None:
        """``count`` bytes were read from the socket, which may make nothing whole yet."""
        if isinstance(self.upload, StreamedBody):
            self.upload.progress.add(count, self.loop.timeouts.now)

    def _collect(self, data: bytes) -> None:
        upload = self.upload
        assert isinstance(upload, StreamedBody)
        try:
            upload.feed(data)
        except ProtocolError as error:
            refuse(self, error)
            return
        except OSError as error:
            self._refuse_for_room(why_unwritten(error))
            return
        if upload.done:
            self.buffer = upload.rest
            self._submit(upload.as_sent())
        elif upload.more:
            self.wait_for_turn()
        else:
            self.backlog_seconds = 0.0
            upload.wait()

    def _submit(self, data: bytes | None) -> None:
        """The request is whole; ``data`` is what a sibling would have to read for it, None where that is gone."""
        self.state = READY
        self.loop.calls.submit(self, data)

    def _refuse_for_room(self, why: str) -> None:
        self.loop.context.notices.no_room(why)
        refuse(self, ProtocolError(503, "no room for the body"))

    @property
    def head_bytes(self) -> int:
        """Bytes that have come of a head that is not whole, and of the handshake before it."""
        return len(self.buffer) + (0 if self._transport is None else self._transport.greeting_bytes)

    @property
    def size_in_spool(self) -> int:
        """Bytes of the body so far that were not lent memory."""
        upload = self.upload
        return upload.size if isinstance(upload, StreamedBody) and not upload.has_memory else 0

    def body_rate(self) -> float:
        """Bytes a second of the body of late."""
        upload, now = self.upload, self.loop.timeouts.now
        assert isinstance(upload, StreamedBody)
        with suppress(OSError):  # of a connection that has failed
            upload.look(now)
        return upload.progress.rate(now)

    def _check_body_rate(self) -> float | None:
        """Refuse the body if it is too slow; else its rate of late, in bytes a second."""
        timeouts, upload, limits = self.loop.timeouts, self.upload, self.loop.context.settings
        assert isinstance(upload, StreamedBody)
        if self.queued:
            upload.progress.excuse(timeouts.now)
        with suppress(OSError):  # of a connection that has failed: what reads next hears of it
            upload.look(timeouts.now)
        why = upload.progress.verdict(timeouts.now, timeouts.late_seconds, limits.body_timeout, limits.body_min_rate)
        if why is not None:
            refuse(self, ProtocolError(408, why))
            return None
        return upload.progress.look(timeouts.now)

    # Answering

    def serve(self, thread: int = 0) -> None:
        """Call the application with the request that is whole, in ``thread``, and send its answer."""
        assert self.head is not None
        self.state = CALLING
        self.thread = thread
        if isinstance(self.head, RequestHead):
            Exchange(self, self.head).answer()
        else:
            answer(self, self.head)
        self._settle()

    def conclude(self, request: Any, outcome: Any, error: BaseException | None) -> None:
        """Go on where the extension has called the application, and leaves the rest; see ``plain_exchange``."""
        try:
            conclude(self, request, outcome, error)
        finally:
            del error  # its traceback leads here
        self._settle()

    def _settle(self) -> None:
        """The call is over: wait for the next request, for the client, or close."""
        if self.upload is not None:
            self.upload.close()
            self.upload = None
        self.handler = None
        if self.loop.forked:
            return  # this is a child of the worker's, which has nothing of the connection
        timeouts, transport = self.loop.timeouts, self._transport
        unsent = transport is not None and transport.out
        timeouts.now = now = timeouts.clock()  # the call may have taken long, and deadlines count from here
        if (
            self.persistent
            and self.queue is timeouts.resting  # so it was neither cut nor answered meanwhile
            and now - self.parked_at <= timeouts.park_seconds
            and self.interest == self.read_mask
            and not (self.buffer or unsent)  # a file, for example
        ):
            self.state = READING  # parked as before
            self.head = self.exchange = None
        elif self.state is CALLING:  # else it was cut meanwhile, or answered without the application
            if self.doomed:
                self.reset()
            elif unsent:
                self.drain()
            elif self.persistent:
                self.park()
            else:
                self.finish()
        elif self.state is UPGRADED:
            self.linger()  # with its exchange, which has the socket until the close
        else:
            self.exchange = None

    def turn_down(self) -> None:
        """The request has waited here too long for the application: an answer now is better than a right one late."""
        self.state = CALLING
        refuse(self, ProtocolError(503, "the request has waited longer than queue_timeout"))

    def described(self) -> str:
        """The request in hand without its query, which may hold secrets, and its client, for the log."""
        line = self.line.partition(b"?")[0].decode("latin-1")
        return f"{quoted(line, _LINE_CHARS)} from {client_address(self) or 'a client of a Unix socket'}"

    # Deadlines and the worker's wishes

    def overdue(self) -> None:
        """Its deadline has passed."""
        loop, timeouts, state = self.loop, self.loop.timeouts, self.state
        if state is READY or (state is CALLING and not self.unsent):
            return  # it waits for the application
        if state is BODY:
            if (rate := self._check_body_rate()) is not None:
                self.wait_in(timeouts.bodies.queue(rate))
        elif state is DRAINING or state is CALLING:
            if not self._takes_slowly():
                self.reset()
        elif state is not READING:
            self.close()
        elif self.queued:
            self.wait_in(timeouts.resting)  # its next request has come in time; it is the worker that is late
        elif self.buffer:
            refuse(self, ProtocolError(408, "the request took too long"))
        elif loop.retiring and loop.hand_on(self):
            return
        elif loop.closing or loop.retiring:
            self._part_from_idle()
        else:
            self.close()

    def _part_from_idle(self) -> None:
        """End a connection that stayed idle while the worker retires.

        A request may cross the close on its way; it must not be answered by a reset.
        """
        self.linger()
        if self.state is LINGERING:
            timeouts = self.loop.timeouts
            timeouts.put_until(timeouts.lingering, self, timeouts.now + _FAREWELL_SECONDS)

    @property
    def stranded(self) -> bool:
        """Whether it waits for its client, and there is no deadline by which that ends."""
        waits = self.state in (READING, BODY, DRAINING, LINGERING) and not self.queued
        return waits and (self.queue is None or self not in self.queue)

    def expire(self) -> None:
        """The call was interrupted and is still at work: answer without the application."""
        if self.exchange is not None:
            self.exchange.expire()

    def evict(self, shortage: str) -> None:
        """Make room at once: a client in the middle of a request is answered 408, as far as it takes that now."""
        if self.state is DRAINING:
            self.reset()  # the answer is not whole, and must not seem so
        elif self.state is BODY or self.buffer:
            refuse(self, ProtocolError(408, f"the request was too slow while the worker was short of {shortage}"))
            if self.state is LINGERING:
                self.discard()  # what is left unread would make a reset of the close
        self.close()
