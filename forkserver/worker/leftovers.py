"""What exists in this process that two processes cannot share, and did not exist before: the facts, each in words.

``Snapshot.take()`` before an import or a request, ``found(snapshot)`` after it. Looked at are threads, child processes,
descriptors, writable shared memory, finalizers and random generators. Read-only regular files count too: processes that
share one share its position, so their reads mix.

Source: proc(5), fork(2), https://docs.python.org/3/library/weakref.html#weakref.finalize.
"""

from __future__ import annotations

import fcntl
import gc
import os
import random
import signal
import socket
import stat
import sys
import threading
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

from forkserver.worker import fork_safety_exemptions as exemptions
from forkserver.worker.import_watch import STDLIB, ImportWatch

_WITHOUT_STATE: Final = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"})
_UNSHAREABLE_INODES: Final = {  # what proc(5) shows for a descriptor that leads to no path -> in words
    "pipe": "pipe",
    "anon_inode:[eventfd]": "eventfd",
    "anon_inode:[eventpoll]": "epoll instance",
    "anon_inode:[timerfd]": "timerfd",
    "anon_inode:[signalfd]": "signalfd",
    "anon_inode:[pidfd]": "pidfd",
    "anon_inode:[io_uring]": "io_uring",
    "anon_inode:inotify": "inotify instance",
}
_SOCKET_TYPES: Final = {
    socket.SOCK_STREAM: "stream socket",
    socket.SOCK_DGRAM: "datagram socket",
    socket.SOCK_SEQPACKET: "packet socket",
    socket.SOCK_RAW: "raw socket",
}


class Finding(NamedTuple):
    """Something that was left behind, in words, and the place in the code where it comes from, where that is known."""

    what: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.place})" if self.place else self.what


class Snapshot(NamedTuple):
    """What existed before. Objects, not their ids: an id may be used again."""

    descriptors: dict[int, str]
    threads: frozenset[int]
    children: frozenset[int]
    shared_memory: frozenset[str]
    finalizers: frozenset[Any]
    generators: tuple[Any, ...]
    random_state: object

    @classmethod
    def take(cls) -> Snapshot:
        """Of this process, now."""
        return cls(
            descriptors(),
            frozenset(_tasks()),
            frozenset(_children()),
            frozenset(_shared_memory()),
            frozenset(_finalizers()),
            tuple(_generators()),
            random.getstate(),
        )


def descriptors() -> dict[int, str]:
    """The descriptors of this process, and what each leads to, as proc(5) has it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def found(before: Snapshot, watch: ImportWatch) -> list[Finding]:
    """What was not there ``before``; ``watch`` knows places. Raises OSError where /proc cannot be read."""
    if left := _look(before, watch):
        left.clear()
        gc.collect()  # what only waits for the collector is not left behind; without findings no import pays for it
        left = _look(before, watch)
    return left


def _look(before: Snapshot, watch: ImportWatch) -> list[Finding]:
    return [
        *_new_threads(before, watch),
        *_new_children(before, watch),
        *_new_descriptors(before, watch),
        *_new_shared_memory(before),
        *_new_finalizers(before, watch),
        *_new_generators(before, watch),
    ]


# Threads


def _tasks() -> list[int]:
    """The threads of this process, by the kernel's ids."""
    return sorted(map(int, os.listdir("/proc/self/task")))


def _new_threads(before: Snapshot, watch: ImportWatch) -> Iterator[Finding]:
    python = {thread.native_id: thread for thread in threading.enumerate()}
    native = []
    for task in _tasks():
        if task in before.threads or task == threading.get_native_id():
            continue
        if thread := python.get(task):
            yield Finding(f"thread {thread.name}", watch.threads.of(thread))
        else:
            native.append(task)
    spared = exemptions.pool_threads() if native else 0
    for task in native[spared:]:
        if name := _thread_name(task):
            yield Finding(name, _loaded_by(watch, native.index(task)))


def _thread_name(task: int) -> str:
    """What C code has called a thread of its own; empty where it has ended meanwhile."""
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
        with open("/proc/self/comm", encoding="utf-8", errors="replace") as file:
            inherited = file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "native thread" if name == inherited else f"native thread {name}"


def _loaded_by(watch: ImportWatch, index: int) -> str:
    """The extension module whose loading has started the native thread number ``index``, as far as counts can tell."""
    counts = [*watch.native_threads, ("", len(_tasks()))]
    first = counts[0][1]
    for (module, _), (_, after) in pairwise(counts):
        if after - first > index:
            return f"started by {module} or what it loads"
    return ""


# Child processes


def _children() -> list[int]:
    """Processes that this one has started and not waited for."""
    found: list[int] = []
    for task in _tasks():
        try:
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended, or the kernel was built without this file
    return found


def _new_children(before: Snapshot, watch: ImportWatch) -> Iterator[Finding]:
    known = before.children | {exemptions.resource_tracker()[0]}
    for pid in _children():
        if pid not in known:
            command = _command(pid)
            shown = " ".join(command)[:80] or "a fork of this one"
            places = [started.place for started in watch.children if started.command in (command, ())]
            yield Finding(f"child process {pid} ({shown})", places[-1] if places else "")


def _command(pid: int) -> tuple[str, ...]:
    """The command line of ``pid``; empty where it has ended, or is a fork."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
        with open("/proc/self/cmdline", "rb") as file:
            ours = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return () if command == ours else tuple(map(os.fsdecode, command.rstrip(b"\0").split(b"\0")))


def end_children(before: Snapshot) -> None:
    """Send SIGTERM to the children that were not there ``before``; the resource tracker ends by itself."""
    for pid in set(_children()) - before.children - {exemptions.resource_tracker()[0]}:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue  # it has just ended


# Descriptors


def _new_descriptors(before: Snapshot, watch: ImportWatch) -> Iterator[Finding]:
    new = {number: target for number, target in descriptors().items() if before.descriptors.get(number) != target}
    if not new:
        return
    new.pop(exemptions.resource_tracker()[1], None)
    for number in exemptions.logging_descriptors():
        new.pop(number, None)
    places = {os.path.realpath(path): place for path, place in watch.opened.items()} if new else {}
    for number, target in sorted(new.items()):
        if finding := _descriptor(number, target, places, watch):
            yield finding


def _descriptor(number: int, target: str, places: dict[str, str], watch: ImportWatch) -> Finding | None:
    """A descriptor in words; None where it has no state, or was closed meanwhile."""
    if target in _WITHOUT_STATE:
        return None
    if target.startswith("socket:"):
        return _socket(number, watch)
    for prefix, what in _UNSHAREABLE_INODES.items():
        if target.startswith(prefix):
            return Finding(f"{what}, descriptor {number}")
    if target.startswith("anon_inode:"):
        return Finding(f"{target.removeprefix('anon_inode:').strip('[]')}, descriptor {number}")
    if target.startswith("/memfd:"):
        return Finding(f"memfd {target.removeprefix('/memfd:').removesuffix(' (deleted)')}")
    return _file(number, target, places.get(target, ""))


def _file(number: int, path: str, place: str) -> Finding | None:
    try:
        mode = os.fstat(number).st_mode
        writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return None
    if stat.S_ISCHR(mode):
        terminal = path.startswith(("/dev/pts/", "/dev/ptmx"))
        return Finding(f"{'terminal' if terminal else 'device'} {path}", place)
    if stat.S_ISFIFO(mode):
        return Finding(f"named pipe {path}", place)
    if _is_locked(number):
        return Finding(f"locked file {path}", place)
    if stat.S_ISDIR(mode) or (not writable and path in _mapped()):
        return None  # a mapped file is read without a position
    return Finding(f"file {path}, open for {'writing' if writable else 'reading'}", place)


def _is_locked(number: int) -> bool:
    """Whether a lock is held through descriptor ``number``, see proc_pid_fdinfo(5)."""
    try:
        with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as file:
            return any(line.startswith("lock:") for line in file)
    except OSError:
        return False  # nothing is known of locks, and a file that is written to counts in any case


def _socket(number: int, watch: ImportWatch) -> Finding | None:
    place = next((place for made, place in watch.sockets.alive() if made.fileno() == number), "")
    try:
        with socket.socket(fileno=os.dup(number)) as duplicate:
            kind = _SOCKET_TYPES.get(duplicate.type, "socket")
            return Finding(_addressed(duplicate, kind), place)
    except OSError:
        return None  # closed meanwhile


def _addressed(made: socket.socket, kind: str) -> str:
    """A socket by its peer, or else by its own address."""
    for how, address_of in (("connected to", made.getpeername), ("at", made.getsockname)):
        try:
            address = address_of()
        except OSError:
            continue
        if isinstance(address, tuple) and len(address) >= 2 and address[1]:
            return f"{kind} {how} {address[0]}:{address[1]}"
        if isinstance(address, (str, bytes)) and address:
            return f"{kind} {how} {os.fsdecode(address)}"
    return kind


# Memory


def _shared_memory() -> list[str]:
    """Mappings that are shared and writable, each as its range and its path."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split(None, 5)
            if fields[1][1] == "w" and fields[1][3] == "s":
                found.append(f"{fields[0]} {fields[5].strip() if len(fields) > 5 else ''}")
    return found


def _mapped() -> frozenset[str]:
    """The paths of files that are mapped."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        return frozenset(line.split(None, 5)[5].strip() for line in file if line.count("/"))


def _new_shared_memory(before: Snapshot) -> Iterator[Finding]:
    for mapping in _shared_memory():
        path = mapping.partition(" ")[2]
        if mapping not in before.shared_memory and not path.startswith(exemptions.SEMAPHORES):
            named = "" if path == "/dev/zero (deleted)" else f" of {path}"  # mmap(2): anonymous
            yield Finding(f"writable shared memory{named}")


# Finalizers and random generators


def _finalizers() -> list[Any]:
    """What weakref.finalize is to call: when an object dies, or the process exits."""
    return list(weakref.finalize._registry)  # type: ignore[attr-defined]


def _new_finalizers(before: Snapshot, watch: ImportWatch) -> Iterator[Finding]:
    for finalizer in _finalizers():
        if finalizer not in before.finalizers and (alive := finalizer.peek()) is not None:
            _object, function, arguments, _named = alive
            if not exemptions.exempt(exemptions.FINALIZERS, name_of(function)):
                about = f" of {str(arguments[0])[:120]}" if arguments and isinstance(arguments[0], str) else ""
                place = next((place for made, place in watch.finalizers if made is finalizer), "")
                yield Finding(f"finalizer {name_of(function)}{about}", place)
    for name in exemptions.multiprocessing_finalizers():
        yield Finding(f"finalizer {name} of multiprocessing")


def remove_temporary(before: Snapshot) -> None:
    """Clean up each TemporaryDirectory that was not there ``before``."""
    kind = getattr(sys.modules.get("tempfile"), "TemporaryDirectory", None)
    for finalizer in _finalizers():
        alive = finalizer.peek()
        if finalizer not in before.finalizers and alive and type(alive[0]) is kind:
            alive[0].cleanup()


def name_of(function: Any) -> str:
    """The name of a callable, with its module."""
    named = getattr(function, "__func__", function)
    named = getattr(named, "func", named)  # functools.partial
    module = getattr(named, "__module__", None) or type(named).__module__
    return f"{module}.{getattr(named, '__qualname__', type(named).__qualname__)}"


def _generators() -> list[Any]:
    """Random generators with a state of their own: those of ``random``, and of NumPy where that is loaded."""
    kinds: tuple[type, ...] = (random.Random,)
    if numpy := sys.modules.get("numpy.random"):
        kinds += (numpy.Generator, numpy.RandomState)
    # By type(): isinstance would ask lazy proxies for their __class__, and thereby evaluate them.
    objects = gc.get_objects()
    wanted = {kind for kind in set(map(type, objects)) if issubclass(kind, kinds)}
    return [thing for thing in objects if type(thing) in wanted]


def _new_generators(before: Snapshot, watch: ImportWatch) -> Iterator[Finding]:
    known = {id(generator) for generator in before.generators}
    for generator in _generators():
        place = watch.generators.of(generator)
        if id(generator) in known or place == STDLIB or exemptions.generator(generator):
            continue
        kind = type(generator)
        yield Finding(f"random generator {kind.__module__}.{kind.__qualname__}", place or _holder(generator))
    if random.getstate() != before.random_state:
        yield Finding("changed state of the module random", watch.seeded)
    if exemptions.numpy_state_is_changed():
        yield Finding("changed state of numpy.random")


def _holder(thing: object) -> str:
    """The global name under which a module holds ``thing``; empty where none does."""
    for name, module in list(sys.modules.items()):
        try:
            names = dict(object.__getattribute__(module, "__dict__"))  # getattr would load a lazy module
        except AttributeError:
            continue
        for attribute, value in names.items():
            if value is thing:
                return f"{name}.{attribute}"
    return ""
