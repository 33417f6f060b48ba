"""A trial of the application for --check-config: loaded in a child that ends with it.

Nothing of the application runs in the caller, and a load that exits, crashes or hangs is told as what it is.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError, LoadError
from forkserver.linux import privileges, syscalls, terminal
from forkserver.linux.process_limits import why_refused
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import application

if TYPE_CHECKING:
    from forkserver.worker.fork_safety import verdict
    from forkserver.worker.loading import loader

_MESSAGE_CHARACTERS = 4000
_REPORT_BYTES = 64 * 1024  # a pipe holds as much, so the child never waits for us: pipe(7)


def load_in_child(settings: Settings) -> str:
    """Load the application and the classes that ``settings`` name, and return a sentence of success.

    Raises ConfigError and LoadError, as the child found them, and LoadError where it ended otherwise or did not end
    within ``boot_timeout``.
    """
    wanted = settings.credentials()
    # The worker's own way, and its rooms: before the fork, as a template opens them, so that the import is measured
    # alone; what the snapshot touches is no memory of the import's either.
    from forkserver.worker.loading import late_modules, loader

    application.set_environment(settings)
    loader.preload_modules(settings)
    if wanted.changes:
        late_modules.load_for_application()
    reading, writing = os.pipe()
    imported, pid = _fork(reading, writing)
    if pid == 0:
        _child(settings, wanted, imported, writing)
    os.close(writing)
    try:
        return _outcome(settings, reading, _wait(pid, settings))
    finally:
        os.close(reading)


def _fork(reading: int, writing: int) -> tuple[verdict.Import, int]:
    """Look at what there is, the ends of the pipe included, then fork; the pid is 0 in the child.

    Raises ForkserverError with the pipe closed.
    """
    from forkserver.worker.fork_safety import verdict
    from forkserver.worker.fork_safety.sharing_advice import UNSEEN

    try:
        imported = verdict.Import()
        sys.stdout.flush()  # or the child would print what is buffered here a second time
        return imported, syscalls.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        if error.filename:
            why = f"{error.filename} cannot be read ({error.strerror}), so {UNSEEN}; mount proc at /proc"
        else:
            why = f"no process to try the application in: {why_refused(error)}; try again"
        raise ForkserverError(why) from None


def _child(settings: Settings, wanted: privileges.Credentials, imported: verdict.Import, writing: int) -> NoReturn:
    status, lines = 1, ["", ""]
    try:
        lines[0] = _load(settings, wanted, imported, writing)
        status = 0
    except ForkserverError as error:
        status, lines = error.exit_status, [str(error), getattr(error, "traceback", "")]
    except KeyboardInterrupt:
        lines[0] = "interrupted"
    except BaseException as error:  # reported as it is: nothing may unwind into the caller's code from here
        lines = [f"cannot try the application: {error}", traceback.format_exc()]
    try:
        os.write(writing, _report(status, *lines))
        sys.stdout.flush()
    finally:
        os._exit(status)  # threads that the import started do not hold us


def _load(settings: Settings, wanted: privileges.Credentials, imported: verdict.Import, writing: int) -> str:
    if settings.encrypted:
        from forkserver.tls.contexts import TlsContexts

        TlsContexts(settings)  # by the rights that the master has: the application's user may not read keys
    terminal.leave(another_user=wanted.changes)
    wanted.take()
    application.enter(settings)
    code, advice = _import(settings, imported, writing)
    kind = type(code.app)
    return f"the settings are good, and {settings.app} loads ({kind.__module__}.{kind.__qualname__})\n{advice}"


def _import(settings: Settings, imported: verdict.Import, writing: int) -> tuple[loader.Code, str]:
    """Import the application as a template does; what was loaded, and whether workers would share it."""
    from forkserver.worker.fork_safety import sharing_advice, verdict
    from forkserver.worker.loading import own_descriptors

    gc.disable()
    memory, began = sharing_advice.written_memory(), syscalls.clock()
    with imported.watched():
        code = own_descriptors.load(settings, ErrorLog("-", settings.log_level, "trial"), (writing,))
    seconds, after = syscalls.clock() - began, sharing_advice.written_memory()
    findings = imported.findings()
    imported.give_up()
    again = 0 if findings else sharing_advice.written_by_a_fork()
    known = None if memory is None or after is None or again is None else after - memory - again
    cost = sharing_advice.Cost(seconds, known)
    return code, sharing_advice.advice(settings.preload, verdict.each(findings), cost)


def _report(status: int, message: str, details: str) -> bytes:
    """The child's report as JSON; a long traceback keeps its end, where the error stands."""
    report = [status, message[:_MESSAGE_CHARACTERS], details[-8000:]]
    return json.dumps(report, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _wait(pid: int, settings: Settings) -> int:
    """The child's wait status. Raises LoadError where it outlasts ``boot_timeout``; it is gone in any case."""
    pidfd = os.pidfd_open(pid)
    try:
        ended = syscalls.has_event(pidfd, select.POLLIN, settings.boot_timeout)
    finally:
        syscalls.kill_exactly(pidfd, signal.SIGKILL)
        os.close(pidfd)
        status = os.waitpid(pid, 0)[1]
    if not ended:
        raise LoadError(
            f"application {settings.app!r} was still loading after boot_timeout, {settings.boot_timeout:g} s; "
            "raise that, or find what its import waits for"
        )
    return status


def _outcome(settings: Settings, reading: int, status: int) -> str:
    """The child's sentence, or its error raised again."""
    os.set_blocking(reading, False)  # what the application forked may hold the other end for ever
    try:
        report = os.read(reading, _REPORT_BYTES)
    except BlockingIOError:
        report = b""
    if not report:
        how = syscalls.how_it_ended(status)
        raise LoadError(f"application {settings.app!r} ended its process while it was loading: {how}")
    exit_status, message, details = json.loads(report)
    if exit_status == 0:
        return str(message)
    if exit_status == ConfigError.exit_status:
        raise ConfigError(message)
    raise LoadError(message, details) if exit_status == LoadError.exit_status else ForkserverError(message)
