"""Header lines to a checked block: what they are called in the environ, and what they say of framing and persistence.

It promises that nothing malformed passes, and that anything two readers could read differently is refused. What it
remembers is compared to the letter. It refuses to know request lines.

Source: RFC 9110 sections 5, 7.6.1, 7.8 and 10.1.1, RFC 9112 sections 6 and 9.3, RFC 6455 section 4.2.1; PEP 3333
for the names of the environ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar

# Header lines worth remembering for every client: they repeat, and hold no secret.
_COMMON_FIELDS: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection content-type dnt host pragma "
    b"priority sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site "
    b"sec-fetch-user sec-gpc te upgrade-insecure-requests user-agent "
    b"x-forwarded-host x-forwarded-port x-forwarded-proto x-requested-with".split()
)
# Key of the field SCRIPT_NAME, where it is asked for. No other field can have it: "Script-Name" is HTTP_SCRIPT_NAME.
SCRIPT_NAME: Final = "forkserver.script_name"
# Fields with one value by their definition, which decide how a body is read and who may do what (RFC 9110 sections
# 8.3, 11.6.2 and 11.7.2, RFC 6454 section 7). Two values joined would be a third one, which no sender has meant.
_SINGLE: Final = frozenset(("CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_ORIGIN", "HTTP_PROXY_AUTHORIZATION"))
# Fields in which a proxy speaks for its client.
FORWARDED: Final = frozenset(
    ("HTTP_FORWARDED", *map("HTTP_X_FORWARDED_{}".format, ("FOR", "PROTO", "HOST", "PORT")), SCRIPT_NAME)
)
_MOST_MEMBERS: Final = 100  # of Connection and Upgrade; senders have a few, and a client could write 50 000
_MEMO_LINES: Final = 1024
MEMO_LINE_BYTES: Final = 512  # a longer line is not worth a place
_MEMO_NAMES: Final = 256
_MEMO_BLOCKS: Final = 64
_MEMO_PASSED: Final = 1024
MEMO_BLOCK_BYTES: Final = 4096  # likewise


class Limits(Protocol):
    """What is asked of a head; the settings table has these names, in bytes and numbers of fields."""

    @property
    def limit_request_line(self) -> int: ...
    @property
    def limit_request_fields(self) -> int: ...
    @property
    def limit_request_field_size(self) -> int: ...
    @property
    def limit_request_head(self) -> int: ...
    @property
    def max_body(self) -> int: ...
    @property
    def header_map(self) -> str: ...


class HeaderBlock:
    """A checked header block: version and fields, with all that they say of framing and persistence.

    ``environ`` holds the fields under their WSGI names. ``length`` is Content-Length or None. Never changed once made:
    many requests may share one.
    """

    __slots__ = (
        "chunked", "environ", "expects_continue", "has_body", "http11", "length", "persistent", "protocol", "raw",
        "websocket",
    )  # fmt: skip

    def __init__(self, raw: bytes, protocol: str, environ: dict[str, str]) -> None:
        self.raw = raw  # from the space before the version to the empty line, included
        self.protocol = protocol
        self.environ = environ
        self.length: int | None = None
        self.chunked = False
        self.has_body = False  # by its framing; a Content-Length of 0 is none
        self.expects_continue = False
        self.http11 = self.persistent = protocol == "HTTP/1.1"
        self.websocket = False  # the client asks to go on in WebSocket

    def but(self, key: str, value: str, raw: bytes) -> HeaderBlock:
        """The same block with another ``value`` of ``key``, a field that says nothing of framing and persistence."""
        block = HeaderBlock(raw, self.protocol, {**self.environ, key: value})
        block.length, block.chunked, block.has_body = self.length, self.chunked, self.has_body
        block.expects_continue, block.persistent = self.expects_continue, self.persistent
        block.websocket = self.websocket
        return block


class FieldMemo:
    """Checked header lines, names and blocks, shared by all connections of a process, bounded.

    A block may hold a client's secret. It is found by all its bytes or not at all, so that nobody can guess one piece
    by piece from how long an answer takes. ``script_name``: the field SCRIPT_NAME is not dropped for its underscore.
    """

    def __init__(self, limits: Limits, script_name: bool = False) -> None:
        self.limits = limits
        self._script_name = script_name
        self.lines: dict[bytes, tuple[str | None, str]] = {}
        self.blocks: dict[bytes, HeaderBlock] = {}  # by ``raw``; of clients that come anew for each request
        self._passed: set[int] = set()  # hashes of blocks that have come once
        self.forwarded = False  # whether any of FORWARDED was ever seen; until then nobody need look
        self._names: dict[bytes, tuple[str | None, bool]] = {}  # key, and whether its lines are remembered

    def check(self, line: bytes) -> tuple[str | None, str]:
        """``(environ key, value)`` of a header line seen for the first time; key None: to be dropped."""
        if len(line) > self.limits.limit_request_field_size:
            raise ProtocolError(431, f"a header field is longer than {self.limits.limit_request_field_size} bytes")
        name, colon, raw = line.partition(b":")
        text = raw.strip(b" \t").decode("latin-1")
        if not colon or (not text.isprintable() and grammar.NOT_IN_VALUE_TEXT.search(text)):
            raise ProtocolError(400, "malformed header field")
        key, common = self._names.get(name) or self._check_name(name)
        if common:
            # Empty where the target has no authority (RFC 9110 section 7.2): load balancers' monitors send it.
            if key == "HTTP_HOST" and text and not grammar.is_host(text):
                raise ProtocolError(400, "malformed Host")
            if len(line) <= MEMO_LINE_BYTES:
                if len(self.lines) >= _MEMO_LINES:
                    self.lines.clear()
                self.lines[line] = (key, text)
        return key, text

    def keep(self, block: HeaderBlock) -> None:
        """Remember ``block`` for every connection, if it has come before."""
        if len(block.raw) > MEMO_BLOCK_BYTES:
            return
        if hash(block.raw) in self._passed:
            if len(self.blocks) >= _MEMO_BLOCKS:
                self.blocks.clear()
            self.blocks[block.raw] = block
        else:
            if len(self._passed) >= _MEMO_PASSED:
                self._passed.clear()
            self._passed.add(hash(block.raw))

    def _check_name(self, name: bytes) -> tuple[str | None, bool]:
        if not grammar.TOKEN.fullmatch(name):
            raise ProtocolError(400, "malformed header field name")
        key = name.decode("ascii").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        checked: str | None = key
        if self._script_name and name.upper() == b"SCRIPT_NAME":
            checked = SCRIPT_NAME
        # "X_Forwarded_For" and "X-Forwarded-For" would be one key: who sends the former forges the latter.
        elif b"_" in name:
            if self.limits.header_map == "refuse":
                raise ProtocolError(400, "a header field name with an underscore")
            checked = None
        elif key == "HTTP_PROXY":  # which HTTP clients take for their own proxy (httpoxy)
            checked = None
        self.forwarded = self.forwarded or checked in FORWARDED
        if len(self._names) >= _MEMO_NAMES:
            self._names.clear()
        known = self._names[name] = checked, name.lower() in _COMMON_FIELDS
        return known


def header_block(raw: bytes, protocol: str, pairs: list[tuple[str | None, str]], max_body: int) -> HeaderBlock:
    """The block ``raw`` of the checked fields ``pairs``, as FieldMemo gives them. Raises ProtocolError."""
    environ: dict[str, str] = dict(pairs)  # type: ignore[arg-type]
    if len(environ) != len(pairs) or None in environ:
        environ = _join_all(pairs)
    block = HeaderBlock(raw, protocol, environ)
    if protocol == "HTTP/1.1" and "HTTP_HOST" not in environ:
        raise ProtocolError(400, "HTTP/1.1 without Host")
    if "HTTP_CONNECTION" in environ:
        _read_connection(block)
    if "HTTP_TRANSFER_ENCODING" in environ or "CONTENT_LENGTH" in environ:
        _read_framing(block, max_body)
    block.has_body = block.chunked or bool(block.length)
    if "HTTP_EXPECT" in environ:
        _read_expect(block)
    return block


def _join_all(pairs: Iterable[tuple[str | None, str]]) -> dict[str, str]:
    """The fields of a block in which one is repeated, or to be dropped."""
    environ: dict[str, str] = {}
    for key, value in pairs:
        if key in environ:
            environ[key] = _join(key, environ[key], value)
        elif key is not None:
            environ[key] = value
    return environ


def _join(key: str, first: str, second: str) -> str:
    """The value of a repeated field (RFC 9110 section 5.3), or an error where a repetition means an attack."""
    if key in _SINGLE and first == second:
        return first  # as wsgiref, which takes the first
    if key in _SINGLE or key in ("HTTP_HOST", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
        raise ProtocolError(400, f"repeated {key.removeprefix('HTTP_').replace('_', '-').title()}")
    if key == SCRIPT_NAME:
        raise ProtocolError(400, "repeated SCRIPT_NAME")
    return f"{first}; {second}" if key == "HTTP_COOKIE" else f"{first},{second}"


def _read_connection(block: HeaderBlock) -> None:
    tokens = _tokens(block.environ, "HTTP_CONNECTION")
    block.persistent = "close" not in tokens and (block.persistent or "keep-alive" in tokens)
    if "upgrade" in tokens and block.http11:
        block.websocket = "websocket" in _tokens(block.environ, "HTTP_UPGRADE")


def _tokens(environ: dict[str, str], key: str) -> set[str]:
    """The members of the list field ``key``, which has no parameters, in lower case. Raises ProtocolError."""
    members = environ.get(key, "").split(",", _MOST_MEMBERS)
    if len(members) > _MOST_MEMBERS:
        name = key.removeprefix("HTTP_").title()
        raise ProtocolError(400, f"{name} has more than {_MOST_MEMBERS} members")
    return {member.strip(" \t").lower() for member in members}


def _read_framing(block: HeaderBlock, max_body: int) -> None:
    """Decide how the body ends; anything two readers could read differently is refused (RFC 9112 section 6.3)."""
    coding = block.environ.get("HTTP_TRANSFER_ENCODING")
    length = block.environ.get("CONTENT_LENGTH")
    if coding is not None:
        if length is not None:
            raise ProtocolError(400, "Content-Length beside Transfer-Encoding")
        if not block.http11:
            raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
        if coding.lower() != "chunked":
            codings = [part.strip(" \t").lower() for part in coding.split(",")]
            # Not last, twice, or in a list with gaps: nobody can say where the body ends.
            unclear = "chunked" in codings[:-1] or "" in codings
            raise ProtocolError(400 if unclear else 501, "a transfer coding other than chunked")
        block.chunked = True
        # The application gets the body decoded, with its length: no trace of the coding may reach it.
        del block.environ["HTTP_TRANSFER_ENCODING"]
    elif length is not None:
        if not grammar.DIGITS.fullmatch(length):
            raise ProtocolError(400, "malformed Content-Length")
        block.length = int(length)
        if block.length > max_body:
            raise ProtocolError(413, f"the body is larger than {max_body} bytes")


def _read_expect(block: HeaderBlock) -> None:
    if block.environ["HTTP_EXPECT"].lower() != "100-continue":
        raise ProtocolError(417, "an expectation other than 100-continue")
    # RFC 9110 section 10.1.1: one in an HTTP/1.0 request is ignored.
    block.expects_continue = block.http11 and block.has_body
