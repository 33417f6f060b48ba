"""Records are what typing.NamedTuple and dataclasses give, without the time that those take of a start."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import typing
from typing import Any, Generic, TypeVar

import pytest

from forkserver.linux.common.records import NamedTuple, Record, field_names, fresh

T = TypeVar("T")


class Point(NamedTuple):
    """A point."""

    x: int
    y: float = 0.5

    @property
    def double(self) -> float:
        return 2 * self.y


class Standard(typing.NamedTuple):
    x: int
    y: float = 0.5


class Box(NamedTuple, Generic[T]):
    content: T


class Empty(NamedTuple):
    pass


class Job(Record):
    name: str
    number: int = 1
    done: list[int] = fresh(default_factory=list)

    def __post_init__(self) -> None:
        self.title = f"{self.name} {self.number}"


def test_a_named_tuple_is_what_the_standard_librarys_is() -> None:
    made, known = Point(1), Standard(1)
    assert isinstance(made, tuple)
    assert made == known
    assert (made.x, made.y, made.double) == (1, 0.5, 1.0)
    for name in ("_fields", "_field_defaults", "__match_args__", "__slots__"):
        assert getattr(Point, name) == getattr(Standard, name), name
    assert repr(made) == repr(known).replace("Standard", "Point")
    assert made._replace(y=3) == known._replace(y=3)
    assert made._asdict() == known._asdict()
    assert Point._make([2, 3]) == Standard._make([2, 3])
    assert typing.get_type_hints(Point) == typing.get_type_hints(Standard)
    assert Empty() == ()
    assert Box("a").content == "a"


def test_a_named_tuple_takes_its_fields_by_place_or_name_and_nothing_else() -> None:
    assert Point(y=2, x=1) == (1, 2)
    make: Any = Point
    with pytest.raises(TypeError, match=r"Point.__new__\(\) missing 1 required positional argument: 'x'"):
        make()
    with pytest.raises(TypeError, match="takes from 2 to 3 positional arguments but 4 were given"):
        make(1, 2, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        make(1, z=2)


def test_a_named_tuple_is_copied_pickled_and_matched() -> None:
    made = Point(1, 2)
    assert type(copy.copy(made)) is type(pickle.loads(pickle.dumps(made))) is Point
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    match made:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_a_named_tuple_has_no_room_for_other_attributes() -> None:
    made: Any = Point(1)
    with pytest.raises(AttributeError):
        made.z = 1
    with pytest.raises(AttributeError):
        made.x = 2


def test_a_record_takes_its_fields_by_place_or_name_and_nothing_else() -> None:
    made = Job("a", done=[3])
    assert (made.name, made.number, made.done, made.title) == ("a", 1, [3], "a 1")
    assert repr(made) == "Job(name='a', number=1, done=[3])"
    make: Any = Job
    for arguments, named, why in (
        ((), {}, "Job needs a value for 'name'"),
        (("a", 1, [], 2), {}, "Job takes 3 values, not 4"),
        (("a",), {"other": 1}, "Job takes no 'other'"),
        (("a",), {"name": "b"}, "Job takes no 'name', or not twice"),
    ):
        with pytest.raises(TypeError, match=why):
            make(*arguments, **named)


def test_a_record_has_defaults_of_its_own_and_is_equal_to_itself_alone() -> None:
    one, other = Job("a"), Job("a")
    one.done.append(1)
    assert other.done == []
    assert one != other
    assert len({one, other}) == 2


def test_the_fields_of_either_kind_are_known_and_of_nothing_else() -> None:
    assert field_names(Point) == ("x", "y")
    assert field_names(Job) == ("name", "number", "done")
    assert field_names(tuple) == field_names(int) == ()


def test_a_record_costs_a_start_neither_inspect_nor_dataclasses() -> None:
    made = """
import sys
from forkserver.linux.common.records import NamedTuple, Record

class Point(NamedTuple):
    x: "what is compiled nowhere ("

class Job(Record):
    name: "neither is this ("

Point(1), Job("a")
assert not {"inspect", "dataclasses"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}{made}"], check=True)
