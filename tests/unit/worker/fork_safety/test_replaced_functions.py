"""Functions note their calls for a while, do what they did, and are put back."""

from __future__ import annotations

import inspect
import os
import pickle
import posix
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import pytest

from forkserver.worker.fork_safety import replaced_functions
from forkserver.worker.fork_safety.replaced_functions import Noted, noting

SOURCE = """
FACTOR = 3

def plain(number, factor=None): return number * (factor or FACTOR)
def variable(*numbers, **named): return sum(numbers)
def keyword(*, number): return number
def failing(number): raise ValueError(number)

class Thing:
    def begin(self, name="x"): return name
"""

Calls = list[tuple[tuple[Any, ...], str]]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = ModuleType("library_under_watch")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(SOURCE, vars(made))
    return made


def note_to(calls: Calls) -> Callable[[tuple[Any, ...], FrameType | None], None]:
    def note(arguments: tuple[Any, ...], frame: FrameType | None) -> None:
        assert frame is not None
        calls.append((arguments, frame.f_code.co_name))

    return note


def test_a_plain_function_stays_itself_and_notes_each_argument(library: Any) -> None:
    """With its globals, its defaults and its signature; those that are given by name are noted as well."""
    calls: Calls = []
    taken, signature = library.plain, inspect.signature(library.plain)
    with noting([Noted(library, "plain", note_to(calls))]):
        assert library.plain is taken
        assert inspect.signature(taken) == signature
        assert (taken(2), taken(2, 5), taken(2, factor=7)) == (6, 10, 14)
    assert (taken(2), library.plain is taken) == (6, True)
    here = "test_a_plain_function_stays_itself_and_notes_each_argument"
    assert calls == [((2, None), here), ((2, 5), here), ((2, 7), here)]


@pytest.mark.parametrize(("name", "call"), [("variable", lambda f: f(1, 2)), ("keyword", lambda f: f(number=3))])
def test_another_function_is_replaced_by_name_and_what_was_taken_is_silent_afterwards(
    library: Any, name: str, call: Callable[[Callable[..., int]], int]
) -> None:
    calls: Calls = []
    before = getattr(library, name)
    with noting([Noted(library, name, note_to(calls))]):
        taken = getattr(library, name)
        assert taken is not before
        assert call(taken) == 3
        assert len(calls) == 1
    assert getattr(library, name) is before
    assert call(taken) == 3
    assert len(calls) == 1


def test_a_function_of_another_module_can_be_pickled(calls_of_getpid: Calls) -> None:
    """``posix`` says that ``os.getpid`` is its own."""
    assert pickle.loads(pickle.dumps(os.getpid))() == posix.getpid()
    assert len(calls_of_getpid) == 2


@pytest.fixture
def calls_of_getpid() -> Iterator[Calls]:
    calls: Calls = []
    original = os.getpid
    with noting([Noted(os, "getpid", note_to(calls))]):
        yield calls
    assert os.getpid is posix.getpid is original


def test_a_method_is_noted_with_its_object(library: Any) -> None:
    calls: Calls = []
    thing, before = library.Thing(), library.Thing.begin
    with noting([Noted(library.Thing, "begin", note_to(calls))]):
        assert thing.begin() == "x"
    assert calls == [((thing,), "test_a_method_is_noted_with_its_object")]
    assert library.Thing.begin is before


def test_a_call_that_fails_is_not_noted(library: Any) -> None:
    """A thread that could not be started is none that is left behind."""
    calls: Calls = []
    with noting([Noted(library, "failing", note_to(calls))]), pytest.raises(ValueError, match="7"):
        library.failing(7)
    assert calls == []


def test_all_is_put_back_where_one_function_is_missing(library: Any) -> None:
    before = library.plain.__code__
    wanted = [Noted(library, "plain", note_to([])), Noted(library, "missing", note_to([]))]
    with pytest.raises(AttributeError), noting(wanted):
        raise AssertionError("not reached")
    assert library.plain.__code__ is before


def test_what_an_application_has_put_there_is_left_alone(library: Any) -> None:
    own = object()
    with noting([Noted(library, "variable", note_to([]))]):
        library.variable = own
    assert library.variable is own


def test_nothing_is_told_after_the_end(library: Any) -> None:
    """Another thread may be within the function that relays its call."""
    calls: Calls = []
    with noting([Noted(library, "plain", note_to(calls))]):
        pass
    assert replaced_functions.relay("library_under_watch.plain", 2, None) == 6
    assert calls == []
