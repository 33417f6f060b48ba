"""Text that clients have a say in, as a field of a log: escaped, so that it ends no field and no line, and cut.

What came off the wire was decoded as latin-1, so a character below 256 is a byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as _json_string
from typing import Final

_UNSAFE: Final = re.compile(r"[^\x20-\x7e]|[\"\\]")


def quoted(text: str, most: int) -> str:
    """``text`` as one word in quotes, escaped as in the access log, of ``most`` characters at most; empty is "-"."""
    return f'"{cut(escaped(text[: most + 1]) or "-", most)}"'


def escaped(text: str) -> str:
    r"""``text`` with every character as \xHH that could end a field in quotes, or is not ASCII."""
    return text if is_plain(text) else _UNSAFE.sub(_hex, text)


def escaped_with(marks: str, text: str) -> str:
    r"""As ``escaped``, and with each of the ``marks`` as \xHH, which are ASCII and neither a letter nor a digit."""
    found = escaped(text)
    for mark in marks:
        if mark in found and mark not in '"\\':  # those are escaped already
            found = found.replace(mark, f"\\x{ord(mark):02x}")
    return found


def is_plain(text: str) -> bool:
    """Whether ``text`` is a field in quotes as it stands."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def cut(field: str, most: int) -> str:
    """The escaped ``field`` of at most ``most`` characters, with an ellipsis, and never half an escape."""
    if len(field) <= most:
        return field
    kept = field[: most - 3]
    escape = kept.rfind("\\", -3)
    return (kept if escape < 0 else kept[:escape]) + "..."


def fair_share(sizes: Iterable[int], room: int) -> int:
    """The most that each of several fields may have, so that all have ``room``; short ones leave it to others."""
    ordered = sorted(sizes)
    for at, size in enumerate(ordered):
        share = room // (len(ordered) - at)
        if size > share:
            return max(share, 16)
        room -= size
    return ordered[-1] if ordered else room


def json_string(text: str, most: int = 1 << 20) -> str:
    """``text`` as a JSON string in quotes, of ASCII alone and ``most`` characters at most."""
    found = _json_string(text)
    size = min(len(text), most)
    while len(found) > most:  # an escape has up to twelve characters
        size //= 2
        found = _json_string(f"{text[:size]}...")
    return found.replace("\x7f", "\\u007f") if "\x7f" in found else found


def decoded(text: str) -> str:
    r"""The UTF-8 that the characters of ``text``, as bytes, are; those that are none as \xHH."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # the application's own text
        return text


def _hex(match: re.Match[str]) -> str:
    character = match[0]
    raw = bytes([ord(character)]) if ord(character) < 256 else character.encode("utf-8", "backslashreplace")
    return "".join(f"\\x{byte:02x}" for byte in raw)
