"""The error log and the access log, which a reload may move and USR1 opens again.

A reload opens the new logs beside the old ones, which the workers of the old code still write to. ``settle`` closes one
pair: the old one once the new code serves, or the new one where it fails. A log that cannot be opened again goes on in
its old file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from forkserver.config.settings import Settings
from forkserver.errors import ForkserverError
from forkserver.linux.common.records import NamedTuple
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.syslog import names_file

SETTINGS: Final = ("error_log", "log_level", "log_format", "access_log", "access_log_format")


class ReopenedLogs(NamedTuple):
    """Whether error log and access log are files, and the ``descriptors`` of those that are, in this order."""

    error: bool
    access: bool
    descriptors: list[int]


class LogSet:
    """Both logs as ``settings`` have them; ``access`` is a descriptor of the access log that is open already, or -1.

    ``inherited`` says that the program before has written it. Raises ForkserverError where the access log cannot be
    opened.
    """

    def __init__(self, settings: Settings, error: ErrorLog, access: int = -1, inherited: bool = False) -> None:
        self.error = error
        self.access = _access_log(settings, error, access, inherited)
        if self.access.away:
            error.warning(self.access.away)
        self._settings = settings
        self.opened: Callable[[ErrorLog], None] = _nothing  # called with an error log that was opened, or opened again
        self.kept = 0  # files that could not be opened again the last time, and are written on
        self._before: tuple[ErrorLog, AccessLog, Settings] | None = None  # while a reload has others

    @property
    def changing(self) -> bool:
        """Whether a reload has opened logs that are not settled yet."""
        return self._before is not None

    @property
    def error_logs(self) -> list[ErrorLog]:
        """Those that are open: two while a reload has opened another that is not settled yet."""
        return [self.error, *([] if self._before is None else [self._before[0]])]

    @property
    def files(self) -> tuple[bool, bool]:
        """Whether error log and access log are files, which can be opened again."""
        return _files(self._settings)

    @property
    def on_standard_error(self) -> bool:
        """Whether the error log is standard error."""
        return self._settings.error_log == "-"

    def change(self, new: Settings) -> None:
        """Open the logs that ``new`` names, where they differ or their files were moved. Raises ForkserverError."""
        same = all(getattr(new, name) == getattr(self._settings, name) for name in SETTINGS)
        if not same or self.error.moved or self.access.moved:
            self._open(new)
        self._settings = new

    def _open(self, new: Settings) -> None:
        error = ErrorLog(new.error_log, new.log_level, self.error.process, service=new.service_uid, form=new.log_format)
        try:
            access = _access_log(new, error)
        except ForkserverError:
            error.close()
            raise
        error.on_lost = access.on_lost = self.error.on_lost
        self.opened(error)
        self._before = self.error, self.access, self._settings
        self.error, self.access = error, access

    def settle(self, taken: bool) -> Settings | None:
        """Close the old logs where the new code has ``taken`` over, else the new ones.

        Returns the settings of the old logs where those are written to again.
        """
        if self._before is None:
            return None
        (error, access, settings), self._before = self._before, None
        if not taken:
            error, self.error = self.error, error
            access, self.access = self.access, access
            self._settings = settings
        error.close()
        access.close()
        return None if taken else settings

    def reopen(self) -> tuple[ReopenedLogs, ReopenedLogs]:
        """Open log files by their names again: the newest logs, and those of the code that serves.

        Both are the same except while a reload has opened others and its code has not taken over.
        """
        self.kept = 0
        newest = self._reopened(self.error, self.access, self._settings)
        return newest, newest if self._before is None else self._reopened(*self._before)

    def _reopened(self, error: ErrorLog, access: AccessLog, settings: Settings) -> ReopenedLogs:
        files = _files(settings)
        descriptors = []
        for log in (log for log, is_file in zip((error, access), files, strict=True) if is_file):
            try:
                log.reopen()
            except ForkserverError as problem:
                self.kept += 1
                self.error.error(f"{problem}; going on in the old file")
            descriptors.append(log.fileno())
        self.opened(error)
        return ReopenedLogs(*files, descriptors)


def _nothing(_log: ErrorLog) -> None:
    """In place of what concerns itself with logs that are opened."""


def inherited_error_log(settings: Settings, opened: int) -> ErrorLog:
    """The error log that a program before has written; ``opened`` is its file's descriptor, -1 where it is no file.

    Where its daemon is away, standard error is told.
    """
    level, form, service = settings.log_level, settings.log_format, settings.service_uid
    log = ErrorLog(settings.error_log, level, opened=opened, service=service, form=form, inherited=True)
    if log.away:
        stream = ErrorLog("-", level, form=form)
        stream.warning(log.away)
        stream.close()
    return log


def try_on(settings: Settings) -> None:
    """In a trial: make the logs of ``settings`` as the program will that goes on, but for their files.

    Raises ForkserverError, and ValueError for a target that this program does not know.
    """
    error = inherited_error_log(settings, _stand_in(settings.error_log))
    _access_log(settings, error, _stand_in(settings.access_log), inherited=True).close()
    error.close()


def _stand_in(target: str | None) -> int:
    """A descriptor in place of that of a log's file; -1 where it is no file."""
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC) if names_file(target) else -1


def _access_log(settings: Settings, error: ErrorLog, opened: int = -1, inherited: bool = False) -> AccessLog:
    form, service = settings.access_log_format, settings.service_uid
    return AccessLog(settings.access_log, error.warning, opened, service, form=form, inherited=inherited)


def _files(settings: Settings) -> tuple[bool, bool]:
    return names_file(settings.error_log), names_file(settings.access_log)
