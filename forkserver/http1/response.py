"""Status, headers and framing to bytes.

It promises that nothing an application passes can break out of its place on the wire, and that every response says
truly where it ends. It refuses to know who sends the bytes; the clock is handed in.

Source: PEP 3333 "The start_response() Callable", RFC 9110 sections 6.6, 8.6 and 15, RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from forkserver.errors import AppError
from forkserver.http1 import grammar

# Fields that belong to the connection, not to the application (PEP 3333 "Other HTTP Features", RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
_SPECIAL: Final = HOP_BY_HOP | {"content-length", "date", "server"}
_MEMO_NAMES: Final = 256
_MEMO_VALUES: Final = 16
_MEMO_FIELDS: Final = 1024
_MEMO_FIELD_CHARS: Final = 256
_MEMO_STATUSES: Final = 256


class Fields:
    """An application's status and headers, checked: ``text`` to be sent, and what they say beyond their text."""

    # Slots and no defaults on the class: to find those costs three times as much (CPython 3.11).
    __slots__ = ("close", "code", "date", "dropped", "length", "plain", "server", "text")

    def __init__(self) -> None:
        self.code = 0
        self.text = ""  # status line and ordinary fields, each with its CRLF; empty while nothing was checked
        self.length: int | None = None  # Content-Length; its line is not in ``text``
        self.plain = True  # neither the status nor any of the following changes how the body is sent
        self.date = self.server = False  # whether the application has set Date, and Server, itself
        self.close = False  # the application wants the connection closed
        self.dropped: tuple[str, ...] = ()  # names of connection fields, which it may not set

    clear = __init__  # another status and other headers come


BODILESS: Final = frozenset((204, 304))  # their answers have no body whatever their fields say (RFC 9112 section 6.3)

# What was checked before. Bounded; a whole field is kept only while its name has few values, and never a cookie.
_statuses: dict[str, tuple[int, str, bool]] = {}  # code, status line, and whether a body may follow
_names: dict[str, str] = {}  # a name as the application spells it -> "Name: ", or its lower case where it is special
_fields: dict[tuple[str, str], str | int] = {}  # a field -> its line; of Content-Length, its value
_values: dict[str, int] = {}  # how many values of a name were kept
_changing: dict[str, str] = {}  # names, as in ``_names``, whose values change too often to be kept


def check(fields: Fields, status: Any, headers: Any) -> None:
    """Fill ``fields``, which is clear, with what ``start_response`` was given: a str and a list of pairs of str.

    Raises AppError. One long function, for it runs once a response (of 9 % of a request, a third less; CPython 3.11).
    """
    if type(status) is not str:
        status = _plain(status, "status")
    if type(headers) is not list:
        raise AppError(f"headers must be a list, not {type(headers).__name__}")
    code, text, fields.plain = _statuses.get(status) or _check_status(status)
    known, changing = _fields.get, _changing.get
    for header in headers:
        try:
            name, value = header
            # A subclass's hash and comparison are its own: it could be found where other characters stand.
            line = known(header) if type(name) is type(value) is str else False
        except (TypeError, ValueError):  # no pair, or unhashable: not a tuple of strings in any case
            line = False
        if type(line) is str:
            text += line
        elif line is None and type(header) is tuple:
            if value.isascii() and value.isprintable():
                start = changing(name)
                if start is not None:
                    text += f"{start}{value}\r\n"
                    continue
            text += _check_field(name, value, fields)
        elif type(line) is int:
            _take_length(fields, line)
        else:
            text += _check_field(*_pair(header), fields)
    fields.code = code
    fields.text = text


def _plain(text: Any, what: str) -> str:
    """The characters of ``text`` as an exact str: a subclass (StrEnum, Markup) may say otherwise when it is formatted.

    ``what`` it is, for the message. Raises AppError where it is no str.
    """
    if not isinstance(text, str):
        raise AppError(f"{what} must be a str, not {type(text).__name__}")
    return str.__str__(text)


def _pair(header: Any) -> tuple[str, str]:
    """Name and value of ``header``, a tuple of two, as exact str. Raises AppError."""
    if not isinstance(header, tuple) or tuple.__len__(header) != 2:
        raise AppError(f"a header must be a tuple of name and value, not {header!r}")
    name, value = tuple.__iter__(header)
    if not isinstance(name, str) or not isinstance(value, str):
        raise AppError(f"header name and value must be str, not {header!r}")
    return str.__str__(name), str.__str__(value)


def _check_status(status: str) -> tuple[int, str, bool]:
    if not grammar.STATUS.fullmatch(status) or status[0] == "1":
        raise AppError(f"status must be like '200 OK', not {status!r}")
    code = int(status[:3])
    line = f"HTTP/1.1 {status}\r\n" if len(status) > 3 else f"HTTP/1.1 {status} \r\n"
    checked = code, line, code not in BODILESS
    if len(_statuses) < _MEMO_STATUSES:
        _statuses[status] = checked
    return checked


def _check_field(name: str, value: str, fields: Fields) -> str:
    start = _names.get(name) or _check_name(name)
    if not (value.isascii() and value.isprintable()) and grammar.NOT_IN_VALUE_TEXT.search(value):
        raise AppError(f"header {name} has a character that cannot be sent: {value!r}")
    if start in _SPECIAL:
        return _take_special(start, name, value, fields)
    line = f"{start}{value}\r\n"
    if name in _values:
        _remember(name, value, line)
    return line


def _check_name(name: str) -> str:
    if not grammar.TOKEN_TEXT.fullmatch(name):
        raise AppError(f"{name!r} is not a header name")
    lower = name.lower()
    start = lower if lower in _SPECIAL else f"{name}: "
    if len(_names) < _MEMO_NAMES:
        _names[name] = start
        if lower == "set-cookie":
            _changing[name] = start
        elif lower not in _SPECIAL:
            _values[name] = 0
    return start


def _remember(name: str, value: str, line: str) -> None:
    kept = _values.get(name, _MEMO_VALUES)  # another thread may have dropped the name meanwhile
    if kept >= _MEMO_VALUES:
        _values.pop(name, None)  # a value that changes with every request is not worth a place
        _changing[name] = _names[name]
    elif len(line) <= _MEMO_FIELD_CHARS and len(_fields) < _MEMO_FIELDS:
        _values[name] = kept + 1
        _fields[name, value] = line


def _take_length(fields: Fields, length: int) -> None:
    if fields.length is not None and fields.length != length:
        raise AppError(f"two values of Content-Length: {fields.length} and {length}")
    fields.length = length


def _take_special(lower: str, name: str, value: str, fields: Fields) -> str:
    if lower == "content-length":
        if not (value.isascii() and value.isdigit() and len(value) < 19):
            raise AppError(f"Content-Length must be a number of bytes, not {value!r}")
        _take_length(fields, int(value))
        if len(_fields) < _MEMO_FIELDS // 2:  # lengths come in any number, and must leave room for the rest
            _fields[name, value] = int(value)
        return ""
    fields.plain = False
    if lower == "date":
        fields.date = True
        return f"{name}: {value}\r\n"
    if lower == "server":
        fields.server = True
        return f"{name}: {value}\r\n"
    if lower == "connection" and "close" in (option.strip(" \t").lower() for option in value.split(",")):
        fields.close = True  # whatever stands beside it: RFC 9112 section 9.3
        return ""
    fields.dropped += (lower,)
    return ""


class Clock:
    """Date and Server as text, made anew once a second."""

    def __init__(self, server: str) -> None:
        self._server = f"Server: {server}\r\n" if server else ""
        self.until = 0.0  # wall-clock time (seconds since 1970) at which ``both`` is stale
        self.date = ""
        self.both = ""

    def at(self, now: float) -> str:
        """``Date`` and ``Server`` lines for the wall-clock time ``now`` (seconds since 1970)."""
        if not self.until - 1 <= now < self.until:  # a clock that was set back counts too
            second = int(now)
            self.date = f"Date: {formatdate(second, usegmt=True)}\r\n"
            self.both = self.date + self._server
            self.until = second + 1.0  # last: other threads look here first
        return self.both

    def rest(self, fields: Fields) -> str:
        """Those of the lines that the application has not set itself."""
        return ("" if fields.date else self.date) + ("" if fields.server else self._server)


def connection_line(persistent: bool, http11: bool) -> str:
    """The Connection line; none where HTTP/1.1 in the status line says it all, that the connection goes on.

    The end is always announced: a recipient goes by the version in the status line, not by that of its own request
    (RFC 9112 sections 9.3 and 9.6). A proxy that speaks HTTP/1.0 would keep the connection, and lose its next request.
    """
    if persistent:
        return "" if http11 else "Connection: keep-alive\r\n"
    return "Connection: close\r\n"


def early_hints(headers: object) -> bytes:
    """An interim answer, 103, with ``headers``, a list of tuples as start_response takes it. Raises AppError."""
    fields = Fields()
    check(fields, "200 OK", headers)  # for the headers alone: no application may answer 1xx
    if fields.length is not None:
        raise AppError("Content-Length in early hints: they have no body")
    _, _, lines = fields.text.partition("\r\n")
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
