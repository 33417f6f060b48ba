"""The first request, asked before workers are forked: what it loads and builds is shared, and keeps no client waiting.

A child is asked first. The process that workers are forked from is asked only where the child has left nothing behind
that does not survive a fork. Whether the application is ready, each worker asks for itself (ready_path).

Source: fork(2).
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import Final

from forkserver.config import loading
from forkserver.config.settings import Settings, defaults
from forkserver.ipc.channel import close_all
from forkserver.linux import signals, syscalls
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import loader

_FINE: Final = b"+"
_REASON_BYTES: Final = 2000
_STACKS_SECONDS: Final = 0.5  # to write them
_EVERY_INTERFACE: Final = ("0.0.0.0", "::", "*")


def warm(code: loader.Code, settings: Settings, log: ErrorLog, path: str, seconds: float) -> str:
    """Have the application asked for ``path`` in this process; the reason where it was not, else empty.

    A child is asked first, and has ``seconds`` to answer. To be called where no thread runs and nothing is served.
    """
    return _scouted(code, settings, log, path, seconds) or _asked(code, settings, log, path)


def _scouted(code: loader.Code, settings: Settings, log: ErrorLog, path: str, seconds: float) -> str:
    """What speaks against asking in this process. No ``finally`` here: the child leaves through this frame too."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        pid = signals.spawn(lambda: _scout(theirs, code, settings, log, path))
    except OSError as error:
        close_all([ours, theirs])
        return f"no child could be asked first: {error.strerror}"
    os.close(theirs)
    # None where it hangs; nor is the end of the pipe waited for, which a process of the application may hold.
    said = os.read(ours, _REASON_BYTES) if _speaks(ours, pid, seconds) else None
    if said is None:
        syscalls.kill(pid, signal.SIGKILL)
    os.close(ours)
    status = syscalls.wait_for(pid)
    if said is None:
        return f"it was not answered within {seconds:.1f} s, half of what the import had left of boot_timeout"
    if not said:
        return f"the child that was asked first ended: {syscalls.how_it_ended(status)}"
    return "" if said == _FINE else said.decode(errors="replace")


def _speaks(ours: int, pid: int, seconds: float) -> bool:
    """Whether the child says something in time; where it does not, its stacks go to the log."""
    if syscalls.has_event(ours, select.POLLIN, seconds):
        return True
    syscalls.kill(pid, signal.SIGUSR2)
    return syscalls.has_event(ours, select.POLLIN, _STACKS_SECONDS)


def _scout(told: int, code: loader.Code, settings: Settings, log: ErrorLog, path: str) -> int:
    """The child: ask, look what is left, say so, end."""
    from forkserver.worker.fork_safety import process_snapshot, verdict  # late: the master never needs them

    syscalls.die_with_parent(signal.SIGKILL)
    signals.rest()
    signals.unblock()
    before = process_snapshot.ProcessSnapshot.take()
    reason = _asked(code, settings, log, path)
    if not reason and (left := verdict.kept(before)):
        reason = f"it leaves what processes cannot share: {left}"
    os.write(told, reason.encode("utf-8", "backslashreplace")[:_REASON_BYTES] or _FINE)
    os._exit(0)


def _asked(code: loader.Code, settings: Settings, log: ErrorLog, path: str) -> str:
    """Ask as a worker asks for ``ready_path``; what is wrong with the answer, or empty."""
    try:
        status = _status(code, settings, log, path)
    except Exception as error:  # whatever the application's classes raise is theirs
        return f"it was not answered: {error}"
    return "" if 200 <= status < 400 else f"it was answered with status {status}, not 2xx or 3xx"


def _status(code: loader.Code, settings: Settings, log: ErrorLog, path: str) -> int:
    """By a server of the application's class on an address that no client reaches; one thread is enough."""
    settings = defaults(**loading.snapshot(settings).values | {"threads": 1})
    httpd = code.server_class(("localhost", 0), code.handler_class, bind_and_activate=False)
    try:
        httpd.adopt([(1, PlainSocket(socket.AF_UNIX))], None, settings, log, AccessLog(None), None, None)
        httpd.server_name, httpd.server_port = _name(settings)
        httpd.setup_environ()
        httpd.set_app(loader.mounted(code.app, settings))
        status: int = httpd.check(path)
        return status
    finally:
        httpd.server_close()


def _name(settings: Settings) -> tuple[str, int]:
    """The name and port of the first address of ``bind``, for Host."""
    address = settings.bind[0]
    if address.startswith(("unix:", "fd:")):
        return "localhost", 80
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return socket.gethostname() if host in _EVERY_INTERFACE else host, int(port)
