"""The hooks module: functions of the application's own at the turning points of a worker's life.

A hook that raises is logged with its traceback and costs nothing else. One that hangs is seen as a hang. What cannot be
a hook is refused when the module is loaded.
"""

from __future__ import annotations

import os
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
NAMES: Final = (POST_FORK, WORKER_READY, WORKER_EXIT)


class HookWorker(NamedTuple):
    """What a hook is told: which worker this is, counted from 1, of which generation of the code, and its pid."""

    number: int
    generation: int
    pid: int


Hook = Callable[[HookWorker], object]


class HookCalls:
    """The turning points in the life of ``worker``, each to be told once."""

    def __init__(self, called: Mapping[str, Hook], worker: HookWorker, row: Row, log: ErrorLog) -> None:
        self._hooks = called
        self._worker = worker
        self._row = row
        self._log = log

    def forked(self) -> None:
        """It lives, and the application is there: post_fork. ``boot_timeout`` bounds it."""
        if POST_FORK in self._hooks:
            # It may hang as an import may: it must be possible to see where it stands, and to end it.
            signals.rest()
            signals.unblock()
            self._call(POST_FORK)

    def ready(self) -> None:
        """The master knows that it is ready: worker_ready."""
        self._call_in_time(WORKER_READY)

    def leaving(self) -> None:
        """Its last answer is out: worker_exit."""
        self._call_in_time(WORKER_EXIT)

    def _call_in_time(self, name: str) -> None:
        """Call a hook in view of the master: for ``timeout`` it is what a call of the application is."""
        if name not in self._hooks or self._worker.pid != os.getpid():
            return  # what the application has forked is no worker
        with self._row.hook(f"hook {name}".encode()):
            self._call(name)

    def _call(self, name: str) -> None:
        try:
            self._hooks[name](self._worker)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: whether a worker ends is not its to say
            self._log.exception(f"hook {name}: {load_errors.one_line(error)}; the worker goes on", error)


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
    what = f"hooks {spec!r}: {name}"
    if not callable(function):
        raise ConfigError(f"{what} is {load_errors.a(function)}, not callable; write def {name}(worker)")
    if load_errors.refuses_call(function, (None,), {}):
        raise ConfigError(f"{what} cannot be called with one argument, the worker; write def {name}(worker)")
    hook: Hook = function
    return hook
