"""Records what the application starts and calls while it is imported, each with the line of code that did it.

What an import leaves behind shows in the process afterwards (leftovers.py), but not which line left it, and a process
id that was read leaves no trace at all. So for the time of the import an audit hook notes files, sockets, child
processes and temporary directories; and a few functions note their caller: ``os.getpid``, ``uuid.uuid4``,
``secrets.token_hex``, ``atexit.register``, ``Thread.start`` and their like.

An audit hook cannot be removed: after the import it returns at its first line, which costs an event about 0.1 µs. The
functions are put back. Of those written in Python only the code object was exchanged, so that ``from uuid import
uuid4`` during the import keeps the very function; what ``from os import getpid`` keeps calls the built-in.

Source: PEP 578; https://docs.python.org/3/library/audit_events.html.
"""

from __future__ import annotations

import atexit
import os
import random
import secrets
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, NamedTuple

_STDLIB: Final = os.path.dirname(os.__file__) + os.sep
_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED: Final = ("/site-packages/", "/dist-packages/")
STDLIB: Final = "the standard library"  # a place: made by it for itself
_FRAMES: Final = 2000  # looked at for one place; an import within an import takes about ten
_RECORDS: Final = 4000  # of each kind; what comes later is found without its place


class Call(NamedTuple):
    """A call of a watched function: its name, the module that called it, and the place in words."""

    name: str
    module: str
    place: str


class Started(NamedTuple):
    """A child process: its command line, empty for a fork, and the place in words."""

    command: tuple[str, ...]
    place: str


class Places:
    """Where objects were made, for as long as they live."""

    def __init__(self) -> None:
        self._entries: list[tuple[weakref.ref[Any], str]] = []

    def add(self, made: object, place: str) -> None:
        """Remember ``place`` of ``made``, unless it has no room for a weak reference."""
        if len(self._entries) < _RECORDS:
            try:
                self._entries.append((weakref.ref(made), place))
            except TypeError:
                return

    def alive(self) -> Iterator[tuple[Any, str]]:
        """Each object that still exists, with its place."""
        for reference, place in self._entries:
            if (made := reference()) is not None:
                yield made, place

    def of(self, made: object) -> str:
        """The place of ``made``; empty where it is not known."""
        return next((place for other, place in self.alive() if other is made), "")


class ImportWatch:
    """What happened during one import. ``with watch.active():`` around it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []  # of functions whose results differ from process to process
        self.exits: list[tuple[Any, Call]] = []  # callbacks registered with atexit
        self.opened: dict[str, str] = {}  # path as it was given -> place
        self.temporary: dict[str, str] = {}  # path that tempfile has made -> place
        self.children: list[Started] = []
        self.threads = Places()
        self.sockets = Places()
        self.finalizers: list[tuple[object, str]] = []  # which weakref keeps, too, until they are called
        self.generators = Places()
        self.native_threads: list[
            tuple[str, int]
        ] = []  # extension module, and the number of threads before it was loaded
        self.seeded = ""  # where random.seed was called

    @contextmanager
    def active(self) -> Iterator[None]:
        """Watch until the block ends. Watches do not nest."""
        global _watch
        _add_hook()
        replaced = _replaced()
        try:
            _watch = self
            for each in replaced:
                each.put()
            yield
        finally:
            _watch = None
            for each in replaced:
                each.undo()

    # What the audit hook and the replaced functions note

    def on_open(self, path: object, *_how: object) -> None:
        """Of a file or an SQLite database."""
        if isinstance(path, (str, bytes, os.PathLike)) and len(self.opened) < _RECORDS:
            caller = sys._getframe(2)
            if not caller.f_code.co_filename.startswith("<frozen importlib"):  # a module's own file
                self.opened[os.fsdecode(path)] = place(caller)

    def on_socket(self, made: object, *_kind: object) -> None:
        self.sockets.add(made, place(sys._getframe(2)))

    def on_temporary(self, path: object) -> None:
        if isinstance(path, (str, bytes)) and len(self.temporary) < _RECORDS:
            self.temporary[os.path.abspath(os.fsdecode(path))] = place(sys._getframe(2))

    def on_popen(self, _executable: object, arguments: Any, *_rest: object) -> None:
        words = [arguments] if isinstance(arguments, (str, bytes, os.PathLike)) else list(arguments)
        self._child(tuple(map(os.fsdecode, words)), sys._getframe(2))

    def on_fork(self, *_arguments: object) -> None:
        self._child((), sys._getframe(2))

    def on_import(self, module: object, file: object, *_paths: object) -> None:
        """With a file it is an extension module, which may start threads of its own."""
        if file is not None and len(self.native_threads) < _RECORDS:
            self.native_threads.append((str(module), count_threads()))

    def on_thread(self, started: object, caller: FrameType) -> None:
        self.threads.add(started, place(caller))

    def on_finalizer(self, made: object, caller: FrameType) -> None:
        if len(self.finalizers) < _RECORDS:
            self.finalizers.append((made, place(caller)))

    def on_generator(self, made: object, caller: FrameType) -> None:
        """One of the standard library's own, such as tempfile's, is its own concern at a fork."""
        own = _kind(caller.f_code.co_filename) == "stdlib"
        self.generators.add(made, STDLIB if own else place(caller))

    def _child(self, command: tuple[str, ...], caller: FrameType) -> None:
        if len(self.children) < _RECORDS:
            self.children.append(Started(command, place(caller)))

    def called(self, name: str, caller: FrameType) -> None:
        """``caller`` has asked for something that differs from process to process."""
        if (call := _call(name, caller)) and call not in self.calls and len(self.calls) < _RECORDS:
            self.calls.append(call)

    def registered(self, callback: object, caller: FrameType) -> None:
        """``caller`` has registered an exit callback."""
        if (call := _call("atexit.register", caller)) and len(self.exits) < _RECORDS:
            self.exits.append((callback, call))

    def unregistered(self, callback: object) -> None:
        """It has taken all that equal ``callback`` back."""
        self.exits = [each for each in self.exits if each[0] != callback]


def count_threads() -> int:
    """Threads of this process, those of C code included: a directory has two links, and one for each within."""
    return os.stat("/proc/self/task").st_nlink - 2


# Places in the code


def place(frame: FrameType | None) -> str:
    """The innermost line outside the standard library and forkserver, and the application's that led to it."""
    inner = ""
    for _ in range(_FRAMES):
        if frame is None:
            break
        kind = _kind(frame.f_code.co_filename)
        if kind == "application":
            own = _line(frame)
            return own if not inner else f"{inner}, by {own}"
        if kind == "installed" and not inner:
            inner = _line(frame)
        frame = frame.f_back
    return inner


def _line(frame: FrameType) -> str:
    return f"{_module(frame)}:{frame.f_lineno}"


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else os.path.basename(frame.f_code.co_filename)


def _call(name: str, caller: FrameType) -> Call | None:
    """The call, where its caller is not the standard library."""
    frame: FrameType | None = caller
    while frame is not None and _kind(frame.f_code.co_filename) == "generated":
        frame = frame.f_back  # a dataclass's __init__, for example
    if frame is None or _kind(frame.f_code.co_filename) in ("stdlib", "ours"):
        return None
    return Call(name, _module(frame), place(frame))


@cache
def _kind(file: str) -> str:
    """Whose code ``file`` is."""
    if file.startswith("<frozen "):
        return "stdlib"
    if file.startswith("<"):
        return "generated"
    if file.startswith(_OURS):
        return "ours"
    if any(part in file for part in _INSTALLED):
        return "installed"
    return "stdlib" if file.startswith(_STDLIB) else "application"


# The audit hook

_watch: ImportWatch | None = None
_hooked = False
_EVENTS: Final[dict[str, Callable[..., None]]] = {
    "open": ImportWatch.on_open,
    "sqlite3.connect": ImportWatch.on_open,
    "socket.__new__": ImportWatch.on_socket,
    "tempfile.mkstemp": ImportWatch.on_temporary,
    "tempfile.mkdtemp": ImportWatch.on_temporary,
    "subprocess.Popen": ImportWatch.on_popen,
    "os.posix_spawn": ImportWatch.on_popen,
    "os.fork": ImportWatch.on_fork,
    "os.forkpty": ImportWatch.on_fork,
    "import": ImportWatch.on_import,
}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch is None:
        return
    if noted := _EVENTS.get(event):
        noted(_watch, *arguments)


def _add_hook() -> None:
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True


# Functions replaced for the time of the import


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
    if _watch is not None:
        _watch.called(name, sys._getframe(2))
    return _originals[name](*arguments)


# Code that stands in functions of uuid and secrets, so it runs with their globals. The signatures are theirs.


def _uuid1(node: Any = None, clock_seq: Any = None) -> Any:
    from forkserver.worker.import_watch import relay

    return relay("uuid.uuid1", node, clock_seq)


def _uuid4() -> Any:
    from forkserver.worker.import_watch import relay

    return relay("uuid.uuid4")


def _uuid6(node: Any = None, clock_seq: Any = None) -> Any:
    from forkserver.worker.import_watch import relay

    return relay("uuid.uuid6", node, clock_seq)


def _uuid7() -> Any:
    from forkserver.worker.import_watch import relay

    return relay("uuid.uuid7")


def _token_bytes(nbytes: Any = None) -> Any:
    from forkserver.worker.import_watch import relay

    return relay("secrets.token_bytes", nbytes)


def _token_hex(nbytes: Any = None) -> Any:
    from forkserver.worker.import_watch import relay

    return relay("secrets.token_hex", nbytes)


def _token_urlsafe(nbytes: Any = None) -> Any:
    from forkserver.worker.import_watch import relay

    return relay("secrets.token_urlsafe", nbytes)


def _randbelow(exclusive_upper_bound: Any) -> Any:
    from forkserver.worker.import_watch import relay

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
        _method(weakref.finalize, "__init__", ImportWatch.on_finalizer),
        _method(random.Random, "__init__", ImportWatch.on_generator),
        _method(threading.Thread, "start", ImportWatch.on_thread),
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

    def noting(*arguments: Any) -> Any:
        if _watch is not None:
            _watch.called(full, sys._getframe(1))
        return original(*arguments)

    noting.__name__, noting.__qualname__, noting.__module__ = name, name, module.__name__
    return _Attribute(module, name, noting)


def _register(original: Callable[..., Any]) -> Callable[..., Any]:
    def register(func: Any, /, *args: Any, **kwargs: Any) -> Any:
        registered = original(func, *args, **kwargs)
        if _watch is not None:
            _watch.registered(func, sys._getframe(1))
        return registered

    return register


def _unregister(original: Callable[..., Any]) -> Callable[..., Any]:
    def unregister(func: Any, /) -> Any:
        original(func)
        if _watch is not None:
            _watch.unregistered(func)

    return unregister


def _seed(original: Callable[..., Any]) -> Callable[..., Any]:
    def seed(*args: Any, **kwargs: Any) -> Any:
        if _watch is not None:
            _watch.seeded = place(sys._getframe(1))
        return original(*args, **kwargs)

    return seed


def _method(kind: type, name: str, note: Callable[[ImportWatch, object, FrameType], None]) -> _Attribute:
    """A method whose calls are noted, each with its object."""
    original = getattr(kind, name)

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        returned = original(self, *args, **kwargs)
        if _watch is not None:
            note(_watch, self, sys._getframe(1))
        return returned

    method.__name__, method.__qualname__ = name, f"{kind.__qualname__}.{name}"
    return _Attribute(kind, name, method)
