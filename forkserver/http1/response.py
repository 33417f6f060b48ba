"""Status, headers and framing to bytes.

``check`` takes what an application gave to start_response, and ``serialize`` makes the head's bytes of that: nothing
that an application passes can break out of its place. Nothing is kept from one answer to the next.

The two are a seam for an accelerator: status, headers and body in, bytes out.

Source: PEP 3333 "The start_response() Callable", RFC 9110 sections 6.6, 8.6 and 15, RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

from http import HTTPStatus
from time import gmtime
from typing import Any, Final

from forkserver.errors import AppError
from forkserver.http1 import grammar

# Fields that belong to the connection, not to the application (PEP 3333 "Other HTTP Features", RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
BODILESS: Final = frozenset((204, 304))  # their answers have no body whatever their fields say (RFC 9112 section 6.3)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SPECIAL: Final = HOP_BY_HOP | {"content-length", "date", "server"}
# What applications set most, as it is usually spelt, and which of _SPECIAL each name is, "" for none.
_COMMON: Final = """
Accept-Ranges Access-Control-Allow-Origin Age Allow Cache-Control Connection Content-Disposition Content-Encoding
Content-Language Content-Length Content-Range Content-Security-Policy Content-Type Cross-Origin-Opener-Policy Date ETag
Expires Last-Modified Link Location Referrer-Policy Retry-After Server Set-Cookie Strict-Transport-Security
Transfer-Encoding Vary WWW-Authenticate X-Content-Type-Options X-Frame-Options X-Request-ID
"""
_COMMON_NAMES: Final = {
    spelling: name.lower() if name.lower() in _SPECIAL else ""
    for name in _COMMON.split()
    for spelling in (name, name.title(), name.lower())
}
_COMMON_STATUSES: Final = {
    f"{each.value} {each.phrase}": (each.value, f"HTTP/1.1 {each.value} {each.phrase}\r\n")
    for each in HTTPStatus
    if each.value >= 200
}


class CheckedHeaders:
    """An application's status and headers, checked: ``text`` to be sent, and what they say beyond their text."""

    __slots__ = ("close", "code", "date", "dropped", "length", "server", "text")
    code: int
    text: str  # status line and ordinary fields, each with its CRLF
    length: int | None  # Content-Length; its line is not in ``text``
    date: bool  # whether the application has set Date
    server: bool  # and Server
    close: bool  # the application wants the connection closed
    dropped: tuple[str, ...]  # names of connection fields, which it may not set

    def has_field(self, name: str) -> bool:
        """Whether there is an ordinary field of that ``name``, in any case."""
        return f"\r\n{name}:".lower() in self.text.lower()


def check(status: Any, headers: Any) -> CheckedHeaders:
    """What ``start_response`` was given: a str like ``"200 OK"`` and a list of pairs of str. Raises AppError."""
    checked = CheckedHeaders()
    checked.length, checked.dropped = None, ()
    checked.date = checked.server = checked.close = False
    checked.code, text = (_COMMON_STATUSES.get(status) if type(status) is str else None) or _check_status(status)
    if type(headers) is not list:
        raise AppError(f"headers must be a list, not {type(headers).__name__}")
    common = _COMMON_NAMES.get
    for header in headers:
        # The hash, length and text of a subclass are its own: only what str itself says of the characters counts.
        name, value = header if type(header) is tuple and len(header) == 2 else _pair(header)
        if type(name) is not str or type(value) is not str:
            name, value = _pair(header)
        special = common(name)
        if special is None:
            if not grammar.is_token(name):
                raise AppError(f"{name!r} is not a header name")
            lower = name.lower()
            special = lower if lower in _SPECIAL else ""
        if not (value.isprintable() and value.isascii()) and grammar.NOT_IN_VALUE_TEXT.search(value):
            raise AppError(f"header {name} has a character that cannot be sent: {value!r}")
        if not special or _is_sent(checked, special, value):
            text += f"{name}: {value}\r\n"
    checked.text = text
    return checked


def serialize(checked: CheckedHeaders, clock: Clock, now: float, framing: str, persistent: bool, http11: bool) -> bytes:
    """A response's head, with the line ``framing`` and, where it must be said, whether the connection goes on.

    ``now`` is the wall-clock time (seconds since 1970); ``http11`` says that the request was of HTTP/1.1.
    """
    lines = clock.at(now)
    if checked.date or checked.server:
        lines = ("" if checked.date else clock.date) + ("" if checked.server else clock.server)
    # The end is always announced: a recipient goes by the version in the status line, not by that of its own request
    # (RFC 9112 sections 9.3 and 9.6). A proxy of HTTP/1.0 would keep the connection, and lose its next request.
    if not persistent:
        framing += "Connection: close\r\n"
    elif not http11:
        framing += "Connection: keep-alive\r\n"
    return f"{checked.text}{lines}{framing}\r\n".encode("latin-1")


def _check_status(status: Any) -> tuple[int, str]:
    """Code and status line. Raises AppError."""
    if not isinstance(status, str):
        raise AppError(f"status must be a str, not {type(status).__name__}")
    status = str.__str__(status)  # a subclass (StrEnum, Markup) may say otherwise when it is formatted
    if not grammar.STATUS.fullmatch(status) or status[0] == "1":
        raise AppError(f"status must be like '200 OK', not {status!r}")
    return int(status[:3]), f"HTTP/1.1 {status}\r\n" if len(status) > 3 else f"HTTP/1.1 {status} \r\n"


def _pair(header: Any) -> tuple[str, str]:
    """Name and value of ``header``, a tuple of two, as exact str. Raises AppError."""
    if not isinstance(header, tuple) or tuple.__len__(header) != 2:
        raise AppError(f"a header must be a tuple of name and value, not {header!r}")
    name, value = tuple.__iter__(header)
    if not isinstance(name, str) or not isinstance(value, str):
        raise AppError(f"header name and value must be str, not {header!r}")
    return str.__str__(name), str.__str__(value)


def _is_sent(checked: CheckedHeaders, name: str, value: str) -> bool:
    """Note what a special field says, and tell whether its line is the application's to send. Raises AppError."""
    if name == "content-length":
        if not (value.isascii() and value.isdigit() and len(value) < 19):
            raise AppError(f"Content-Length must be a number of bytes, not {value!r}")
        length = int(value)
        if checked.length is not None and checked.length != length:
            raise AppError(f"two values of Content-Length: {checked.length} and {length}")
        checked.length = length
        return False
    if name == "date":
        checked.date = True
        return True
    if name == "server":
        checked.server = True
        return True
    if name == "connection" and "close" in (option.strip(" \t").lower() for option in value.split(",")):
        checked.close = True  # whatever stands beside it: RFC 9112 section 9.3
    else:
        checked.dropped += (name,)
    return False


def http_date(since_1970: int) -> str:
    """These seconds since 1970 as an IMF-fixdate, RFC 9110 section 5.6.7, whatever the locale."""
    year, month, day, hour, minute, second, weekday, _, _ = gmtime(since_1970)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"


class Clock:
    """Date and Server as lines, made anew once a second."""

    def __init__(self, server: str) -> None:
        self.server = f"Server: {server}\r\n" if server else ""
        self.date = ""
        self._both = ""
        self._until = 0.0  # wall-clock time at which they are stale

    def at(self, now: float) -> str:
        """Both lines for the wall-clock time ``now`` (seconds since 1970)."""
        if not self._until - 1 <= now < self._until:  # a clock that was set back counts too
            second = int(now)
            self.date = f"Date: {http_date(second)}\r\n"
            self._both = self.date + self.server
            self._until = second + 1.0  # last: other threads look here first
        return self._both


def early_hints(headers: object) -> bytes:
    """An interim answer, 103, with ``headers``, a list of tuples as start_response takes it. Raises AppError."""
    checked = check("200 OK", headers)  # for the headers alone: no application may answer 1xx
    if checked.length is not None:
        raise AppError("Content-Length in early hints: they have no body")
    _, _, lines = checked.text.partition("\r\n")
    return f"HTTP/1.1 103 Early Hints\r\n{lines}\r\n".encode("latin-1")


def body_size(answer: bytes) -> int:
    """Bytes of the body of a whole ``answer``."""
    return len(answer.partition(b"\r\n\r\n")[2])


def error(status: int, date: str, method: str = "GET", extra: str = "", hint: str = "") -> bytes:
    """A whole error answer: small, constant, cacheless, and with nothing of the request in it. Closes."""
    phrase = HTTPStatus(status).phrase
    page = f"<!doctype html><title>{status} {phrase}</title><h1>{phrase}</h1>{hint}\n"
    return (
        f"HTTP/1.1 {status} {phrase}\r\n{date}Content-Type: text/html; charset=utf-8\r\nContent-Length: {len(page)}\r\n"
        f"Cache-Control: no-store\r\n{extra}Connection: close\r\n\r\n{'' if method == 'HEAD' else page}"
    ).encode("latin-1")
