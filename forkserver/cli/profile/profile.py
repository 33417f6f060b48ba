"""A profile: how long threads were in each stack. A stack is a tuple of functions, the outermost first.

Times are ns of threads that were at work: two threads that wait for a second have two. With paths, the first function
of a stack stands for the request's method and path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from forkserver.linux.common.records import NamedTuple

MOST_STACKS: Final = 50_000
OTHERS: Final = "(others)"
NO_REQUEST: Final = "(no request)"
_OURS: Final = "forkserver"


class Function(NamedTuple):
    """A function by its module, its qualified name, its file, and the line that it begins at; or a path of requests."""

    module: str
    name: str
    file: str = ""
    line: int = 0

    @property
    def label(self) -> str:
        return f"{self.module}:{self.name}" if self.module else self.name

    @property
    def place(self) -> str:
        """Its file and line, empty where it has none."""
        return f"{self.file}:{self.line}" if self.file else ""

    @property
    def ours(self) -> bool:
        """Whether it is the server's own."""
        return self.module == _OURS or self.module.startswith(f"{_OURS}.")


Stack = tuple[Function, ...]


class StackTimes:
    """``weights``: ns by stack, in at most MOST_STACKS of them; ``samples`` is how many were added."""

    def __init__(self) -> None:
        self.weights: Counter[Stack] = Counter()
        self.samples = 0

    def add(self, stack: Stack, weight: int, samples: int = 1) -> None:
        """Add ``samples`` of ``stack``, which stand for ``weight`` ns together."""
        if stack not in self.weights and len(self.weights) >= MOST_STACKS:
            stack = (Function("", OTHERS),)
        self.weights[stack] += weight
        self.samples += samples

    @property
    def total(self) -> int:
        """ns of all stacks."""
        return self.weights.total()

    def own(self) -> Counter[Function]:
        """ns that each function was the innermost."""
        found: Counter[Function] = Counter()
        for stack, weight in self.weights.items():
            found[stack[-1]] += weight
        return found

    def whole(self) -> Counter[Function]:
        """ns that each function was in a stack, with what it has called."""
        found: Counter[Function] = Counter()
        for stack, weight in self.weights.items():
            for function in set(stack):
                found[function] += weight
        return found

    def by_first(self) -> Counter[Function]:
        """ns by the first function of the stacks."""
        found: Counter[Function] = Counter()
        for stack, weight in self.weights.items():
            found[stack[0]] += weight
        return found


def merged(parts: Iterable[StackTimes]) -> StackTimes:
    """All ``parts`` in one."""
    found = StackTimes()
    for part in parts:
        for stack, weight in part.weights.items():
            found.add(stack, weight, 0)
        found.samples += part.samples
    return found
