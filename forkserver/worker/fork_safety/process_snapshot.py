"""What exists in this process that two processes cannot share, and did not exist before: the facts, each in words.

``ProcessSnapshot.take()`` before an import or a request, ``found(snapshot)`` after it. Looked at are threads, child
processes, descriptors, writable shared memory, interval timers, finalizers and random generators.

Source: proc(5), fork(2), https://docs.python.org/3/library/weakref.html#weakref.finalize.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from forkserver.linux.common.records import NamedTuple
from forkserver.linux.process_info import memory_mappings
from forkserver.worker.fork_safety import exemptions
from forkserver.worker.fork_safety.descriptors import Descriptor, descriptors, new_descriptors
from forkserver.worker.fork_safety.finding import Finding
from forkserver.worker.fork_safety.import_watch import STDLIB, ImportWatch


class ProcessSnapshot(NamedTuple):
    """What existed before. Objects, not their ids: an id may be used again."""

    descriptors: dict[int, Descriptor]
    threads: frozenset[int]
    children: frozenset[int]
    shared_memory: frozenset[str]
    finalizers: frozenset[Any]
    generators: tuple[Any, ...]
    random_state: object

    @classmethod
    def take(cls) -> ProcessSnapshot:
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


def found(before: ProcessSnapshot, watch: ImportWatch) -> list[Finding]:
    """What was not there ``before``; ``watch`` knows places. Raises OSError where /proc cannot be read."""
    if left := _look(before, watch):
        left.clear()
        gc.collect()  # what only waits for the collector is not left behind; without findings no import pays for it
        left = _look(before, watch)
    return left


def _look(before: ProcessSnapshot, watch: ImportWatch) -> list[Finding]:
    return [
        *_new_threads(before, watch),
        *_new_children(before, watch),
        *new_descriptors(before.descriptors, watch),
        *_new_shared_memory(before),
        *_interval_timers(),
        *_new_finalizers(before, watch),
        *_new_generators(before, watch),
    ]


# Threads


def _tasks() -> list[int]:
    """The threads of this process, by the kernel's ids."""
    return sorted(map(int, os.listdir("/proc/self/task")))


def _new_threads(before: ProcessSnapshot, watch: ImportWatch) -> Iterator[Finding]:
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


def _new_children(before: ProcessSnapshot, watch: ImportWatch) -> Iterator[Finding]:
    known = before.children | {exemptions.resource_tracker()[0]}
    for pid in _children():
        if pid not in known:
            command = _command(pid)
            shown = " ".join(command)[:80] or "a fork of this one"
            places = [started.place for started in watch.children if started.command in (command, ())]
            if command == _BEGINS:
                shown, places = "a program that begins", [started.place for started in watch.children]
            yield Finding(f"child process {pid} ({shown})", places[-1] if places else "")


_BEGINS: Final = ("",)  # a command line that the kernel has not written yet, at the end of execve(2)


def _command(pid: int) -> tuple[str, ...]:
    """The command line of ``pid``; empty where it has ended, or is a fork."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
        with open("/proc/self/cmdline", "rb") as file:
            ours = file.read()
    except OSError:  # it has ended, or it is another user's and /proc is mounted with hidepid
        return ()
    return () if command == ours else tuple(map(os.fsdecode, command.rstrip(b"\0").split(b"\0")))


def end_children(before: ProcessSnapshot) -> None:
    """Send SIGTERM to the children that were not there ``before``; the resource tracker ends by itself."""
    for pid in set(_children()) - before.children - {exemptions.resource_tracker()[0]}:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue  # it has just ended


# Memory


def _shared_memory() -> list[str]:
    """Mappings that are shared and writable, each as its range and its path."""
    mappings = memory_mappings()
    return [f"{each.range} {each.path}" for each in mappings if each.rights[1] == "w" and each.rights[3] == "s"]


def _new_shared_memory(before: ProcessSnapshot) -> Iterator[Finding]:
    for mapping in _shared_memory():
        path = mapping.partition(" ")[2]
        if mapping not in before.shared_memory and not path.startswith(exemptions.SEMAPHORES):
            named = "" if path == "/dev/zero (deleted)" else f" of {path}"  # mmap(2): anonymous
            yield Finding(f"writable shared memory{named}")


# Timers


def _interval_timers() -> Iterator[Finding]:
    """Those that run: a child does not inherit them, so no worker would ever hear of one (setitimer(2))."""
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"):
        if signal.getitimer(getattr(signal, name))[0]:
            yield Finding(f"interval timer {name}")


# Finalizers and random generators


def _finalizers() -> list[Any]:
    """What weakref.finalize is to call: when an object dies, or the process exits."""
    return list(weakref.finalize._registry)  # type: ignore[attr-defined]


def _new_finalizers(before: ProcessSnapshot, watch: ImportWatch) -> Iterator[Finding]:
    for finalizer in _finalizers():
        if finalizer not in before.finalizers and (alive := finalizer.peek()) is not None:
            _object, function, arguments, _named = alive
            if not exemptions.exempt(exemptions.FINALIZERS, name_of(function)):
                about = f" of {str(arguments[0])[:120]}" if arguments and isinstance(arguments[0], str) else ""
                place = next((place for made, place in watch.finalizers if made is finalizer), "")
                yield Finding(f"finalizer {name_of(function)}{about}", place)
    for name in exemptions.multiprocessing_finalizers():
        yield Finding(f"finalizer {name} of multiprocessing")


def remove_temporary(before: ProcessSnapshot) -> None:
    """Clean up each TemporaryDirectory that was not there ``before``."""
    kind = getattr(sys.modules.get("tempfile"), "TemporaryDirectory", None)
    for finalizer in _finalizers():
        alive = finalizer.peek()
        if finalizer not in before.finalizers and alive and type(alive[0]) is kind:
            alive[0].cleanup()


def name_of(function: Any) -> str:
    """The name of a callable, with its module; of its class where it does not tell: a proxy may raise."""
    try:
        named = getattr(function, "__func__", function)
        named = getattr(named, "func", named)  # functools.partial
        module = getattr(named, "__module__", None) or type(named).__module__
        return f"{module}.{getattr(named, '__qualname__', type(named).__qualname__)}"
    except Exception:
        return f"{type(function).__module__}.{type(function).__qualname__}"


def _generators() -> list[Any]:
    """Random generators with a state of their own: those of ``random``, and of NumPy where that is loaded."""
    kinds: tuple[type, ...] = (random.Random,)
    if numpy := sys.modules.get("numpy.random"):
        kinds += (numpy.Generator, numpy.RandomState)
    # By type(): isinstance would ask lazy proxies for their __class__, and thereby evaluate them.
    objects = gc.get_objects()
    wanted = {kind for kind in set(map(type, objects)) if issubclass(kind, kinds)}
    return [thing for thing in objects if type(thing) in wanted]


def _new_generators(before: ProcessSnapshot, watch: ImportWatch) -> Iterator[Finding]:
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
