"""A regular expression matcher that backtracks as ``re`` does, and counts its steps: time without a clock.

A pattern is compiled from the parse tree of the standard library's own parser to a program for a small machine with a
stack of alternatives (Pike's and Thompson's instructions, run depth first). The matcher of ``re`` has shortcuts that
this one has not, so the number of steps bounds its work from above, up to a constant factor.

Source: CPython's Lib/re/_parser.py and _compiler.py; Russ Cox, "Regular Expression Matching: the Virtual Machine
Approach".
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from typing import Any, Final, NamedTuple

_parser: Final[Any] = importlib.import_module("re._parser")
_c: Final[Any] = importlib.import_module("re._constants")

UNBOUNDED: Final = 200  # repeats of at least so many count as endless
_ALPHABET: Final = [
    *map(chr, range(0x20, 0x7F)),
    *map(chr, range(0x20)),
    "\x7f",
    *map(chr, range(0x80, 0x100)),
    "\u20ac",
]
_CATEGORIES: Final = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip
_LINES: Final = {"AT_BEGINNING": "^", "AT_BEGINNING_STRING": r"\A", "AT_END": "$", "AT_END_STRING": r"\Z"}
_LINES_MORE: Final = {"AT_BOUNDARY": r"\b", "AT_NON_BOUNDARY": r"\B"}

Accepts = Callable[[str], bool]


class TooManyStepsError(Exception):
    """The matcher was stopped."""


class Instruction(NamedTuple):
    """``kind`` and what it needs: a test for a character, targets of a split, a register, a program of its own."""

    kind: str
    first: Any = None
    second: Any = None


class Matcher:
    """One pattern. ``steps`` counts the instructions of all calls; more than ``most`` raise TooManyStepsError."""

    def __init__(self, pattern: re.Pattern[Any], most: int = 100_000) -> None:
        source = pattern.pattern
        self.tree = _parser.parse(source.decode("latin-1") if isinstance(source, bytes) else source, pattern.flags)
        self._flags = pattern.flags
        self._most = most
        self._registers = 0
        self.steps = 0
        self._program = [*self._sequence(self.tree, pattern.flags), Instruction("match")]

    def match(self, text: str, whole: bool = False) -> bool:
        """As re.match, or re.fullmatch where it is to be the ``whole`` text."""
        return self._run(self._program, text, 0, whole) >= 0

    def search(self, text: str) -> bool:
        """As re.search."""
        return any(self._run(self._program, text, at, False) >= 0 for at in range(len(text) + 1))

    # Compilation: each method gives the instructions of one node, with targets relative to themselves

    def _sequence(self, nodes: Iterable[Any], flags: int) -> list[Instruction]:
        return [each for node in nodes for each in self._node(node, flags)]

    def _node(self, node: Any, flags: int) -> list[Instruction]:
        kind, value = node
        name = str(kind)
        match name:
            case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY" | "CATEGORY":
                return [Instruction("one", tester(node, flags))]
            case "SUBPATTERN":
                _, more, fewer, inner = value
                return self._sequence(inner, (flags | more) & ~fewer)
            case "BRANCH":
                return self._branch([self._sequence(each, flags) for each in value[1]])
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(value, flags, greedy=name == "MAX_REPEAT")
            case "POSSESSIVE_REPEAT":
                return self._atomic(self._repeat(value, flags, greedy=True))
            case "ATOMIC_GROUP":
                return self._atomic(self._sequence(value, flags))
            case "AT":
                return [Instruction("at", re.compile((_LINES | _LINES_MORE)[str(value)], flags & re.MULTILINE))]
            case "ASSERT" | "ASSERT_NOT":
                direction, inner = value
                back = inner.getwidth()[0] if direction < 0 else 0
                program = [*self._sequence(inner, flags), Instruction("match")]
                return [Instruction("look", (program, back), name == "ASSERT")]
        raise NotImplementedError(f"{name} in a pattern: teach it to this matcher, or write the pattern without")

    def _branch(self, ways: Sequence[list[Instruction]]) -> list[Instruction]:
        if len(ways) == 1:
            return ways[0]
        rest = self._branch(ways[1:])
        return [Instruction("split", 1, len(ways[0]) + 2), *ways[0], Instruction("jump", len(rest) + 1), *rest]

    def _repeat(self, value: Any, flags: int, greedy: bool) -> list[Instruction]:
        least, most, inner = value
        program: list[Instruction] = []
        for _ in range(least):
            program += self._sequence(inner, flags)
        if most is _c.MAXREPEAT or most >= UNBOUNDED:
            register = self._register()
            body = [Instruction("set", register), *self._sequence(inner, flags), Instruction("moved", register)]
            order = (1, len(body) + 2) if greedy else (len(body) + 2, 1)
            return [*program, Instruction("split", *order), *body, Instruction("jump", -len(body) - 1)]
        optional: list[Instruction] = []
        for _ in range(most - least):
            body = [*self._sequence(inner, flags), *optional]
            optional = [Instruction("split", *((1, len(body) + 1) if greedy else (len(body) + 1, 1))), *body]
        return program + optional

    def _atomic(self, inner: list[Instruction]) -> list[Instruction]:
        register = self._register()
        return [Instruction("enter", register), *inner, Instruction("leave", register)]

    def _register(self) -> int:
        self._registers += 1
        return self._registers

    # The machine

    def _run(self, program: list[Instruction], text: str, start: int, whole: bool) -> int:
        """Where the first match from ``start`` ends; -1 where there is none."""
        stack: list[tuple[int, int, dict[int, int]]] = [(0, start, {})]
        while stack:
            place, at, registers = stack.pop()
            while True:
                self.steps += 1
                if self.steps > self._most:
                    raise TooManyStepsError
                kind, first, second = program[place]
                if kind == "one":
                    if at >= len(text) or not first(text[at]):
                        break
                    at += 1
                elif kind == "split":
                    stack.append((place + second, at, registers))
                    place += first - 1
                elif kind == "jump":
                    place += first - 1
                elif kind == "set":
                    registers = {**registers, first: at}
                elif kind == "moved":
                    if registers[first] == at:
                        break
                elif kind == "enter":
                    registers = {**registers, first: len(stack)}
                elif kind == "leave":
                    del stack[registers[first] :]
                elif kind == "at":
                    if not first.match(text, at):
                        break
                elif kind == "look":
                    inner, back = first
                    if (at >= back and self._run(inner, text, at - back, False) >= 0) != second:
                        break
                elif whole and at < len(text):
                    break
                else:
                    return at
                place += 1
        return -1


def tester(node: Any, flags: int) -> Accepts:
    """Whether a character is one that ``node`` takes."""
    kind, value = str(node[0]), node[1]
    if kind == "ANY":
        return (lambda one: True) if flags & re.DOTALL else lambda one: one != "\n"
    if kind == "CATEGORY":
        pattern = re.compile(_CATEGORIES[str(value)], flags & re.ASCII)
        return lambda one: pattern.match(one) is not None
    if kind in ("LITERAL", "NOT_LITERAL"):
        same = {chr(value)} | ({chr(value).lower(), chr(value).upper()} if flags & re.IGNORECASE else set())
        return (lambda one: one in same) if kind == "LITERAL" else lambda one: one not in same
    if kind == "RANGE":
        low, high = value
        cases = (str.lower, str.upper, str) if flags & re.IGNORECASE else (str,)
        return lambda one: any(low <= ord(case(one)[0]) <= high for case in cases)
    assert kind == "IN", kind
    negated = str(value[0][0]) == "NEGATE"
    tests = [tester(each, flags) for each in value if str(each[0]) != "NEGATE"]
    return lambda one: any(test(one) for test in tests) != negated


# Texts that make a pattern work


def samples(nodes: Iterable[Any], flags: int) -> Iterator[str]:
    """Some texts that ``nodes`` match: with the fewest repeats, and with one more; with each of its branches."""
    parts = [list(islice(_samples_of(node, flags), 6)) for node in nodes]
    for chosen in islice(product(*parts), 24):
        yield "".join(chosen)


def _samples_of(node: Any, flags: int) -> Iterator[str]:
    kind, value = str(node[0]), node[1]
    if kind in ("LITERAL", "NOT_LITERAL", "IN", "ANY", "CATEGORY"):
        accepts = tester(node, flags)
        taken = [one for one in _ALPHABET if accepts(one)]
        yield from dict.fromkeys([*taken[:1], *taken[-1:], *taken[len(taken) // 2 :][:1]])
    elif kind == "SUBPATTERN":
        yield from samples(value[3], flags)
    elif kind == "ATOMIC_GROUP":
        yield from samples(value, flags)
    elif kind == "BRANCH":
        for each in value[1]:
            yield from islice(samples(each, flags), 2)
    elif kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        for each in islice(samples(value[2], flags), 4):
            yield each * max(1, value[0])
        if not value[0]:
            yield ""
    else:
        yield ""


def letters(nodes: Iterable[Any], flags: int) -> Iterator[str]:
    """Characters that parts of ``nodes`` take, a few for each: one may be what two of them could take."""
    for node in nodes:
        kind, value = str(node[0]), node[1]
        if kind == "SUBPATTERN":
            yield from letters(value[3], flags)
        elif kind == "ATOMIC_GROUP":
            yield from letters(value, flags)
        elif kind == "BRANCH":
            for each in value[1]:
                yield from letters(each, flags)
        elif kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            yield from letters(value[2], flags)
        elif kind not in ("ASSERT", "ASSERT_NOT"):
            yield from _samples_of(node, flags)


def repeats(nodes: Iterable[Any], flags: int, before: Sequence[str] = ("",)) -> Iterator[tuple[str, str]]:
    """For each endless repeat in ``nodes``: texts that lead to it, each with texts that it repeats."""
    for node in nodes:
        kind, value = str(node[0]), node[1]
        inner: list[Any] = []
        if kind == "SUBPATTERN":
            inner = [value[3]]
        elif kind == "ATOMIC_GROUP":
            inner = [value]
        elif kind == "BRANCH":
            inner = list(value[1])
        elif kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            inner = [value[2]]
            if value[1] is _c.MAXREPEAT or value[1] >= UNBOUNDED:
                yield from product(before, islice(samples(value[2], flags), 6))
        for each in inner:
            yield from repeats(each, flags, before)
        after = list(islice(_samples_of(node, flags), 3))
        before = list(dict.fromkeys(lead + more for lead in before for more in after))[:6]
