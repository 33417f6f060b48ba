"""Where an exception passes by the handlers of a loop: its way back, as CPython compiles it since 3.12.

``while condition:`` within ``try`` ends with a conditional jump out of the loop and a jump back. The latter, where the
interpreter looks for signals and late exceptions, has no line in the exception table. ``for`` has one, and so has
``while True`` where its last statement is no condition.

Source: https://github.com/python/cpython/blob/main/InternalDocs/exception_handling.md.
"""

from __future__ import annotations

import dis
from itertools import pairwise
from types import CodeType


def uncovered_ways_back(code: CodeType) -> list[int]:
    """The lines of ``code`` (its own, without inner functions) from which a jump leads back outside their ``try``."""
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def handler(offset: int) -> int | None:
        return next((each.target for each in entries if each.start <= offset < each.end), None)

    found = []
    for before, each in pairwise(dis.get_instructions(code)):
        back = before.opname.startswith("POP_JUMP") and each.opname == "JUMP_BACKWARD"
        if back and handler(before.offset) != handler(each.offset):
            found.append(each.positions.lineno or 0 if each.positions is not None else 0)
    return found
