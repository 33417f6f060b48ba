"""Bytes to a request head, or a ProtocolError: ``read_head``.

Of one head the reader keeps nothing for the next but single lines in which many clients say the same
(``http1.headers``; agent, languages; not cookies). A head is decoded once and split; what cannot become an accepted
head any more is refused before it is whole, and of several faults the first is answered, however the bytes arrive.

``read_head`` is a seam for an accelerator: bytes in, fields and framing out. What it returns goes with a base environ
into ``server.wsgi.environ.make_environ``.

Source: RFC 9112 sections 2, 3, 6 and 9.3, RFC 9110 sections 7.6.1, 7.8 and 10.1.1, RFC 6455 section 4.2.1.
"""

from __future__ import annotations

from typing import Final

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar
from forkserver.http1.headers import CONTROLS, HeadLimits, read_fields
from forkserver.http1.percent_encoding import decoded

_EMPTY_BYTES: Final = len("\r\n\r\n")  # two lines; RFC 9112 section 2.2: at least one is to be skipped
_VERSION_BYTES: Final = len(" HTTP/1.1")
_VERSIONS: Final = {"HTTP/1.1": "HTTP/1.1", "HTTP/1.0": "HTTP/1.0"}
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))  # any other is checked
_MOST_MEMBERS: Final = 100  # of Connection and Upgrade; senders have a few, and a client could write 50 000


class RequestHead:
    """A checked head: its line taken apart, its fields, and what they say of framing and persistence.

    ``fields`` has the header fields under their names in the environ, and no trace of a transfer coding: the
    application gets the body decoded. ``path`` is decoded as PATH_INFO wants it: bytes as latin-1.
    """

    __slots__ = (
        "authority", "chunked", "expects_continue", "fields", "has_body", "http11", "length", "line", "method", "path",
        "persistent", "protocol", "query", "raw", "size", "target", "websocket",
    )  # fmt: skip
    raw: bytes  # from the request line to the empty line, included
    size: int  # bytes that it takes of what was read
    line: bytes  # the request line without its version
    method: str
    target: str
    protocol: str
    http11: bool
    persistent: bool
    fields: dict[str, str]
    path: str
    query: str
    authority: str | None  # of an absolute-form target; it overrides Host (RFC 9112 section 3.2.2)
    length: int | None  # Content-Length
    chunked: bool
    has_body: bool  # by its framing; a Content-Length of 0 is none
    expects_continue: bool
    websocket: bool  # the client asks to go on in WebSocket


def read_head(data: bytes, limits: HeadLimits, scanned: int = 0) -> RequestHead | None:
    """The head at the start of ``data``, or None while it is not whole; its ``size`` says where the rest begins.

    ``scanned`` is how many bytes an earlier call has seen of an unfinished head, so that one in drips is not searched
    anew with each. Raises ProtocolError as soon as the bytes cannot become a head that is accepted.
    """
    start = _empty_bytes(data) if data[:1] == b"\r" else 0
    end = data.find(b"\r\n\r\n", max(start, scanned - 3) if scanned else start) + 4
    if end < 4:
        _check_unfinished(data, start, limits, scanned)
        return None
    try:
        return _read_whole(data if end - start == len(data) else data[start:end], end, limits)
    except ProtocolError:
        # What would have been refused before the head was whole goes first: one answer, however the bytes came.
        _check_unfinished(data[:end], start, limits, scanned)
        raise


def _empty_bytes(data: bytes) -> int:
    """Bytes of the empty lines that ``data`` begins with, two at most."""
    start = 0
    while start < _EMPTY_BYTES and data.startswith(b"\r\n", start):
        start += 2
    return start


def _read_whole(raw: bytes, size: int, limits: HeadLimits) -> RequestHead:
    text = raw.decode("latin-1")
    line, *lines, _, _ = text.split("\r\n")
    head = RequestHead()
    head.raw, head.size = raw, size
    head.length = head.authority = None
    head.chunked = head.has_body = head.expects_continue = head.websocket = False
    head.method, head.target, head.protocol = _request_line(line, limits)
    head.line = raw[: len(line) - _VERSION_BYTES]
    head.http11 = head.persistent = head.protocol == "HTTP/1.1"
    if len(raw) > limits.head:
        raise ProtocolError(431, f"the head is longer than {limits.head} bytes")
    head.fields = fields = read_fields(lines, text, limits)
    if head.http11 and "HTTP_HOST" not in fields:
        raise ProtocolError(400, "HTTP/1.1 without Host")
    if "HTTP_CONNECTION" in fields:
        _read_connection(head)
    if "HTTP_TRANSFER_ENCODING" in fields or "CONTENT_LENGTH" in fields:
        _read_framing(head, limits.max_body)
    if "HTTP_EXPECT" in fields:
        _read_expect(head)
    path, _, head.query = head.target.partition("?") if head.target[0] == "/" else _other_form(head)
    head.path = decoded(path).decode("latin-1") if "%" in path else path
    if head.method == "CONNECT":
        raise ProtocolError(501, "CONNECT")
    return head


def _check_unfinished(data: bytes, start: int, limits: HeadLimits, scanned: int) -> None:
    """Refuse early what no further byte can make good; of several faults the one that comes first in ``data``."""
    bad = grammar.NOT_IN_HEAD.search(data, max(start, scanned - 1))
    sound = bad.start() if bad else len(data) - data.endswith(b"\r")  # of a CR the next byte will tell
    line_end = data.find(b"\r\n", start, sound)
    if (line_end if line_end >= 0 else sound) - start > limits.request_line:
        raise ProtocolError(414, f"the request line is longer than {limits.request_line} bytes")
    if line_end == start:
        raise ProtocolError(400, "empty lines instead of a request")
    if line_end >= 0 and line_end + 2 > scanned:
        _request_line(data[start:line_end].decode("latin-1"), limits)
    if sound - start > limits.head:
        raise ProtocolError(431, f"the head is longer than {limits.head} bytes")
    if bad:
        raise ProtocolError(400, CONTROLS)


def _request_line(line: str, limits: HeadLimits) -> tuple[str, str, str]:
    """Method, target and version, free of controls; of a higher minor version the highest that we know.

    Source: RFC 9110 section 2.5.
    """
    if len(line) > limits.request_line:
        raise ProtocolError(414, f"the request line is longer than {limits.request_line} bytes")
    words = line.split(" ", 3)
    if len(words) != 3:
        raise ProtocolError(400, "malformed request line")
    method, target, version = words
    # A target is visible ASCII; what URIs forbid but browsers send ("|", "{" ...) passes, a fragment does not.
    if not (
        (method in _METHODS or grammar.is_token(method))
        and target
        and target.isascii()
        and target.isprintable()
        and "#" not in target
    ):
        raise ProtocolError(400, "malformed request line")
    return method, target, _VERSIONS.get(version) or _other_version(version)


def _other_version(version: str) -> str:
    match = grammar.VERSION.fullmatch(version)
    if match is None:
        raise ProtocolError(400, "malformed request line")
    if match[1] == "0":
        raise ProtocolError(400, "HTTP before 1.0")
    if match[1] != "1":
        raise ProtocolError(505, "an HTTP version other than 1")
    return "HTTP/1.1"


def _read_connection(head: RequestHead) -> None:
    tokens = _tokens(head.fields, "HTTP_CONNECTION")
    head.persistent = "close" not in tokens and (head.persistent or "keep-alive" in tokens)
    if "upgrade" in tokens and head.http11:
        head.websocket = "websocket" in _tokens(head.fields, "HTTP_UPGRADE")


def _tokens(fields: dict[str, str], key: str) -> set[str]:
    """The members of the list field ``key``, which has no parameters, in lower case. Raises ProtocolError."""
    members = fields.get(key, "").split(",", _MOST_MEMBERS)
    if len(members) > _MOST_MEMBERS:
        name = key.removeprefix("HTTP_").title()
        raise ProtocolError(400, f"{name} has more than {_MOST_MEMBERS} members")
    return {member.strip(" \t").lower() for member in members}


def _read_framing(head: RequestHead, max_body: int) -> None:
    """Decide how the body ends; anything two readers could read differently is refused (RFC 9112 section 6.3)."""
    coding = head.fields.pop("HTTP_TRANSFER_ENCODING", None)
    length = head.fields.get("CONTENT_LENGTH")
    if coding is not None:
        if length is not None:
            raise ProtocolError(400, "Content-Length beside Transfer-Encoding")
        if not head.http11:
            raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
        if coding.lower() != "chunked":
            codings = [part.strip(" \t").lower() for part in coding.split(",")]
            # Not last, twice, or in a list with gaps: where the body ends cannot be told.
            unclear = "chunked" in codings[:-1] or "" in codings
            raise ProtocolError(400 if unclear else 501, "a transfer coding other than chunked")
        head.chunked = head.has_body = True
    elif length is not None:
        if not grammar.DIGITS.fullmatch(length):
            raise ProtocolError(400, "malformed Content-Length")
        head.length = int(length)
        head.has_body = head.length > 0
        if head.length > max_body:
            raise ProtocolError(413, f"the body is larger than {max_body} bytes", head.fields)


def _read_expect(head: RequestHead) -> None:
    if head.fields["HTTP_EXPECT"].lower() != "100-continue":
        raise ProtocolError(417, "an expectation other than 100-continue", head.fields)
    # RFC 9110 section 10.1.1: one in an HTTP/1.0 request is ignored.
    head.expects_continue = head.http11 and head.has_body


def _other_form(head: RequestHead) -> tuple[str, str, str]:
    """Path, "?" and query of a target that is no path (RFC 9112 section 3.2)."""
    if head.method == "CONNECT":
        return "", "", ""  # which is refused
    if head.target == "*":
        if head.method != "OPTIONS":
            raise ProtocolError(400, "* as target of a method other than OPTIONS")
        return "", "", ""
    match = grammar.ABSOLUTE_FORM.fullmatch(head.target)
    if match is None or not grammar.is_host(match[1]):
        raise ProtocolError(400, "malformed request target")
    head.authority = match[1]
    return match[2] or "/", "?", match[3] or ""


def first_line(data: bytes, most: int) -> str:
    """The request line with which ``data`` begins, as far as it is there, of ``most`` bytes at most; for logs."""
    return data[: most + _EMPTY_BYTES].lstrip(b"\r\n").partition(b"\r\n")[0][:most].decode("latin-1")
