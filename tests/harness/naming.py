"""Names of parametrized tests."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def shown(value: object) -> str:
    """``repr(value)`` without an object's address: every process that collects the tests gives them the same names."""
    return _ADDRESS.sub("", repr(value))
