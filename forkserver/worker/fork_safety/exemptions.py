"""What an import may leave behind although processes share it, each with the reason why that does no harm.

The list is short on purpose. An entry names one thing of one library, never a whole kind, and says what makes it
harmless, so that a reader can check it against the library's source.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import socket
import stat
import sys
from collections.abc import Iterable
from typing import Any, Final

from forkserver.linux.common.records import NamedTuple
from forkserver.linux.process_info import memory_mappings
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.worker.loading import log_config


class Exemption(NamedTuple):
    """A callable or a module by its dotted name; names below it are meant too."""

    name: str
    reason: str


EXIT_CALLBACKS: Final = (  # by the callback
    Exemption("PIL._imaging.clear_cache", "gives the process's own memory back"),
    Exemption("billiard.util._exit_function", "as multiprocessing's: ends children of the calling process alone"),
    Exemption("certifi.core.exit_cacert_ctx", "closes a context that holds nothing where certifi is no zip file"),
    Exemption("matplotlib._pylab_helpers.Gcf.destroy_all", "forgets the process's own figures"),
    Exemption("sentry_sdk.integrations.atexit", "sends what the calling process has queued"),
    Exemption("sentry_sdk.profiler.continuous_profiler", "stops a profiler, which runs in the calling process alone"),
)
FINALIZERS: Final = (  # by the function that is to be called
    Exemption("django.dispatch.dispatcher.Signal", "forgets a receiver of the process's own signals"),
    Exemption("sqlalchemy.util.langhelpers._remove_linecache_entry", "forgets source text kept for tracebacks"),
)
IDENTITIES: Final = (  # by the module that asks
    Exemption("ZODB.blob", "the pid is shown in log lines"),
    Exemption("joblib._multiprocessing_helpers", "the pid names a semaphore that is removed at once"),
    Exemption("opentelemetry.context", "names keys of a dictionary that each process has for itself"),
    Exemption("psutil._pslinux", "looks which files /proc has"),
    Exemption("redis.connection", "a pool compares the pid at each use, and begins anew in another process"),
)

MULTIPROCESSING_FINALIZERS: Final = (  # by the function; CPython 3.14 makes locks for its process "forkserver", named
    Exemption("SemLock._cleanup", "removes a lock's name, in the process that made the lock alone"),
)

SEMAPHORES: Final = "/dev/shm/sem."  # sem_overview(7): multiprocessing.Lock() and its like are made to be shared


def exempt(exemptions: Iterable[Exemption], name: str) -> bool:
    """Whether ``name`` is one of ``exemptions`` or below one."""
    return any(f"{name}.".startswith(f"{each.name}.") for each in exemptions)


# The standard library's own


def resource_tracker() -> tuple[int, int]:
    """The pid and the descriptor of multiprocessing's resource tracker, -1 where it does not run.

    It is made to be shared: it ends when the last process has closed its pipe.
    """
    module = sys.modules.get("multiprocessing.resource_tracker")
    tracker = getattr(module, "_resource_tracker", None)
    pid, number = getattr(tracker, "_pid", None), getattr(tracker, "_fd", None)
    return (-1 if pid is None else pid, -1 if number is None else number)


def multiprocessing_finalizers() -> list[str]:
    """Names of what multiprocessing.util.Finalize is to call in this process, but for what is exempt."""
    module = sys.modules.get("multiprocessing.util")
    registry = dict(getattr(module, "_finalizer_registry", {}))
    names = (getattr(each._callback, "__qualname__", repr(each._callback)[:80]) for each in registry.values())
    return [name for name in names if not exempt(MULTIPROCESSING_FINALIZERS, name)]


def logging_descriptors() -> set[int]:
    """Descriptors of log handlers that processes may share.

    A file that is appended to: the kernel puts each record behind the last (open(2), O_APPEND), and neither class
    renames it. A datagram socket: each record is one datagram, and nothing is received. Locks of handlers are renewed
    at a fork by logging itself. Handlers that rotate their file do not count: each process would rename it. What
    ``log_config`` has made counts in any case, for workers open it again.
    """
    found = log_config.descriptors()
    logging = sys.modules.get("logging")
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference()
        if type(handler) is getattr(logging, "FileHandler", None) or _is_of("WatchedFileHandler", handler):
            number = _number(getattr(handler, "stream", None))
            if number >= 0 and _is_appended_to(number):
                found.add(number)
        elif _is_of("SysLogHandler", handler) or _is_of("DatagramHandler", handler):
            log_socket = getattr(handler, "socket", None) or getattr(handler, "sock", None)
            if isinstance(log_socket, PlainSocket) and log_socket.type == socket.SOCK_DGRAM:
                found.add(log_socket.fileno())
    return found


def _is_of(name: str, handler: object) -> bool:
    """Whether ``handler`` is of that very class of logging.handlers, if that is loaded."""
    kind = getattr(sys.modules.get("logging.handlers"), name, None)
    return kind is not None and type(handler) is kind


def _number(stream: Any) -> int:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return -1  # not open yet, not open any more, or no file


def _is_appended_to(number: int) -> bool:
    return bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND) and stat.S_ISREG(os.fstat(number).st_mode)


# Random generators


def generator(thing: object) -> bool:
    """Whether a random generator may be shared."""
    if isinstance(thing, random.SystemRandom):
        return True  # it has no state: the kernel is asked each time
    if thing is random._inst:
        return True  # random seeds it anew in each child
    tempfile = sys.modules.get("tempfile")
    names = getattr(tempfile, "_name_sequence", None)
    if names is not None and thing is getattr(names, "_rng", None):
        return True  # tempfile makes a new one where the pid has changed
    primes = getattr(sys.modules.get("more_itertools.recipes"), "_private_randrange", None)
    if thing is getattr(primes, "__self__", None):
        return True  # it only tries with it whether a number is a prime; setuptools has a copy of the library
    return thing is _numpy_global()  # seeded anew in each worker, see reseed_numpy


def _numpy_global() -> Any:
    """NumPy's global generator, or None."""
    return getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)


def numpy_state_is_changed() -> bool:
    """Whether NumPy's global generator was seeded or used: fresh, it has a seed sequence and no block begun."""
    generator = _numpy_global()
    if generator is None:
        return False
    try:
        state = generator.get_state(legacy=False)
        untouched = state["bit_generator"] == "MT19937" and state["state"]["pos"] == _MT19937_FRESH
        return not (untouched and getattr(generator._bit_generator, "seed_seq", None) is not None)
    except (AttributeError, KeyError, TypeError):
        return False  # another NumPy than those known


_MT19937_FRESH: Final = 623


def reseed_numpy() -> None:
    """In a worker: seed NumPy's global generator anew, as ``random`` does its own, unless the application has."""
    generator = _numpy_global()
    if generator is not None and not numpy_state_is_changed():
        generator.seed()


# Threads of C libraries

_OPENBLAS_PREFIXES: Final = ("", "scipy_")
_OPENBLAS_SUFFIXES: Final = ("", "64_", "_64")


def pool_threads() -> int:
    """How many threads the loaded copies of OpenBLAS have.

    OpenBLAS ends its threads before a fork and starts them again at the next use, in both processes (pthread_atfork in
    its driver/others/memory.c). Each copy has one thread fewer than it computes with: the caller is one, too. After a
    fork, until that next use, it has none: then those that there are belong to others.
    """
    count = 0
    for path in _mapped_libraries("openblas"):
        library = ctypes.CDLL(path)  # loaded already: dlopen(3) gives the same one
        if not _openblas_runs(library):
            continue
        for prefix in _OPENBLAS_PREFIXES:
            for suffix in _OPENBLAS_SUFFIXES:
                if threads := getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None):
                    count += max(threads() - 1, 0)
    return count


def _openblas_runs(library: ctypes.CDLL) -> bool:
    """Whether the threads of this copy exist; as they do, but after a fork, where a build does not tell."""
    try:
        return bool(ctypes.c_int.in_dll(library, "blas_server_avail").value)
    except ValueError:
        return True


def _mapped_libraries(name: str) -> set[str]:
    """Paths of the mapped files whose name has ``name`` in it."""
    return {each.path for each in memory_mappings() if name in os.path.basename(each.path).lower()}
