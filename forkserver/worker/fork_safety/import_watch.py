"""Records what the application starts and calls while it is imported, each with the line of code that did it.

What an import leaves behind shows in the process afterwards (process_snapshot.py), but not which line left it, and
a process id that was read leaves no trace at all. So for the time of the import an audit hook notes files, sockets,
child processes and temporary directories; and a few functions note their caller: ``os.getpid``, ``uuid.uuid4``,
``secrets.token_hex``, ``atexit.register``, ``Thread.start`` and their like.

An audit hook cannot be removed: after the import it returns at its first line, which costs an event about 0.1 µs. The
functions are put back (replaced_functions.py).

Source: PEP 578; https://docs.python.org/3/library/audit_events.html.
"""

from __future__ import annotations

import atexit
import os
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import FrameType, ModuleType
from typing import Any, Final

from forkserver.linux.common.records import NamedTuple
from forkserver.worker.fork_safety.code_places import caller, kind_of, module_of, place
from forkserver.worker.fork_safety.import_finder import told_of
from forkserver.worker.fork_safety.replaced_functions import Noted, noting

STDLIB: Final = "the standard library"  # a place: made by it for itself
_RECORDS: Final = 4000  # of each kind; what comes later is found without its place
# Functions whose results differ from process to process, by the module; of uuid, those that this Python has. A module
# that is not there yet is watched from its import on: most applications import neither, and OpenSSL comes with one.
_IDENTITIES: Final = {
    "os": ("getpid",),
    "secrets": ("choice", "randbelow", "token_bytes", "token_hex", "token_urlsafe"),
    "uuid": ("uuid1", "uuid4", "uuid6", "uuid7"),
}


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
        for reference, where in self._entries:
            if (made := reference()) is not None:
                yield made, where

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
        self.native_threads: list[tuple[str, int]] = []  # extension module, and how many threads were before it
        self.seeded = ""  # where random.seed was called

    @contextmanager
    def active(self) -> Iterator[None]:
        """Watch until the block ends. Watches do not nest."""
        global _watch
        _add_hook()
        try:
            _watch = self
            with noting(self._noted()) as note_more:
                coming = _IDENTITIES.keys() - sys.modules.keys()
                with told_of(coming, lambda module: note_more(self._identities(module))):
                    yield
        finally:
            _watch = None

    # What the audit hook and the replaced functions note

    def on_open(self, path: object, *_how: object) -> None:
        """Of a file or an SQLite database."""
        if isinstance(path, (str, bytes, os.PathLike)) and len(self.opened) < _RECORDS:
            frame = caller(2)
            if frame is None or kind_of(frame.f_code.co_filename) != "import":  # a module's own file
                self.opened[os.fsdecode(path)] = place(frame)

    def on_socket(self, made: object, *_kind: object) -> None:
        self.sockets.add(made, place(caller(2)))

    def on_temporary(self, path: object) -> None:
        if isinstance(path, (str, bytes)) and len(self.temporary) < _RECORDS:
            self.temporary[os.path.abspath(os.fsdecode(path))] = place(caller(2))

    def on_popen(self, _executable: object, arguments: Any, *_rest: object) -> None:
        words = [arguments] if isinstance(arguments, (str, bytes, os.PathLike)) else list(arguments)
        self._child(tuple(map(os.fsdecode, words)), caller(2))

    def on_fork(self, *_arguments: object) -> None:
        self._child((), caller(2))

    def on_import(self, module: object, file: object, *_paths: object) -> None:
        """With a file it is an extension module, which may start threads of its own."""
        if file is not None and len(self.native_threads) < _RECORDS:
            self.native_threads.append((str(module), count_threads()))

    def _child(self, command: tuple[str, ...], frame: FrameType | None) -> None:
        if len(self.children) < _RECORDS:
            self.children.append(Started(command, place(frame)))

    def _noted(self) -> Iterator[Noted]:
        for module in filter(None, map(sys.modules.get, _IDENTITIES)):
            yield from self._identities(module)
        yield Noted(atexit, "register", self._registered)
        yield Noted(atexit, "unregister", self._unregistered)
        yield Noted(random, "seed", self._seeded)
        yield Noted(random.Random, "__init__", self._generator)
        yield Noted(threading.Thread, "start", lambda arguments, frame: self.threads.add(arguments[0], place(frame)))
        yield Noted(weakref.finalize, "__init__", self._finalizer)

    def _identities(self, module: ModuleType) -> Iterator[Noted]:
        for name in filter(partial(hasattr, module), _IDENTITIES[module.__name__]):
            yield Noted(module, name, partial(self._called, f"{module.__name__}.{name}"))

    def _called(self, name: str, _arguments: tuple[Any, ...], frame: FrameType | None) -> None:
        if (call := _call(name, frame)) and call not in self.calls and len(self.calls) < _RECORDS:
            self.calls.append(call)

    def _registered(self, arguments: tuple[Any, ...], frame: FrameType | None) -> None:
        if (call := _call("atexit.register", frame)) and len(self.exits) < _RECORDS:
            self.exits.append((arguments[0], call))

    def _unregistered(self, arguments: tuple[Any, ...], _frame: FrameType | None) -> None:
        self.exits = [each for each in self.exits if each[0] != arguments[0]]

    def _seeded(self, _arguments: tuple[Any, ...], frame: FrameType | None) -> None:
        self.seeded = place(frame)

    def _generator(self, arguments: tuple[Any, ...], frame: FrameType | None) -> None:
        """One of the standard library's own, such as tempfile's, is its own concern at a fork."""
        own = frame is not None and kind_of(frame.f_code.co_filename) == "stdlib"
        self.generators.add(arguments[0], STDLIB if own else place(frame))

    def _finalizer(self, arguments: tuple[Any, ...], frame: FrameType | None) -> None:
        if len(self.finalizers) < _RECORDS:
            self.finalizers.append((arguments[0], place(frame)))


def count_threads() -> int:
    """Threads of this process, those of C code included: a directory has two links, and one for each within."""
    return os.stat("/proc/self/task").st_nlink - 2


def _call(name: str, frame: FrameType | None) -> Call | None:
    """The call of ``name`` by the code of ``frame``, where that is not the standard library."""
    while frame is not None and kind_of(frame.f_code.co_filename) == "generated":
        frame = frame.f_back  # a dataclass's __init__, for example
    if frame is None or kind_of(frame.f_code.co_filename) in ("stdlib", "ours"):
        return None
    return Call(name, module_of(frame), place(frame))


# The audit hook

_watch: ImportWatch | None = None
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


@cache
def _add_hook() -> None:
    """Add the hook, once: it cannot be removed."""
    sys.addaudithook(_hook)
