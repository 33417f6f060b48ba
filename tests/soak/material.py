"""The bytes that bodies are made of: one pool of noise, the same in every process, and a piece of it for each request.

Knows nothing of requests but their number. A piece that belongs to another request, is cut, doubled or
shifted, differs.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Final

MIB: Final = 1024 * 1024
LONGEST: Final = 4 * MIB
_POOL: Final = 2 * LONGEST
_STRIDE: Final = 4099  # bytes between the pieces of two neighbours; a prime, so that they do not fall on one another


@cache
def pool() -> bytes:
    return random.Random("forkserver soak").randbytes(_POOL)


def begin(number: int) -> int:
    """Where in the pool the piece of request ``number`` begins."""
    return number * _STRIDE % (_POOL - LONGEST)


def piece(number: int, size: int) -> bytes:
    return pool()[begin(number) : begin(number) + size]
