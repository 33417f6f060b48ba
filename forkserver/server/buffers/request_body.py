"""A request's body on its way, until it is whole.

The application gets a body only as a whole, and ``ReceiveRate`` tells a drip from progress. A full disk is an OSError
for the caller to answer.

A body that was lent memory may stay in the kernel's receive queue (``rest_in``) and is read when it is called for: it
is copied once less, and no thread wakes for each piece of it.
"""

from __future__ import annotations

import socket
from io import BytesIO
from typing import IO, Final

from forkserver.errors import ProtocolError
from forkserver.http1.body import Body, ChunkedBody, FixedBody
from forkserver.http1.request import RequestHead
from forkserver.linux.sockets.receive_queue import ReceiveQueue
from forkserver.server.buffers.body_buffer import BODY_MEMORY, BodyBuffer
from forkserver.server.buffers.receive_rate import ReceiveRate
from forkserver.server.buffers.spool import Spool

_SHARE_CHUNKS: Final = 256  # in one turn of the loop: some 0.2 ms
_READ_BYTES: Final = 256 * 1024  # of one read; as many as were waited for, if that is more


class BufferedBody:
    """A body of ``data``, which has come together with its head: nothing to collect and nothing to give back."""

    __slots__ = ("data",)
    unread = False

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.data)

    @property
    def stream(self) -> IO[bytes]:
        """The body as ``wsgi.input``."""
        return BytesIO(self.data)

    def close(self) -> None:
        """Nothing: it holds memory only as long as it lives."""

    drop = fetch = close


class StreamedBody:
    """Collects the body that ``head``, of the bytes ``raw``, announces: ``feed`` what comes, until it is ``done``.

    ``stream`` is the body then, as ``wsgi.input``; ``rest`` is what followed it. ``close`` in any case.
    """

    __slots__ = ("_body", "_head", "_queue", "_sock", "buffer", "progress", "rest", "stream", "unread")

    def __init__(self, head: RequestHead, raw: bytes, spool: Spool, max_body: int, progress: ReceiveRate) -> None:
        self._body: Body = ChunkedBody(max_body, _SHARE_CHUNKS) if head.chunked else FixedBody(head.length or 0)
        self.buffer = BodyBuffer(spool, 0 if head.chunked else head.length or 0)
        self._head = raw
        self.progress = progress
        self._sock: socket.socket | None = None
        self._queue: ReceiveQueue | None = None
        self.unread = False  # the body's end is in the kernel's queue: ``fetch`` it
        self.rest = b""
        self.stream: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """Bytes of the body so far, without their framing."""
        return self.buffer.size

    @property
    def done(self) -> bool:
        """Whether the body is whole."""
        return self.stream is not None

    def shortage(self, length: int) -> str | None:
        """Why a body of ``length`` bytes cannot be kept, None where it can, or its length is not known (below 0)."""
        return None if self.has_memory else self.buffer.shortage(length)

    @property
    def more(self) -> bool:
        """Whether something of what was fed is left for another turn: feed nothing then."""
        return self._body.more

    @property
    def has_memory(self) -> bool:
        """Whether it was lent memory for all of it."""
        return bool(self.buffer.lent)

    @property
    def read_bytes(self) -> int:
        """Bytes to be read at once."""
        return max(_READ_BYTES, self._queue.mark) if self._queue is not None else _READ_BYTES

    def feed(self, data: bytes) -> None:
        """Take ``data``. Raises ProtocolError, and OSError (no room)."""
        self.buffer.add(self._body.feed(data))
        if self._body.done:
            self.stream = self.buffer.open()
            self.rest = self._body.rest

    def rest_in(self, sock: socket.socket) -> None:
        """Let what is missing stay in the receive queue of ``sock``, TCP, for a body that ``has_memory``.

        Raises OSError.
        """
        self._sock = sock
        self._queue = ReceiveQueue(sock)
        self.wait()

    def wait(self) -> None:
        """Have epoll report the connection when the body is whole, if it may rest where it is. Raises OSError."""
        if self._queue is not None and isinstance(self._body, FixedBody):
            self._queue.wait_for(max(1, self._body.missing))

    def arrived(self) -> bool:
        """Whether the body is whole in the kernel's queue; it is ``unread`` then. Raises OSError."""
        queue, body = self._queue, self._body
        if queue is None or body.done or not isinstance(body, FixedBody) or queue.count() < body.missing:
            return False
        queue.wait_for(1)
        self.unread = True
        return True

    def fetch(self) -> None:
        """Read the body that has ``arrived``. Raises ProtocolError where it is not there any more."""
        assert self._sock is not None
        assert isinstance(self._body, FixedBody)
        self.unread = False
        try:
            data = self._sock.recv(self._body.missing)
        except OSError as error:
            raise ProtocolError(400, "the body is lost") from error
        self.feed(data)
        if not self.done:
            raise ProtocolError(400, "the body is not whole")  # urgent data in it, for example

    def look(self, now: float) -> None:
        """Let ``progress`` know what has come where it is not read yet. Raises OSError."""
        if self._queue is not None:
            count = self._queue.count()
            self.progress.see(count, now - self._queue.idle_seconds() if count else now)

    def as_sent(self) -> bytes | None:
        """The whole request and its ``rest``, as far as they were read and a sibling would have to read them.

        None where that is gone: a body that is in a file, or came in chunks, is not read a second time.
        """
        buffer = self.buffer
        part = buffer.in_one_part() if isinstance(self._body, FixedBody) and buffer.size <= BODY_MEMORY else None
        return None if part is None else self._head + part + self.rest

    def drop(self) -> None:
        """Read what stands in the kernel's queue, where an answer would be lost by a reset; then as ``close``."""
        if self.unread:
            try:
                self.fetch()
            except ProtocolError:
                pass  # it is refused already
        self.close()

    def close(self) -> None:
        """Give back what it holds. What is ``unread`` stays: the connection may be another's by now."""
        self.buffer.close()
        if self._queue is not None and self._sock is not None and self._sock.fileno() >= 0:
            self._queue.wait_for(1)
