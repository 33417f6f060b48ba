"""Header fields of a request: lines to the names and values of the environ.

Every name is a token, and no value has control characters. A field that two readers could understand differently is
refused: one that is repeated although it has one value, one whose name has an underscore.

Browsers and proxies send the same few lines again and again. A process remembers some with the key and value that were
read of them: a line that is equal to one of them, to the byte, needs no reading. What a field means for its head is
asked anew.

Source: RFC 9110 sections 5 and 7.2; PEP 3333 for the names of the environ.
"""

from __future__ import annotations

from typing import Any, Final

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar
from forkserver.linux.common.records import NamedTuple

# Key of the field SCRIPT_NAME, where it is asked for. No other field can have it: "Script-Name" is HTTP_SCRIPT_NAME.
SCRIPT_NAME: Final = "forkserver.script_name"
# Fields with one value by their definition, which decide how a body is read and who may do what (RFC 9110 sections
# 8.3, 11.6.2 and 11.7.2, RFC 6454 section 7). Two values joined would be a third one, which no sender has meant.
_SINGLE: Final = frozenset(("CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_ORIGIN", "HTTP_PROXY_AUTHORIZATION"))
_NEVER_TWICE: Final = ("HTTP_HOST", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", SCRIPT_NAME)


def environ_key(name: str) -> str:
    """The key that a field ``name`` has in an environ (PEP 3333 "environ Variables")."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


# What clients and proxies send most, as it is usually spelt, with its colon; any other name is checked when it comes.
_COMMON: Final = """
Accept Accept-Charset Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Length
Content-Type Cookie DNT Expect Forwarded From Host If-Match If-Modified-Since If-None-Match Keep-Alive Origin Pragma
Priority Range Referer Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site
Sec-Fetch-User Sec-GPC TE Traceparent Transfer-Encoding Upgrade Upgrade-Insecure-Requests User-Agent Via X-CSRFToken
X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto X-Real-IP X-Request-ID X-Requested-With
"""
_COMMON_KEYS: Final = {
    f"{spelling}:": environ_key(name) for name in _COMMON.split() for spelling in (name, name.title(), name.lower())
}


class HeadLimits(NamedTuple):
    """What a head may be: the settings ``limit_request_*``, ``max_body``, ``header_map`` and ``forwarded_fields``."""

    request_line: int = 8190  # bytes, its version included
    fields: int = 100
    field_size: int = 8190  # bytes of one field
    head: int = 65536  # bytes
    max_body: int = 1 << 30  # bytes
    refuses_underscores: bool = False  # in names of fields; else such a field is dropped
    script_name: bool = False  # the field SCRIPT_NAME passes in spite of its underscore

    @classmethod
    def of(cls, settings: Any) -> HeadLimits:
        """Those that ``settings`` ask for."""
        return cls(
            settings.limit_request_line,
            settings.limit_request_fields,
            settings.limit_request_field_size,
            settings.limit_request_head,
            settings.max_body,
            settings.header_map == "refuse",
            "script_name" in settings.forwarded_fields,
        )


# Fields in which many clients say the same: their lines are remembered. Cookies and passwords are not: how long a
# comparison takes would tell of another client's. The extension has the same ones (accelerator/names.c).
_ALIKE: Final = """
Accept Accept-Charset Accept-Encoding Accept-Language Cache-Control Connection Content-Type DNT Host Keep-Alive Origin
Pragma Priority Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site
Sec-Fetch-User Sec-GPC TE Upgrade-Insecure-Requests User-Agent Via X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto
X-Requested-With
"""
ALIKE: Final = frozenset(map(environ_key, _ALIKE.split()))
LINES: Final = 128  # of fields that are remembered
_LINE_TEXT: Final = 200 - len("\r\n")  # bytes of such a line
CONTROLS: Final = "control character, bare CR or bare LF in the head"


class _Lines(dict[str, tuple[str | None, str]]):
    """What lines of fields say: key and value. It keeps those of ``ALIKE``, reads others, and has LINES at most.

    The key is None where the line is no plain field: it is to be dropped or refused, which its head's limits tell.
    """

    def __missing__(self, line: str) -> tuple[str | None, str]:
        """Read a line that is not remembered. Raises ProtocolError where it has control characters."""
        if not line.isprintable() and grammar.NOT_IN_VALUE_TEXT.search(line):
            raise ProtocolError(400, CONTROLS)
        name, _, value = line.partition(" ")  # nearly always one blank stands before a value
        key = _COMMON_KEYS.get(name)
        if key is None:
            name, colon, value = line.partition(":")
            plain = colon and grammar.is_token(name) and "_" not in name
            key = environ_key(name) if plain and name.upper() != "PROXY" else None
        value = value.strip(" \t")
        if key == "HTTP_HOST" and value and not grammar.is_host(value):
            key = None
        field = key, value
        if key in ALIKE and len(line) <= _LINE_TEXT:
            if len(self) >= LINES:
                self.clear()
            self[line] = field
        return field


REMEMBERED: Final = _Lines()  # of any client, in this process


def read_fields(lines: list[str], text: str, limits: HeadLimits) -> dict[str, str]:
    """The fields of ``lines``, bytes as latin-1, under their names in the environ. Raises ProtocolError.

    ``text`` is the whole head that the lines are of.
    """
    if len(lines) > limits.fields:
        raise ProtocolError(431, f"more than {limits.fields} header fields")
    if len(text) > limits.field_size and max(map(len, lines), default=0) > limits.field_size:
        raise ProtocolError(431, f"a header field is longer than {limits.field_size} bytes")
    fields = dict(map(REMEMBERED.__getitem__, lines))
    if len(fields) != len(lines) or None in fields:
        return _join_all(lines, limits)
    return fields  # type: ignore[return-value]


def _join_all(lines: list[str], limits: HeadLimits) -> dict[str, str]:
    """The fields of ``lines``, one of which is repeated, to be dropped or to be refused. Raises ProtocolError."""
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError(400, "malformed header field")
        key, value = _checked_key(name, limits), value.strip(" \t")
        if key is not None:
            fields[key] = _join(key, fields[key], value) if key in fields else value
    # Empty where the target has no authority (RFC 9110 section 7.2): load balancers' monitors send it.
    if (host := fields.get("HTTP_HOST")) and not grammar.is_host(host):
        raise ProtocolError(400, "malformed Host")
    return fields


def _checked_key(name: str, limits: HeadLimits) -> str | None:
    """The key of a field ``name``; None where the field is dropped. Raises ProtocolError."""
    if not grammar.is_token(name):
        raise ProtocolError(400, "malformed header field name")
    if "_" in name:
        if limits.script_name and name.upper() == "SCRIPT_NAME":
            return SCRIPT_NAME
        # "X_Forwarded_For" and "X-Forwarded-For" would be one key: a client that sends the former forges the latter.
        if limits.refuses_underscores:
            raise ProtocolError(400, "a header field name with an underscore")
        return None
    key = environ_key(name)
    return None if key == "HTTP_PROXY" else key  # which HTTP clients take for their own proxy (httpoxy)


def _join(key: str, first: str, second: str) -> str:
    """The value of a repeated field (RFC 9110 section 5.3), or an error where a repetition means an attack."""
    if key in _SINGLE and first == second:
        return first  # as wsgiref, which takes the first
    if key in _SINGLE or key in _NEVER_TWICE:
        name = "SCRIPT_NAME" if key == SCRIPT_NAME else key.removeprefix("HTTP_").replace("_", "-").title()
        raise ProtocolError(400, f"repeated {name}")
    return f"{first}; {second}" if key == "HTTP_COOKIE" else f"{first},{second}"
