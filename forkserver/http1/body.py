"""Request bodies off the wire: by Content-Length and chunked.

``feed`` takes the bytes as they come, split anywhere, and gives those of the body without their framing; what follows
the body's end is left in ``rest``. The caller keeps the body.

Source: RFC 9112 sections 6 and 7.1.
"""

from __future__ import annotations

import sys
from typing import Final

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar

_CHUNK_LINE_BYTES: Final = 1024
_EXTENSION_BYTES: Final = 16 * 1024  # in a whole body
_TRAILER_BYTES: Final = 16 * 1024
_TRAILER_FIELDS: Final = 64


class FixedBody:
    """A body of ``length`` bytes."""

    more = False  # it is never left unread

    def __init__(self, length: int) -> None:
        self.missing = length
        self.rest = b""

    @property
    def done(self) -> bool:
        return not self.missing

    def feed(self, data: bytes) -> bytes:
        """The part of ``data`` that is body; ``rest`` is what follows the body's end."""
        if len(data) > self.missing:
            data, self.rest = data[: self.missing], data[self.missing :]
        self.missing -= len(data)
        return data


class ChunkedBody:
    """A chunked body of at most ``max_body`` bytes.

    ``share`` is how many chunks one ``feed`` takes at most. Where it leaves some, there is ``more``: feed it with
    nothing to go on.
    """

    def __init__(self, max_body: int, share: int = sys.maxsize) -> None:
        self._max_body = max_body
        self._share = self._left = share
        self._taken = 0
        self._in_chunk = 0  # bytes of the current chunk still to come
        self._read = self._read_size
        self._buffer = b""
        self._at = 0  # where in ``_buffer`` the next piece begins
        self._scanned = 0  # so much of an unfinished line has been found sound
        self._extensions = 0
        self._trailers = 0
        self._trailer_bytes = 0
        self.done = self.more = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The body bytes that ``data`` completes, framing taken off; ``rest`` is what follows the body's end.

        Raises ProtocolError 400 for framing that is not to the letter, 413 for a body that is too large.
        """
        if data:
            self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
            self._at = 0
        parts: list[bytes] = []
        self._left = self._share
        while not self.done and self._left > 0:
            step = self._read(self._at, parts)
            if step is None:
                break
            self._at = step
        self.more = not (self.done or self._left > 0) and self._at < len(self._buffer)
        if self.done:
            self.rest, self._buffer = self._buffer[self._at :], b""
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # Each reader takes one piece from ``at`` and returns where the next begins, or None while bytes are missing.

    def _line(self, at: int, limit: int, what: str) -> bytes | None:
        end = self._buffer.find(b"\r\n", at, at + limit + 2)
        if end >= 0:
            self._scanned = 0
            return self._buffer[at:end]
        if len(self._buffer) - at > limit + 1:
            raise ProtocolError(400, f"{what} is too long")
        if grammar.NOT_IN_HEAD.search(self._buffer, at + max(0, self._scanned - 1)):
            raise ProtocolError(400, f"malformed {what}")
        self._scanned = len(self._buffer) - at
        return None

    def _read_chunks(self, at: int, parts: list[bytes]) -> int:
        """Chunks that are whole and have no extension, which is what clients send: a few operations for each."""
        buffer, begun = self._buffer, at
        while self._left > 0 and (found := grammar.PLAIN_CHUNK_LINE.match(buffer, at)):
            size, start = int(found[1], 16), found.end()
            end = start + size
            if not size or self._taken + size > self._max_body or buffer[end : end + 2] != b"\r\n":
                break  # it is for the other readers to say what it is
            self._taken += size
            self._left -= 1
            parts.append(buffer[start:end])
            at = end + 2
        if at > begun:
            self._scanned = 0
        return at

    def _read_size(self, at: int, parts: list[bytes]) -> int | None:
        begun, at = at, self._read_chunks(at, parts)
        if self._left <= 0:
            return at
        line = self._line(at, _CHUNK_LINE_BYTES, "chunk size")
        if line is None:
            return at if at > begun else None
        self._left -= 1
        match = grammar.CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(400, "malformed chunk size")
        self._extensions += len(match[2])
        if self._extensions > _EXTENSION_BYTES:
            raise ProtocolError(400, "too many chunk extensions")
        self._in_chunk = int(match[1], 16)
        self._taken += self._in_chunk
        if self._taken > self._max_body:
            raise ProtocolError(413, f"the body is larger than {self._max_body} bytes")
        self._read = self._read_data if self._in_chunk else self._read_trailer
        return at + len(line) + 2

    def _read_data(self, at: int, parts: list[bytes]) -> int | None:
        piece = self._buffer[at : at + self._in_chunk]
        if not piece:
            return None
        parts.append(piece)
        self._in_chunk -= len(piece)
        if not self._in_chunk:
            self._read = self._read_chunk_end
        return at + len(piece)

    def _read_chunk_end(self, at: int, parts: list[bytes]) -> int | None:
        end = self._buffer[at : at + 2]
        if not b"\r\n".startswith(end):
            raise ProtocolError(400, "a chunk does not end where its size says")
        if len(end) < 2:
            return None
        self._read = self._read_size
        return at + 2

    def _read_trailer(self, at: int, parts: list[bytes]) -> int | None:
        line = self._line(at, _TRAILER_BYTES, "trailer field")
        if line is None:
            return None
        if not line:
            self.done = True
            return at + 2
        self._trailers += 1
        self._trailer_bytes += len(line)
        if self._trailers > _TRAILER_FIELDS or self._trailer_bytes > _TRAILER_BYTES:
            raise ProtocolError(431, "too many trailer fields")
        name, colon, value = line.partition(b":")
        if not colon or not grammar.TOKEN.fullmatch(name) or grammar.NOT_IN_VALUE.search(value):
            raise ProtocolError(400, "malformed trailer field")
        return at + len(line) + 2  # checked and dropped: an application cannot tell a trailer from a header


Body = FixedBody | ChunkedBody
