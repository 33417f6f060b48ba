"""The rules of RFC 9110, 9112 and 3986 that forkserver checks, each beneath its own ABNF.

Every pattern needs linear time: what repeats is possessive, or cannot match in two ways. Where only the characters
count, a text is stripped of those that may stand in it, and nothing is left: that is quicker than a pattern.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

# token = 1*tchar                                                                     RFC 9110 section 5.6.2
# tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA
_TCHAR: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
TOKEN: Final = re.compile(f"[{_TCHAR}]+".encode())
_ALPHANUMERIC: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN_CHARACTERS: Final = "!#$%&'*+-.^_`|~" + _ALPHANUMERIC

# field-value = *field-content; field-vchar = VCHAR / obs-text                        RFC 9110 section 5.5
# What may not stand in one: controls but HTAB, and DEL.
NOT_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
NOT_IN_VALUE_TEXT: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")

# A head that has not ended yet is already wrong with: NUL and other controls, a bare LF, a bare CR.
NOT_IN_HEAD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")

# request-line = method SP request-target SP HTTP-version                             RFC 9112 section 3
# HTTP-version = "HTTP" "/" DIGIT "." DIGIT
VERSION: Final = re.compile(r"HTTP/([0-9])\.[0-9]")

# absolute-form = absolute-URI = scheme ":" "//" authority path-abempty [ "?" query ] RFC 9112 section 3.2.2
ABSOLUTE_FORM: Final = re.compile(r"(?i:https?)://([^/?]*)(/[^?]*)?(?:\?(.*))?")

# Host = uri-host [ ":" port ]                                                        RFC 9110 section 7.2
# IP-literal = "[" ( IPv6address / IPvFuture ) "]", here without IPvFuture            RFC 3986 section 3.2.2
# reg-name = *( unreserved / pct-encoded / sub-delims ), here without the comma, which would make it a list.
_NAME_CHARACTERS: Final = "-._~!$&'()*+;=" + _ALPHANUMERIC
HOST: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]++|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)

# Content-Length = 1*DIGIT                                                            RFC 9110 section 8.6
DIGITS: Final = re.compile("[0-9]{1,18}")

# chunk-size [ chunk-ext ]; chunk-size = 1*HEXDIG                                     RFC 9112 section 7.1
# chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS ( token / quoted-string ) ] ); BWS must be read, and dropped.
_QUOTED: Final = r'"(?:[\t !\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t -\x7e\x80-\xff])*"'
_BWS: Final = r"[\t ]*+"
_EXTENSION_VALUE: Final = f"(?:[{_TCHAR}]++|{_QUOTED})"
CHUNK_LINE: Final = re.compile(
    f"([0-9A-Fa-f]{{1,15}})((?:{_BWS};{_BWS}[{_TCHAR}]++(?:{_BWS}={_BWS}{_EXTENSION_VALUE})?)*)".encode("latin-1")
)
# The same without an extension, with its end.
PLAIN_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")

# status-code = 3DIGIT; reason-phrase = 1*( HTAB / SP / VCHAR / obs-text )            RFC 9112 section 4
# PEP 3333 wants the space and a reason; an empty reason is let through, as RFC 9112 does.
STATUS: Final = re.compile(r"[1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")


def is_token(text: str) -> bool:
    """Whether ``text`` is a token: the name of a method or of a field."""
    return text != "" and not text.strip(_TOKEN_CHARACTERS)


def is_host(text: str) -> bool:
    """Whether ``text`` is a non-empty ``uri-host [":" port]`` with a port that can exist."""
    if text and not text.strip(_NAME_CHARACTERS):
        return True  # a name without a port
    match = HOST.fullmatch(text)
    if match is None or int(match[2] or 0) > 65535:
        return False
    return match[1] is None or _is_ipv6(match[1])


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
