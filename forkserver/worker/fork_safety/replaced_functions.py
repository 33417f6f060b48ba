"""Functions that note their caller for the time of an import, and are put back after it.

Of functions written in Python only the code object is exchanged, so that ``from uuid import uuid4`` during the import
keeps the very function; what ``from os import getpid`` keeps calls the built-in.
"""

from __future__ import annotations

import atexit
import os
import random
import secrets
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, Protocol

from forkserver.worker.fork_safety.code_places import caller


class CallObserver(Protocol):
    """Is told of each call, with the frame that made it; None where C code did, in a thread of its own."""

    def called(self, name: str, caller: FrameType | None) -> None:
        """Of the function ``name``, whose results differ from process to process."""

    def registered(self, callback: object, caller: FrameType | None) -> None:
        """Of atexit.register."""

    def unregistered(self, callback: object) -> None:
        """Of atexit.unregister."""

    def on_seed(self, caller: FrameType | None) -> None:
        """Of random.seed."""

    def on_finalizer(self, made: object, caller: FrameType | None) -> None:
        """Of weakref.finalize."""

    def on_generator(self, made: object, caller: FrameType | None) -> None:
        """Of random.Random."""

    def on_thread(self, started: object, caller: FrameType | None) -> None:
        """Of Thread.start."""


_listener: CallObserver | None = None


@contextmanager
def noting(listener: CallObserver) -> Iterator[None]:
    """Tell ``listener`` of calls until the block ends. It does not nest."""
    global _listener
    replaced = _replaced()
    try:
        _listener = listener
        for each in replaced:
            each.put()
        yield
    finally:
        _listener = None
        for each in replaced:
            each.undo()


class _Attribute:
    """A function of a module or a class, replaced by name."""

    def __init__(self, owner: Any, name: str, replacement: Callable[..., Any]) -> None:
        self._owner, self._name, self._replacement = owner, name, replacement
        self._original = getattr(owner, name)

    def put(self) -> None:
        setattr(self._owner, self._name, self._replacement)

    def undo(self) -> None:
        if getattr(self._owner, self._name) is self._replacement:  # else the application has put its own there
            setattr(self._owner, self._name, self._original)


class _Code:
    """A function written in Python: it stays itself, and runs other code."""

    def __init__(self, function: FunctionType, code: CodeType) -> None:
        self._function, self._code = function, code
        self._original = function.__code__
        name = f"{function.__module__}.{function.__name__}"
        _originals[name] = FunctionType(
            self._original, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )

    def put(self) -> None:
        self._function.__code__ = self._code

    def undo(self) -> None:
        self._function.__code__ = self._original


_originals: Final[dict[str, Callable[..., Any]]] = {}


def relay(name: str, *arguments: Any) -> Any:
    """Note the caller of the function ``name``, and do what the function does. To be called by its replacement."""
    if _listener is not None:
        _listener.called(name, caller(2))
    return _originals[name](*arguments)


# Code that stands in functions of uuid and secrets, so it runs with their globals. The signatures are theirs.


def _uuid1(node: Any = None, clock_seq: Any = None) -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("uuid.uuid1", node, clock_seq)


def _uuid4() -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("uuid.uuid4")


def _uuid6(node: Any = None, clock_seq: Any = None) -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("uuid.uuid6", node, clock_seq)


def _uuid7() -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("uuid.uuid7")


def _token_bytes(nbytes: Any = None) -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("secrets.token_bytes", nbytes)


def _token_hex(nbytes: Any = None) -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("secrets.token_hex", nbytes)


def _token_urlsafe(nbytes: Any = None) -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("secrets.token_urlsafe", nbytes)


def _randbelow(exclusive_upper_bound: Any) -> Any:
    from forkserver.worker.fork_safety.replaced_functions import relay

    return relay("secrets.randbelow", exclusive_upper_bound)


_CODES: Final = (
    *((uuid, function) for function in (_uuid1, _uuid4, _uuid6, _uuid7)),
    *((secrets, function) for function in (_token_bytes, _token_hex, _token_urlsafe, _randbelow)),
)


def _replaced() -> list[_Attribute | _Code]:
    """The replacements of one import, none of them in place yet."""
    made: list[_Attribute | _Code] = [
        _noting(os, "getpid"),
        _noting(secrets, "choice"),
        _Attribute(atexit, "register", _register(atexit.register)),
        _Attribute(atexit, "unregister", _unregister(atexit.unregister)),
        _Attribute(random, "seed", _seed(random.seed)),
        _method(weakref.finalize, "__init__", lambda listener, made, caller: listener.on_finalizer(made, caller)),
        _method(random.Random, "__init__", lambda listener, made, caller: listener.on_generator(made, caller)),
        _method(threading.Thread, "start", lambda listener, started, caller: listener.on_thread(started, caller)),
    ]
    for module, replacement in _CODES:
        function = getattr(module, replacement.__name__[1:], None)
        if isinstance(function, FunctionType) and _same_parameters(function.__code__, replacement.__code__):
            made.append(_Code(function, replacement.__code__))
    return made


def _same_parameters(one: CodeType, other: CodeType) -> bool:
    """Whether both take the same arguments and no closure: else exchanging them would break calls."""
    count = one.co_argcount
    return (count, one.co_flags & 0x0C, one.co_freevars) == (
        other.co_argcount,
        other.co_flags & 0x0C,
        other.co_freevars,
    ) and one.co_varnames[:count] == other.co_varnames[:count]


def _noting(module: Any, name: str) -> _Attribute:
    """A built-in function that notes its caller."""
    original = getattr(module, name)
    full = f"{module.__name__}.{name}"

    def relayed(*arguments: Any) -> Any:
        if _listener is not None:
            _listener.called(full, caller(1))
        return original(*arguments)

    relayed.__name__, relayed.__qualname__, relayed.__module__ = name, name, module.__name__
    return _Attribute(module, name, relayed)


def _register(original: Callable[..., Any]) -> Callable[..., Any]:
    def register(func: Any, /, *args: Any, **kwargs: Any) -> Any:
        registered = original(func, *args, **kwargs)
        if _listener is not None:
            _listener.registered(func, caller(1))
        return registered

    return register


def _unregister(original: Callable[..., Any]) -> Callable[..., Any]:
    def unregister(func: Any, /) -> Any:
        original(func)
        if _listener is not None:
            _listener.unregistered(func)

    return unregister


def _seed(original: Callable[..., Any]) -> Callable[..., Any]:
    def seed(*args: Any, **kwargs: Any) -> Any:
        if _listener is not None:
            _listener.on_seed(caller(1))
        return original(*args, **kwargs)

    return seed


def _method(kind: type, name: str, note: Callable[[CallObserver, object, FrameType | None], None]) -> _Attribute:
    """A method whose calls are noted, each with its object."""
    original = getattr(kind, name)

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        returned = original(self, *args, **kwargs)
        if _listener is not None:
            note(_listener, self, caller(1))
        return returned

    method.__name__, method.__qualname__ = name, f"{kind.__qualname__}.{name}"
    return _Attribute(kind, name, method)
