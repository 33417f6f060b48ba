"""A log's file: opened safely, reopened after a rotation under the same descriptor number.

Standard streams are used as they are, and syslog by datagrams. A write never blocks and never raises: a line that
cannot be written is dropped and counted (log_output.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, ESTALE
from typing import Final

from forkserver.errors import ConfigError, ForkserverError
from forkserver.linux.files.trusted_files import open_for_append
from forkserver.linux.files.trusted_paths import UntrustedPathError
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.log_output import LogOutput, opened_already
from forkserver.logs.syslog import SyslogOutput, SyslogTarget, syslog_target

_FAULTS_OF_THE_SYSTEM: Final = frozenset({ENOSPC, EDQUOT, EIO, ESTALE, EMFILE, ENFILE, ENOMEM})
_FILE_MODE: Final = 0o640  # access logs hold addresses of people


class LogFile:
    """A log's descriptor: a standard stream, a file whose number stays the same when it is opened again, or syslog.

    ``inherited`` says that a program before has written it: its daemon may be away for now. ``away`` is then a sentence
    on that, empty where it is there.
    """

    has_priorities = False  # whether a line may begin with its own, for syslog

    def __init__(
        self, target: str, setting: str, stream: int, opened: int = -1, service: int = -1, inherited: bool = False
    ) -> None:
        self.target = target
        self.away = ""
        self._service = service
        self._setting = setting
        syslog = syslog_target(target)
        self.to_syslog = syslog is not None
        self._own = target != "-" and not self.to_syslog
        if syslog is not None:
            self._output: LogOutput = self._connected(syslog, inherited)
            self._fd = self._output.fileno()
        else:
            self._fd = (self._open() if opened < 0 else opened) if self._own else stream
            self._output = LogOutput(self._fd)
        self.on_lost: Callable[[int], None] = uncounted  # called with the number of lines that could not be written

    def _connected(self, syslog: SyslogTarget, inherited: bool) -> SyslogOutput:
        try:
            return SyslogOutput(syslog, self.has_priorities)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            why = f"{self._setting} {self.target!r}: {syslog} cannot be reached: {reason}"
            if not inherited:
                raise ConfigError(f"{why}; start a syslog daemon, or name a file") from None
            self.away = f"{why}; lines are lost until it can; start the syslog daemon"
        return SyslogOutput(syslog, self.has_priorities, away=True)

    def _open(self) -> int:
        try:
            opened = opened_already(self.target)
            return opened if opened is not None else open_for_append(self.target, _FILE_MODE, self._service)
        except UntrustedPathError as error:
            raise ConfigError(f"{self._setting} {self.target!r}: {error}") from None
        except OSError as error:
            # A full disk is no mistake in the settings, after which systemd would not start the service again.
            kind = ForkserverError if error.errno in _FAULTS_OF_THE_SYSTEM else ConfigError
            from forkserver.linux.files import read_only  # late: for a mistake

            fix = read_only.way_out(error, self.target) or "fix that"
            raise kind(
                f"{self._setting} {self.target!r}: cannot be opened: {os.strerror(error.errno or 0).lower()}; "
                f'{fix}, name another file, or give "-" for the standard stream'
            ) from None

    def fileno(self) -> int:
        """The descriptor; reopening keeps its number."""
        return self._fd

    @property
    def can_be_held(self) -> bool:
        """Whether an application that has the descriptor can have each process wait that writes there."""
        return self._output.can_be_held

    def inode(self) -> tuple[int, int]:
        """Device and inode of what is written to."""
        return self._output.inode()

    def write_by(self, writer: PlainSocket) -> None:
        """Send lines to ``writer``, where this process is to write none itself."""
        self._output.write_by(writer)

    @property
    def moved(self) -> bool:
        """Whether a relative name leads to another file by now, or to none: perhaps a link above it was switched."""
        if not self._own or os.path.isabs(self.target):
            return False
        try:
            return not os.path.samestat(os.fstat(self._fd), os.lstat(self.target))
        except OSError:
            return True

    def close(self) -> None:
        """Close what was opened for this log; standard streams stay open."""
        self._output.close()
        if self._own and self._fd >= 0:
            os.close(self._fd)

    def part(self) -> None:
        """In a forked child: write by an open file description that the parent does not share, where one can be had."""
        self._output.renew()

    def reopen(self) -> None:
        """Open the file by its name again, after it was rotated. Raises ForkserverError and keeps the old one."""
        if self._own:
            self.adopt(self._open())

    def adopt(self, fd: int) -> None:
        """Write to ``fd`` from now on, the same log opened by another process; ``fd`` itself is closed."""
        try:
            if self._own:
                os.dup2(fd, self._fd, inheritable=False)
                self._output.renew()
        finally:
            os.close(fd)


def uncounted(_lost: int) -> None:
    """In place of a count of lost lines, where no process keeps one."""


def lines_missing(count: int) -> str:
    """``count`` dropped lines, for a message."""
    return "1 line is missing" if count == 1 else f"{count} lines are missing"
