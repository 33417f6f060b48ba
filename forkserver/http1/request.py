"""Bytes to a request head, or a ProtocolError; and the memo of a connection that makes the second time cheap.

It promises that nothing malformed passes, and that a memo answers what the strict path would: a remembered block is
compared to the letter. It refuses to know where the bytes come from and what becomes of the head.

Source: RFC 9112 sections 2 to 5, RFC 9110 section 7.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar
from forkserver.http1.headers import FORWARDED, MEMO_BLOCK_BYTES, MEMO_LINE_BYTES, FieldMemo, HeaderBlock, header_block

# Those that this room reads itself, and those on which others decide: a new value of one is never taken on trust.
_WEIGHTY: Final = FORWARDED | {
    "CONTENT_LENGTH", "HTTP_CONNECTION", "HTTP_EXPECT", "HTTP_HOST", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE",
}  # fmt: skip
_MEMO_OWN_LINES: Final = 16  # of one connection
_HTTP_1_1: Final = b" HTTP/1.1"
_VERSION_BYTES: Final = len(_HTTP_1_1)
_NONE: Final[dict[bytes, tuple[str | None, str]]] = {}  # what a connection of one request knows; never written to
_EMPTY_LINES: Final = 2  # RFC 9112 section 2.2: at least one is to be skipped
_COMMON_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


class Variation(NamedTuple):
    """What a header block is whose only change from request to request is the value of one field."""

    block: HeaderBlock
    key: str
    before: bytes  # the block up to the colon of that field
    after: bytes  # from the end of its line to the block's end
    most: int  # bytes of such a value, with the blanks around it
    line_room: int  # bytes of a request line without its version
    room: int  # bytes of a head


def first_line(data: bytes, most: int) -> str:
    """The request line with which ``data`` begins, as far as it is there, of ``most`` bytes at most; for logs."""
    return data[: most + 2 * _EMPTY_LINES].lstrip(b"\r\n").partition(b"\r\n")[0][:most].decode("latin-1")


class HeadReader:
    """Takes request heads off one connection's bytes, and remembers the connection's last header block.

    After ``read`` has returned a block, the attributes hold the request line, taken apart, of the same head, and
    ``other`` the one field, if any, in which this head differs from the block: ``(environ key, value)``.
    """

    __slots__ = (
        "_block", "_memo", "_own", "_room", "_scanned", "_tail", "_unknown", "_value", "_variation", "authority",
        "line", "method", "other", "path", "query", "rest", "target",
    )  # fmt: skip

    line: bytes  # the request line without its version
    rest: bytes  # what followed the head
    method: str
    target: str
    path: str  # decoded, as PATH_INFO wants it: bytes as latin-1
    query: str
    authority: str | None  # of an absolute-form target; it overrides Host (RFC 9112 section 3.2.2)

    def __init__(self, memo: FieldMemo) -> None:
        self._memo = memo
        self._tail: bytes | tuple[()] = ()  # the remembered block's bytes; nothing ends with an empty tuple
        self._room = 0  # how long a head that ends with them may be
        self._block: HeaderBlock | None = None
        self._own = _NONE  # lines of this client's that nobody else is to be told of
        self._unknown: list[bytes] | tuple[()] = ()  # lines of the last block that were not known
        self._variation: Variation | None = None
        self._value = b""  # of the field that ``other`` tells of, as it came
        self.other: tuple[str, str] | None = None
        self._scanned = 0  # so much of an unfinished head has been found sound
        self.line = b""
        self.method = ""

    def read(self, data: bytes) -> HeaderBlock | None:
        """The header block of the head at the start of ``data``, or None while it is not complete.

        Raises ProtocolError as soon as the bytes cannot become a head that is accepted.
        """
        # The memo: from the version to the empty line this head equals the last one of this connection, and ends
        # ``data``. What stands before is a request line and nothing more if all of it can be printed.
        if data.endswith(self._tail) and len(data) <= self._room and self._take_common(data[: -len(self._tail)]):
            self.rest = b""
            self.other = None
            self._scanned = 0
            return self._block
        if self._variation is not None:
            return self._read_varied(data, self._variation)
        return self._read_behind(data) if self._tail else self._read_strictly(data)

    def _read_varied(self, data: bytes, known: Variation) -> HeaderBlock | None:
        """As the memo of ``read``, where one field has another value."""
        end = data.find(b" HTTP/")
        value_at, after = end + len(known.before), len(data) - len(known.after)
        # Overlapping ends would make it shorter than both together; a line's end in a value cannot be printed.
        if (
            0 < end <= known.line_room
            and value_at <= after <= value_at + known.most
            and len(data) <= known.room
            and data.startswith(known.before, end)
            and data.endswith(known.after)
        ):
            value = data[value_at:after]
            text = value.strip(b" \t").decode("latin-1")
            if text.isprintable() and self._take_common(data[:end]):
                self._value = value
                self.other = known.key, text
                self.rest = b""
                self._scanned = 0
                return known.block
        return self._read_behind(data)

    def _read_behind(self, data: bytes) -> HeaderBlock | None:
        """As the memo of ``read``, where something follows the head."""
        end = data.find(b"\r\n") - _VERSION_BYTES
        after = end + len(self._tail)
        if end > 0 and data.startswith(self._tail, end) and after <= self._room and self._take_common(data[:end]):
            self.rest = data[after:]
            self.other = None
            self._scanned = 0
            return self._block
        return self._read_strictly(data)

    def whole(self, block: HeaderBlock) -> HeaderBlock:
        """``block``, which ``read`` has returned last, with the field in which the head differs from it."""
        known = self._variation
        if self.other is None or known is None:
            return block
        return block.but(*self.other, known.before + self._value + known.after)

    def _take_common(self, line: bytes) -> bool:
        """Take a request line without its version apart if it is of the common kind; False where it must be looked at.

        A common method, origin-form = absolute-path [ "?" query ] without "#": what can be printed and is no blank.
        """
        text = line.decode("latin-1")
        words = text.split(" ")
        if len(words) != 2 or not text.isascii() or not text.isprintable() or "#" in text:
            return False
        method, target = words
        if method not in _COMMON_METHODS or not target.startswith("/"):
            return False
        self.line = line
        self.method = method
        self.target = target
        path, _, self.query = target.partition("?")
        self.path = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        self.authority = None
        return True

    def forget(self) -> None:
        """Drop what is remembered, so that a connection parked for long holds little."""
        self._tail = ()
        self._block = None
        self._own = _NONE
        self._unknown = ()
        self._variation = None
        self._value = b""
        self.other = None
        self._scanned = 0
        self.line = self.rest = b""

    def _read_strictly(self, data: bytes) -> HeaderBlock | None:
        start = 0
        while start < 2 * _EMPTY_LINES and data.startswith(b"\r\n", start):
            start += 2
        end = data.find(b"\r\n\r\n", max(start, self._scanned - 3))
        if end < 0:
            self._check_unfinished(data, start)
            self._scanned = len(data)
            return None
        after = end + 4
        self.other = None
        try:
            block = self._read_whole(data, start, end)
        except ProtocolError:
            # What would have been refused before the head was whole goes first: one answer, however the bytes came.
            self._check_unfinished(data[:after], start)
            raise
        self._scanned = 0
        self.rest = data[after:]
        if len(block.raw) <= MEMO_BLOCK_BYTES:
            if self._block is not None:  # else it has not shown that it comes again
                self._variation = self._variation_of(block)
            self._tail, self._block = block.raw, block
            limits = self._memo.limits
            self._room = min(limits.limit_request_line + len(block.raw) - _VERSION_BYTES, limits.limit_request_head)
        return block

    def _variation_of(self, block: HeaderBlock) -> Variation | None:
        """What to expect of the next block where one line of this one, and no more, was not known."""
        if len(self._unknown) != 1:
            return None
        line = self._unknown[0]
        name = line.partition(b":")[0]
        key = self._memo.check(line)[0]
        at = block.raw.find(b"\r\n" + line + b"\r\n") + 2
        limits = self._memo.limits
        most = min(limits.limit_request_field_size - len(name) - 1, MEMO_LINE_BYTES)
        if key not in block.environ or key in _WEIGHTY or block.raw.lower().count(b"\r\n" + name.lower() + b":") != 1:
            return None
        before, after = block.raw[: at + len(name) + 1], block.raw[at + len(line) :]
        line_room = limits.limit_request_line - _VERSION_BYTES
        return Variation(block, key, before, after, most, line_room, limits.limit_request_head)

    def _read_whole(self, data: bytes, start: int, end: int) -> HeaderBlock:
        """The block of the head from ``start``, whose last field line ends at ``end``."""
        limits, line_end = self._memo.limits, data.find(b"\r\n", start)
        protocol, method, target = "HTTP/1.1", "", ""
        common = data.startswith(_HTTP_1_1, line_end - _VERSION_BYTES) and line_end - start <= limits.limit_request_line
        if not common or not self._take_common(data[start : line_end - _VERSION_BYTES]):
            method, target, protocol = self._request_line(data[start:line_end])
        if end + 4 - start > limits.limit_request_head:
            raise ProtocolError(431, f"the head is longer than {limits.limit_request_head} bytes")
        raw = data[line_end - _VERSION_BYTES : end + 4]
        block = self._memo.blocks.get(raw)
        if block is None:
            block = self._read_block(raw, protocol, data[line_end + 2 : end].split(b"\r\n") if end > line_end else [])
            self._memo.keep(block)
        else:
            self._unknown = ()
        if target:
            self._read_target(method, target)
            self.line = data[start : line_end - _VERSION_BYTES]
        return block

    def _check_unfinished(self, data: bytes, start: int) -> None:
        """Refuse early what no further byte can mend; of several sins the one that comes first in ``data``."""
        # From where the last look ended: a head that comes in drips must not be searched anew with each.
        bad = grammar.NOT_IN_HEAD.search(data, max(start, self._scanned - 1))
        sound = bad.start() if bad else len(data) - data.endswith(b"\r")  # of a CR the next byte will tell
        line_end = data.find(b"\r\n", start, sound)
        if (line_end if line_end >= 0 else sound) - start > self._memo.limits.limit_request_line:
            raise ProtocolError(414, f"the request line is longer than {self._memo.limits.limit_request_line} bytes")
        if line_end == start:
            raise ProtocolError(400, "empty lines instead of a request")
        if line_end >= 0 and line_end + 2 > self._scanned:
            self._request_line(data[start:line_end])
        if sound - start > self._memo.limits.limit_request_head:
            raise ProtocolError(431, f"the head is longer than {self._memo.limits.limit_request_head} bytes")
        if bad:
            raise ProtocolError(400, "control character, bare CR or bare LF in the head")

    def _request_line(self, line: bytes) -> tuple[str, str, str]:
        if len(line) > self._memo.limits.limit_request_line:
            raise ProtocolError(414, f"the request line is longer than {self._memo.limits.limit_request_line} bytes")
        match = grammar.REQUEST_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(400, "malformed request line")
        method, target, major, minor = match.groups()
        if major == b"0":
            raise ProtocolError(400, "HTTP before 1.0")
        if major != b"1":
            raise ProtocolError(505, "an HTTP version other than 1")
        # A higher minor version is read as the highest we know (RFC 9110 section 2.5).
        return method.decode("ascii"), target.decode("ascii"), "HTTP/1.0" if minor == b"0" else "HTTP/1.1"

    def _read_block(self, raw: bytes, protocol: str, lines: list[bytes]) -> HeaderBlock:
        if len(lines) > self._memo.limits.limit_request_fields:
            raise ProtocolError(431, f"more than {self._memo.limits.limit_request_fields} header fields")
        known, own, check = self._memo.lines.get, self._own.get, self._check_own
        self._unknown = ()
        pairs = [known(line) or own(line) or check(line) for line in lines]
        return header_block(raw, protocol, pairs, self._memo.limits.max_body)

    def _check_own(self, line: bytes) -> tuple[str | None, str]:
        """A line that is not known yet; one that every client may know, the memo remembers, others this connection."""
        pair = self._memo.check(line)
        if self._block is not None and len(line) <= MEMO_LINE_BYTES:  # else it has not shown that it comes again
            if self._own is _NONE or len(self._own) >= _MEMO_OWN_LINES:
                self._own = {}
            self._own[line] = pair
            self._unknown = [*self._unknown, line]
        return pair

    def _read_target(self, method: str, target: str) -> None:
        """Take a target of any form apart (RFC 9112 section 3.2)."""
        authority = None
        if method == "CONNECT":
            raise ProtocolError(501, "CONNECT")
        if target == "*":
            if method != "OPTIONS":
                raise ProtocolError(400, "* as target of a method other than OPTIONS")
            path, query = "", ""
        elif target[0] == "/":
            path, _, query = target.partition("?")
        else:
            match = grammar.ABSOLUTE_FORM.fullmatch(target)
            if match is None or not grammar.is_host(match[1]):
                raise ProtocolError(400, "malformed request target")
            authority = match[1]
            path, query = match[2] or "/", match[3] or ""
        self.method, self.target, self.query, self.authority = method, target, query, authority
        self.path = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
