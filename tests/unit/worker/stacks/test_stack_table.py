"""Each function, call and path of a profile is told once and before it is named, and at most as many as fit."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from forkserver.ipc import profile_records
from forkserver.ipc.profile_records import ProfiledCall, ProfiledFunction, ProfiledPath, decode_records
from forkserver.worker.stacks.stack_table import LEFT_OUT, OTHERS, StackTable


def frames(depth: int = 0) -> list[FrameType]:
    """The frames from here to the caller, and ``depth`` more calls of this function."""
    if depth:
        return frames(depth - 1)
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is frames.__code__:
        found.append(frame)
        frame = frame.f_back
    assert frame is not None
    return [*found, frame]


class Reader:
    """Knows what a table has told."""

    def __init__(self, table: StackTable) -> None:
        self.table = table
        self.functions: list[ProfiledFunction] = []
        self.calls: list[ProfiledCall] = []
        self.paths: list[str] = []

    def read(self) -> None:
        for data in self.table.new:
            (record,) = decode_records(data)
            match record:
                case ProfiledFunction():
                    self.functions.append(record)
                case ProfiledCall(parent, function):
                    assert parent <= len(self.calls)
                    assert function < len(self.functions)
                    self.calls.append(record)
                case ProfiledPath(line):
                    self.paths.append(line)
        self.table.new.clear()

    def names(self, call: int) -> list[str]:
        """The stack, the outermost first."""
        found: list[str] = []
        while call:
            call, function = self.calls[call - 1]
            found.insert(0, self.functions[function].name)
        return found


@pytest.fixture
def reader() -> Reader:
    return Reader(StackTable())


def test_a_stack_is_told_once(reader: Reader) -> None:
    seen = frames(1)
    number = reader.table.stack(seen)
    reader.read()
    here = sys._getframe().f_code
    assert reader.names(number) == [here.co_qualname, "frames", "frames"]
    assert reader.functions[-1].module == __name__
    assert reader.functions[-1].file == __file__[-400:]
    assert reader.table.stack(seen) == number
    assert reader.table.new == []


def test_a_deep_stack_keeps_both_ends(reader: Reader) -> None:
    number = reader.table.stack(frames(3000 if sys.getrecursionlimit() > 4000 else 600))
    reader.read()
    names = reader.names(number)
    assert len(names) == profile_records.DEEPEST
    assert names[0].startswith("test_a_deep_stack")
    assert names.count(LEFT_OUT) == 1


def test_functions_and_calls_beyond_the_bounds_are_counted_with_others(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_records, "MOST_FUNCTIONS", 3)
    monkeypatch.setattr(profile_records, "MOST_CALLS", 3)
    seen = frames(5)
    number = reader.table.stack(seen)
    reader.read()
    assert reader.names(number) == [OTHERS, OTHERS]
    assert len(reader.calls) == 3


def test_paths_beyond_the_bound_are_counted_with_others(reader: Reader) -> None:
    """A path with a number in it is another for each client."""
    numbers = [reader.table.path(f"GET /user/{number}") for number in range(1000)]
    reader.read()
    assert len(reader.paths) == profile_records.MOST_PATHS
    assert reader.paths[-1] == OTHERS
    assert set(numbers[profile_records.MOST_PATHS - 1 :]) == {profile_records.MOST_PATHS}
    assert reader.table.path("GET /user/5") == numbers[5]


def test_what_the_application_calls_its_modules_cannot_hurt(reader: Reader) -> None:
    class Odd(str):
        __slots__ = ()

        def __getitem__(self, _: Any) -> Any:
            raise AssertionError("called")

    for name in (None, 5, Odd("odd"), "\x1b[2J" * 500):
        variables: dict[str, Any] = {"__name__": name, "frames": frames}
        exec("def generated():\n    return frames()", variables)
        call: Any = variables["generated"]
        reader.table.stack(call())
    reader.read()
    modules = [each.module for each in reader.functions if each.name == "generated"]
    assert modules[:3] == ["", "", ""]
    assert modules[3].isprintable()
