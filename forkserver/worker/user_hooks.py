"""The hooks module: functions of the application's own at the turning points in the life of its code and its workers.

A hook that raises is logged with its traceback and costs nothing else. One that hangs is seen as a hang. What cannot be
a hook is refused when the module is loaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from forkserver.errors import ConfigError
from forkserver.ipc.scoreboard import Row
from forkserver.linux import signals
from forkserver.linux.common.records import NamedTuple
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import load_errors
from forkserver.worker.loading.application import load_module

POST_FORK: Final = "post_fork"
WORKER_READY: Final = "worker_ready"
WORKER_EXIT: Final = "worker_exit"
GENERATION_LOADED: Final = "generation_loaded"
REQUEST_TIMEOUT: Final = "request_timeout"
_ARGUMENTS: Final = {
    GENERATION_LOADED: ("generation",),
    POST_FORK: ("worker",),
    WORKER_READY: ("worker",),
    REQUEST_TIMEOUT: ("worker", "request"),
    WORKER_EXIT: ("worker",),
}
NAMES: Final = tuple(_ARGUMENTS)

# Why a worker leaves, where it knows that itself; the master says the others (Fleet.reason_to_leave).
TIMEOUT: Final = "timeout"
NOT_READY: Final = "not ready"
STOP: Final = "stop"
MASTER_GONE: Final = "master gone"


class HookWorker(NamedTuple):
    """What a hook is told: which worker this is, counted from 1, of which generation of the code, and its pid.

    ``reason`` is why it leaves, in a word or two, and ``status`` what it exits with, both for ``worker_exit`` only.
    """

    number: int
    generation: int
    pid: int
    reason: str = ""
    status: int | None = None


class HookGeneration(NamedTuple):
    """What ``generation_loaded`` is told: which code this is, and the process that has imported it.

    ``shared`` says whether that is for all workers, which are forked from this process, or for one.
    """

    number: int
    shared: bool
    pid: int


class HookRequest(NamedTuple):
    """What ``request_timeout`` is told of the call that lasts too long: ``line`` is its request line without the query.

    ``client`` is empty where it has gone; ``stack`` is where the call stands, a line for each frame, the innermost
    first.
    """

    line: str
    id: str
    client: str
    seconds: float
    stack: str


Hook = Callable[..., object]


class HookCalls:
    """The turning points in the life of ``worker``, each to be told once."""

    def __init__(self, called: Mapping[str, Hook], worker: HookWorker, row: Row, log: ErrorLog) -> None:
        self._hooks = called
        self._worker = worker
        self._row = row
        self._log = log
        self._threads: list[threading.Thread] = []  # that call request_timeout

    def forked(self) -> None:
        """It lives, and the application is there: post_fork. ``boot_timeout`` bounds it."""
        if POST_FORK in self._hooks:
            # It may hang as an import may: it must be possible to see where it stands, and to end it.
            signals.rest()
            signals.unblock()
            self._call(POST_FORK, self._worker)

    def ready(self) -> None:
        """The master knows that it is ready: worker_ready."""
        self._call_in_time(WORKER_READY, self._worker)

    @property
    def wants_timeouts(self) -> bool:
        """Whether ``timed_out`` does anything."""
        return REQUEST_TIMEOUT in self._hooks

    def timed_out(self, request: HookRequest) -> None:
        """A call lasts too long and is to be ended: request_timeout, in a thread of its own, for the loop goes on."""
        thread = threading.Thread(
            target=self._call, args=(REQUEST_TIMEOUT, self._worker, request), name=REQUEST_TIMEOUT, daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._log.error(f"hook {REQUEST_TIMEOUT} is not called for {request.line}: {error}; lower --threads")
        else:
            self._threads.append(thread)

    def leaving(self, reason: str, status: int) -> None:
        """Its last answer is out: worker_exit, once request_timeout has returned."""
        if self._worker.pid != os.getpid():
            return  # what the application has forked is no worker
        if self._threads:
            with self._row.hook(f"hook {REQUEST_TIMEOUT}".encode()):
                for thread in self._threads:
                    thread.join()
        self._call_in_time(WORKER_EXIT, self._worker._replace(reason=reason, status=status))

    def _call_in_time(self, name: str, worker: HookWorker) -> None:
        """Call a hook in view of the master: for ``timeout`` it is what a call of the application is."""
        if name in self._hooks:
            with self._row.hook(f"hook {name}".encode()):
                self._call(name, worker)

    def _call(self, name: str, *arguments: object) -> None:
        call(self._hooks, name, arguments, self._log, "the worker goes on")


def tell_loaded(hooks: Mapping[str, Hook], generation: HookGeneration, log: ErrorLog) -> None:
    """The code is imported: generation_loaded. ``boot_timeout`` bounds it, with the import."""
    call(hooks, GENERATION_LOADED, (generation,), log, "the code is used all the same")


def call(hooks: Mapping[str, Hook], name: str, arguments: tuple[object, ...], log: ErrorLog, else_: str) -> None:
    """Call the hook ``name``, if there is one. What it raises goes to the log; ``else_`` is what follows from it."""
    if name not in hooks:
        return
    try:
        hooks[name](*arguments)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: whether a process ends is not its to say
        log.exception(f"hook {name}: {load_errors.one_line(error)}; {else_}", error)


def load(spec: str | None, log: ErrorLog) -> dict[str, Hook]:
    """The hooks of the module that ``spec`` names, by name. Raises ConfigError and LoadError."""
    if spec is None:
        return {}
    # What the module holds, not what it would make up when asked: a __getattr__ has an answer for any name.
    module = vars(load_module(spec, "hooks"))
    found: dict[str, Hook] = {name: _checked(spec, name, module[name]) for name in NAMES if name in module}
    if not found:
        log.warning(f"hooks {spec!r}: none of {', '.join(NAMES)} is in this module, so nothing of it is called")
    return found


def _checked(spec: str, name: str, function: Any) -> Hook:
    arguments = _ARGUMENTS[name]
    what, way_out = f"hooks {spec!r}: {name}", f"write def {name}({', '.join(arguments)})"
    if not callable(function):
        raise ConfigError(f"{what} is {load_errors.a(function)}, not callable; {way_out}")
    if load_errors.refuses_call(function, (None,) * len(arguments), {}):
        count = "one argument" if len(arguments) == 1 else f"{len(arguments)} arguments"
        raise ConfigError(f"{what} cannot be called with {count}, the {' and the '.join(arguments)}; {way_out}")
    hook: Hook = function
    return hook
