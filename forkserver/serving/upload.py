"""A request's body on its way, until it is whole.

It promises that the application gets a body only as a whole, and that what a client drips is told from progress. It
refuses to know connections; a full disk is an OSError for the caller to answer.
"""

from __future__ import annotations

from io import BytesIO
from typing import IO, Final

from forkserver.serving.buffers import BodyBuffer, Spool
from forkserver.wire.block import Block
from forkserver.wire.body import Body, ChunkedBody, FixedBody

_PROGRESS_BYTES: Final = 1024  # a drip below this does not push the body's deadline


class Upload:
    """Collects the body that ``head``, the bytes of ``block``, announces: ``feed`` what comes, until it is ``done``.

    ``stream`` is the body then, as ``wsgi.input``; ``rest`` is what followed it. ``close`` in any case.
    """

    __slots__ = ("_body", "_buffer", "_fresh", "_head", "rest", "stream")

    def __init__(self, block: Block, head: bytes, spool: Spool, max_body: int) -> None:
        self._body: Body = ChunkedBody(max_body) if block.chunked else FixedBody(block.length or 0)
        self._buffer = BodyBuffer(spool)
        self._head = head
        self._fresh = 0  # bytes since the last progress that counted
        self.rest = b""
        self.stream: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """Bytes of the body so far, without their framing."""
        return self._buffer.size

    @property
    def done(self) -> bool:
        """Whether the body is whole."""
        return self.stream is not None

    def feed(self, data: bytes) -> bool:
        """Take ``data``; whether it is progress enough to wait on. Raises ProtocolError, and OSError (no room)."""
        self._buffer.add(self._body.feed(data))
        if self._body.done:
            self.stream = self._buffer.open()
            self.rest = self._body.rest
            return True
        self._fresh += len(data)
        if self._fresh < _PROGRESS_BYTES:
            return False
        self._fresh = 0
        return True

    def as_sent(self) -> bytes | None:
        """The whole request and its ``rest``, as a sibling would have to read them; None where that is gone.

        A body that is in a file, or came in chunks, is not read a second time.
        """
        if isinstance(self._body, FixedBody) and isinstance(self.stream, BytesIO):
            return self._head + self.stream.getvalue() + self.rest
        return None

    def close(self) -> None:
        """Give back what it holds."""
        self._buffer.close()
