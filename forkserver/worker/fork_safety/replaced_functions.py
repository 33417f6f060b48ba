"""Functions that note their calls for the time of an import, and are put back after it.

Of a function of a module that is written in Python only the code object is exchanged, so that ``from uuid import
uuid4`` during the import keeps the very function. Any other is replaced by name: what ``from os import getpid`` keeps
goes on to call the built-in, and notes nothing after the import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

from forkserver.linux.common.records import NamedTuple
from forkserver.worker.fork_safety.code_places import caller

# Told of a call that has succeeded: its positional arguments, and the frame that made it; None where C code did, in a
# thread of its own.
Note = Callable[[tuple[Any, ...], FrameType | None], None]

_CO_VARARGS, _CO_VARKEYWORDS = 0x04, 0x08  # as inspect has them, which takes a start 10 ms
_notes: Final[dict[str, Note]] = {}  # by the function's full name; empty while no import is watched
_originals: Final[dict[str, Callable[..., Any]]] = {}


class Noted(NamedTuple):
    """A function of a module, or a method of a class, and what is told of its calls."""

    owner: Any
    name: str
    note: Note


@contextmanager
def noting(functions: Iterable[Noted]) -> Iterator[Callable[[Iterable[Noted]], None]]:
    """Tell of calls until the block ends. Gives what takes more functions meanwhile. It does not nest."""
    with ExitStack() as put_back:
        put_back.callback(_notes.clear)

        def note_more(functions: Iterable[Noted]) -> None:
            for each in functions:
                put_back.callback(_tell_of(each))

        note_more(functions)
        yield note_more


def _tell_of(function: Noted) -> Callable[[], None]:
    """Tell of calls of ``function``; gives what puts it back."""
    owner, name, note = function
    full = f"{owner.__name__}.{name}"
    _notes[full] = note
    original = getattr(owner, name)
    if isinstance(owner, ModuleType) and isinstance(original, FunctionType) and _is_plain(original.__code__):
        return _exchange_code(original, full)
    return _replace(owner, name, full)


def _replace(owner: Any, name: str, full: str) -> Callable[[], None]:
    """Replace a function by name; gives what puts it back, unless the application has put its own there.

    Also in the module that it comes from, as ``os.getpid`` does from ``posix``: pickle looks for it there.
    """
    original = getattr(owner, name)
    home = sys.modules.get(getattr(original, "__module__", None) or "")
    owners = {id(each): each for each in (owner, home) if getattr(each, name, None) is original}.values()

    @wraps(original)
    def noted(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        if note := _notes.get(full):
            note(arguments, caller(1))
        return result

    def undo() -> None:
        for each in owners:
            if getattr(each, name) is noted:
                setattr(each, name, original)

    for each in owners:
        setattr(each, name, noted)
    return undo


def _is_plain(code: CodeType) -> bool:
    """Whether the code takes positional arguments alone, each by its name, and has no closure."""
    other = code.co_posonlyargcount or code.co_kwonlyargcount or code.co_freevars
    return not (other or code.co_flags & (_CO_VARARGS | _CO_VARKEYWORDS))


def _exchange_code(function: FunctionType, full: str) -> Callable[[], None]:
    """Have ``function`` run code that calls ``relay``; gives what gives it its own back.

    The new code runs with the globals of the function's module, so it imports what it needs; defaults stay with the
    function.
    """
    code = function.__code__
    names = ", ".join(code.co_varnames[: code.co_argcount])
    lines = (f"def made({names}):", f" from {__name__} import relay", f" return relay({full!r}, {names})")
    found: dict[str, Any] = {}
    exec(compile("\n".join(lines), __file__, "exec"), found)
    _originals[full] = FunctionType(code, function.__globals__, function.__name__)

    def undo() -> None:
        function.__code__ = code

    function.__code__ = found["made"].__code__
    return undo


def relay(full: str, *arguments: Any) -> Any:
    """Do what the function ``full`` does, and tell of the call. To be called by the code that stands in for its own."""
    result = _originals[full](*arguments)
    if note := _notes.get(full):
        note(arguments, caller(2))
    return result
