"""Octets of a target that are written as ``%XX``: RFC 3986 section 2.1.

As urllib.parse decodes them, whose module a worker would load for nothing else.
"""

from __future__ import annotations

from functools import cache
from typing import Final

_DIGITS: Final = "0123456789ABCDEFabcdef"


def decoded(text: str) -> bytes:
    """``text`` in UTF-8 with each ``%XX`` as the octet that it stands for; any other percent sign stays as it is."""
    first, *rest = text.encode("utf-8").split(b"%")
    octets = _octets()
    # A list: CPython 3.13.0 crashes where there is no memory for a generator.
    return first + b"".join([octets[part[:2]] + part[2:] if part[:2] in octets else b"%" + part for part in rest])


@cache
def _octets() -> dict[bytes, bytes]:
    return {(high + low).encode(): bytes.fromhex(high + low) for high in _DIGITS for low in _DIGITS}
