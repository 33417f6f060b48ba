"""Every regular expression of the package takes linear time, whatever text it meets.

Clients send text of up to 8 KiB a line, and a pattern in which two repeats can share the same characters tries every
way to divide them. No clock is read here: a matcher that backtracks as ``re`` does counts its steps while the text
grows.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice, product
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import forkserver
from forkserver.errors import ProtocolError
from forkserver.server.proxy.forwarded_headers import elements
from harness.backtracking import Matcher, TooManyStepsError, letters, repeats

TOP = Path(forkserver.__file__).parent
FUNCTIONS = ("match", "fullmatch", "search", "sub", "split", "findall", "finditer")
ONE_PLACE = ("match", "fullmatch")  # all others try at every place
SMALL, LARGE = 10, 40  # times that a text is repeated
# Four times the text may take four times the steps, or more where a repeat of up to 30 has an end in between; a
# quadratic pattern takes sixteen times.
MOST_GROWTH = 8
LEADS, LETTERS = 8, 10  # of a pattern, each with each
CHEAP = 4  # steps a character, of which no more need be known
ENDINGS = ("", "\x00", '"', ";")
KNOWN_TEXTS = (("for=a;", " "), ("", " "), ("", "a"), ("", "%41"), ('a="', "\\"))


class Used(NamedTuple):
    """A pattern and how it is called: at one place, or at every place of a text."""

    name: str
    pattern: re.Pattern[Any]
    everywhere: bool


@cache
def calls() -> list[tuple[str, str, ast.Call]]:
    """All calls of methods: the name of what is called upon, the method, the call."""
    found = []
    for path in sorted(TOP.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                found.append((name, node.func.attr, node))
    return found


def compiled() -> Iterator[tuple[str, str, re.Pattern[Any]]]:
    """Patterns of modules and classes: the module's name, the pattern's, the pattern."""
    for module in pkgutil.walk_packages([str(TOP)], "forkserver."):
        if not module.name.endswith("__main__"):
            holders: list[object] = [importlib.import_module(module.name)]
            holders += [each for each in vars(holders[0]).values() if isinstance(each, type)]
            for holder in holders:
                for name, value in vars(holder).items():
                    if isinstance(value, re.Pattern):
                        yield module.name, name, value


@cache
def used() -> list[Used]:
    """All patterns, those that are written where they are called too."""
    how: dict[str, set[str]] = {}
    found: dict[str, Used] = {}
    for owner, method, call in calls():
        if method not in FUNCTIONS:
            continue
        if owner == "re":
            assert isinstance(call.args[0], ast.Constant), f"compile it in the module: {ast.unparse(call)}"
            text = call.args[0].value
            found[repr(text)] = Used(repr(text), re.compile(text), method not in ONE_PLACE)
        else:
            how.setdefault(owner, set()).add(method)
    for module, name, pattern in compiled():
        assert name in how, f"nothing calls {module}.{name}"
        found.setdefault(f"{module} {pattern.pattern!r}", Used(name, pattern, not how[name] <= set(ONE_PLACE)))
    return list(found.values())


@cache
def compiled_once(pattern: re.Pattern[Any]) -> Matcher:
    return Matcher(pattern)


def matcher_of(pattern: re.Pattern[Any]) -> Matcher:
    """One that has taken no step yet."""
    matcher = compiled_once(pattern)
    matcher.steps = 0
    return matcher


def steps(each: Used, text: str) -> int:
    matcher = matcher_of(each.pattern)
    if each.everywhere:
        matcher.search(text)
    else:
        matcher.match(text)
        matcher.match(text, whole=True)
    return matcher.steps


def texts(pattern: re.Pattern[Any]) -> set[tuple[str, str]]:
    """What to begin with, and what to repeat: to each repeat of the pattern, and what is known to have hurt others."""
    tree, flags = Matcher(pattern).tree, pattern.flags
    found = {*repeats(tree, flags), *KNOWN_TEXTS}
    leads = sorted({lead for lead, _ in found})[:: max(1, len(found) // LEADS)]
    return found | set(product(leads, islice(dict.fromkeys(letters(tree, flags)), LETTERS)))


def growth(each: Used) -> tuple[float, str]:
    """By how much the steps grow with the text, at worst, and for which one."""
    worst, shown = 0.0, ""
    for lead, pump in sorted(texts(each.pattern)):
        for ending in ENDINGS:
            text = f"{lead!r} + {pump!r} * n + {ending!r}"
            try:
                large = steps(each, lead + pump * LARGE + ending)
            except TooManyStepsError:
                return inf, text
            if large > CHEAP * LARGE and (ratio := large / steps(each, lead + pump * SMALL + ending)) > worst:
                worst, shown = ratio, text
    return worst, shown


def test_every_pattern_of_the_package_is_found() -> None:
    """Those at modules and classes, and those written where they are called."""
    everything = used()
    written = [(owner, method) for owner, method, _ in calls()].count(("re", "compile"))
    assert written > 15
    assert len([each for each in everything if each.name.isidentifier()]) == written
    assert {"TOKEN", "_PAIR", "_UNSAFE", "CHUNK_LINE", "_LINE"} <= {each.name for each in everything}


@pytest.mark.parametrize("each", [pytest.param(each, id=f"{number}-{each.name}") for number, each in enumerate(used())])
def test_no_pattern_takes_more_than_linear_time(each: Used) -> None:
    worst, shown = growth(each)
    assert worst <= MOST_GROWTH, f"{each.pattern.pattern!r}: four times {shown} takes {worst:.1f} times the steps"


@pytest.mark.parametrize(
    ("pattern", "everywhere"),
    [
        (r"[ \t]*(?:([a-z]+)=)?[ \t]*([;,]|\Z)", False),
        (r"(a+)+b", False),
        (r"(?:a|aa)*b", False),
        (r"[a-z]*[a-y]*;", False),
        (r"(?:x[ab]*)?[a-c]*\d", False),
        (r".*,.*,.*;", False),
        (r"a+b", True),
        (r"\s+$", True),
    ],
)
def test_a_pattern_that_is_not_linear_is_found(pattern: str, everywhere: bool) -> None:
    assert growth(Used("bad", re.compile(pattern), everywhere))[0] > MOST_GROWTH


@pytest.mark.parametrize("each", [pytest.param(each, id=f"{number}-{each.name}") for number, each in enumerate(used())])
def test_the_counting_matcher_matches_what_re_matches(each: Used) -> None:
    """Else its steps would be those of another pattern."""
    as_text = str if isinstance(each.pattern.pattern, str) else lambda text: text.encode("latin-1", "replace")
    for lead, pump in sorted(texts(each.pattern))[::2]:
        for text in (lead, lead + pump * 2, lead + pump + ";"):
            matcher, there = matcher_of(each.pattern), as_text(text)
            assert matcher.match(text) == (each.pattern.match(there) is not None), text
            assert matcher.match(text, whole=True) == (each.pattern.fullmatch(there) is not None), text
            assert matcher.search(text) == (each.pattern.search(there) is not None), text


def _repeated_groups(tree: Any) -> Iterator[Any]:
    """What ``tree`` repeats possessively, or matches atomically, but for single characters."""
    for kind, value in tree:
        name = str(kind)
        if name == "ATOMIC_GROUP" or (
            name == "POSSESSIVE_REPEAT" and [str(each) for each, _ in value[2]] not in (["IN"], ["LITERAL"], ["ANY"])
        ):
            yield value
        parts = value if isinstance(value, (list, tuple)) else ()
        for part in parts:
            for branch in part if isinstance(part, list) else [part]:
                if hasattr(branch, "getwidth"):  # a part of a pattern, as the parser has it
                    yield from _repeated_groups(branch)


@pytest.mark.parametrize("each", [pytest.param(each, id=f"{number}-{each.name}") for number, each in enumerate(used())])
def test_no_pattern_repeats_a_group_possessively(each: Used) -> None:
    """CPython before 3.11.5, so Debian 12's, goes on from the middle of a group that did not match (gh-106052)."""
    assert not list(_repeated_groups(Matcher(each.pattern).tree)), each.pattern.pattern


@pytest.mark.parametrize("pattern", [r"a(?:bc?d)?+e", r"(?:aa|b)*+", r"x(?>ab)", r"(?:y(?:ab)++)?"])
def test_a_group_that_is_repeated_possessively_is_found(pattern: str) -> None:
    assert list(_repeated_groups(Matcher(re.compile(pattern)).tree))


def test_a_forwarded_field_of_blanks_is_refused() -> None:
    """It took 0.7 s of a worker."""
    with pytest.raises(ProtocolError, match="malformed Forwarded"):
        elements("for=a;" + " " * 8150 + "@")
