"""An import that must leave open the descriptors which this process goes on by.

An import that closes every number, as code that becomes a daemon does, takes the way to the master from this process,
or puts a file of its own there: nothing may be reported then, so the reason is written to the log and the process ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from forkserver.config.settings import Settings
from forkserver.errors import LoadError
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import loader

_STANDARD = (0, 1, 2)  # the application may redirect these


def load(settings: Settings, log: ErrorLog, numbers: Iterable[int]) -> loader.Code:
    """As ``loader.load``; the process ends where the import has closed or replaced one of ``numbers``, or the log's."""
    files = {number: _file(number) for number in (*numbers, *log.descriptors()) if number not in _STANDARD}
    try:
        return loader.load(settings, log)
    finally:
        if closed := [number for number, file in sorted(files.items()) if _file(number) != file]:
            _end(settings.app, log, closed)


def _end(app: str | None, log: ErrorLog, closed: list[int]) -> None:
    if not set(closed).isdisjoint(log.descriptors()):
        log = ErrorLog("-", "error", log.process)
    log.error(
        f"application {app!r}: its import has closed descriptors of forkserver's ({', '.join(map(str, closed))}), "
        "without which this process cannot go on; have it close only what it has opened, not every number"
    )
    os._exit(LoadError.exit_status)


def _file(number: int) -> tuple[int, int] | None:
    """Device and inode; None where it is not open."""
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino
