"""What crosses from one program to the next is read as it was written, or refused with the place that does not fit."""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import Any

import pytest

from forkserver.ipc.serialization import UnreadableError, dump, load
from forkserver.linux.common.records import NamedTuple, Record, fresh


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Everything(Record):
    name: str
    points: list[Point] = fresh(default_factory=list)
    by_number: dict[int, Point] = fresh(default_factory=dict)
    numbers: frozenset[int] = frozenset()
    pair: tuple[int, str] | None = None
    many: tuple[int, ...] = ()
    colour: Colour = Colour.RED
    flag: bool = False
    never: float = math.inf
    free: dict[str, Any] = fresh(default_factory=dict)


FULL = Everything(
    "\udcff \u2603",
    [Point(1, 2.5)],
    {7: Point(3)},
    frozenset({1, 2}),
    (1, "a"),
    (1, 2, 3),
    Colour.RED,
    True,
    math.inf,
    {"bind": ["a", "b"], "user": None, "timeout": math.inf},
)


@pytest.mark.parametrize("thing", [FULL, Everything("nothing more")])
def test_what_is_written_is_read(thing: Everything) -> None:
    """Through JSON, with names that are no UTF-8 and deadlines that never come."""
    assert vars(load(Everything, json.loads(json.dumps(dump(thing))))) == vars(thing)


@pytest.mark.parametrize(
    ("plain", "why"),
    [
        ({"name": 3}, r"everything\.name: 3 is no str"),
        ({"name": None}, r"everything\.name: None is no str"),
        ({}, "needs a value for 'name'"),
        ([], "is no Everything"),
        ({"name": "a", "age": 3}, "'age' is no field of Everything"),
        ({"name": "a", "points": [{"x": 1}, {"x": True}]}, r"points\[1\]\.x: True is no int"),
        ({"name": "a", "points": {"x": 1}}, r"points: .* is no list"),
        ({"name": "a", "by_number": [[1]]}, r"by_number\[0\]: 1 values, not 2"),
        ({"name": "a", "pair": [1, "a", 2]}, r"pair: 3 values, not 2"),
        ({"name": "a", "colour": "blue"}, r"colour: 'blue' is no Colour"),
        ({"name": "a", "never": "inf"}, r"never: 'inf' is no float"),
        ({"name": "a", "flag": 1}, r"flag: 1 is no bool"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(plain: Any, why: str) -> None:
    """A program that reads another's state half right would be worse than one that refuses it."""
    with pytest.raises(UnreadableError, match=why):
        load(Everything, plain)


def test_a_field_that_came_later_has_its_default() -> None:
    """So that a newer program reads what an older one wrote."""
    assert vars(load(Everything, {"name": "a"})) == vars(Everything("a"))


def test_what_is_no_fact_is_not_written() -> None:
    with pytest.raises(TypeError, match="object is not plain"):
        dump(object())
