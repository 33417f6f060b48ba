"""The error log: forkserver's own events, one a line.

A line is written whole or not at all, and a client's text cannot forge one. The stdlib's logging is not used:
applications reconfigure it.
"""

from __future__ import annotations

import os
import time
import traceback
from typing import Final

from forkserver.linux.common.escaping import printable
from forkserver.linux.syscalls import wall_time
from forkserver.logs.log_file import LogFile, lines_missing

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

# What the journal reads at the head of a line: sd-daemon(3), SyslogLevelPrefix= in systemd.exec(5).
_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}


class ErrorLog(LogFile):
    """forkserver's own events, each written at once: to a file by one write(2), to anything else in whole lines.

    ``target`` is a path, or "-" for standard error; events below ``level`` are left out; ``process`` is its name, and
    may be changed; ``opened`` is the file's descriptor where it is open already; ``service`` is the uid that workers
    run as, which may own the file's folder. ``details`` of an event become further lines, indented. Where standard
    error is the journal's own stream, each line begins with its priority, so that ``journalctl -p err`` finds it.
    Raises ConfigError, and ForkserverError where the system is at fault.
    """

    def __init__(self, target: str, level: str, process: str = "master", opened: int = -1, service: int = -1) -> None:
        super().__init__(target, "error_log", 2, opened, service)
        self._least = LEVELS[level]
        self._priorities = _PRIORITIES if not self._own and _is_journal(self._fd) else {}
        self.process = process

    def debug(self, message: str, details: str = "") -> None:
        self._event("debug", message, details)

    def info(self, message: str, details: str = "") -> None:
        self._event("info", message, details)

    def warning(self, message: str, details: str = "") -> None:
        self._event("warning", message, details)

    def error(self, message: str, details: str = "") -> None:
        self._event("error", message, details)

    def critical(self, message: str, details: str = "") -> None:
        self._event("critical", message, details)

    def shows(self, level: str) -> bool:
        """Whether events of ``level`` are written."""
        return LEVELS[level] >= self._least

    def exception(self, message: str, error: BaseException) -> None:
        """``message``, and the traceback of ``error`` beneath it."""
        self._event("error", message, "".join(traceback.format_exception(error)))

    def dump_fileno(self) -> int:
        """The descriptor for faulthandler: it keeps its number, and does not block where one could be had."""
        return self._fd if self._own else self._output.fileno()

    def pass_on(self, text: str) -> None:
        """Write lines of the application as they are; ``text`` ends with a line feed."""
        self._write(text)

    def _event(self, level: str, message: str, details: str) -> None:
        if LEVELS[level] < self._least:
            return
        self._write(self._lines(level, message, details))

    def _lines(self, level: str, message: str, details: str = "") -> str:
        now = _shown(wall_time())
        priority = self._priorities.get(level, "")
        text = f"{priority}{now} {level} {self.process} pid={os.getpid()} {printable(message)}\n"
        for line in details.splitlines():
            text += f"{priority}  {printable(line)}\n"
        return text

    def _write(self, text: str) -> None:
        """Write ``text``, and before it how many lines were dropped until now."""
        output = self._output
        with output.lock:
            before = output.dropped
            if before:
                said = f"error_log {self.target!r} could not be written ({output.reason}): {lines_missing(before)} here"
                text = self._lines("warning", said) + text
            lost = output.write(text.encode("utf-8", "backslashreplace"))
            untold = before > 0 and lost == text.count("\n")
            if before:
                # With no room even for the notice, that is no line to count; else it has said what was before.
                output.dropped -= 1 if untold else before
            if lost > untold:
                self.on_lost(lost - untold)


def _shown(seconds: float) -> str:
    """A time since the epoch as RFC 3339 has it, in UTC to the millisecond; the module datetime is slow to import."""
    milliseconds = int(seconds * 1000)
    whole = time.gmtime(milliseconds // 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{milliseconds % 1000:03}+00:00"


def priority(level: str, fd: int = 2) -> str:
    """What a line of ``level`` begins with where ``fd`` is the journal's stream; empty elsewhere."""
    return _PRIORITIES[level] if _is_journal(fd) else ""


def _is_journal(fd: int) -> bool:
    """Whether ``fd`` is the stream that systemd connected to the journal; it may have been redirected since.

    Source: $JOURNAL_STREAM in systemd.exec(5): device and inode, divided by a colon.
    """
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(fd)
    except OSError:  # closed: writing will say so
        return False
    return named == f"{found.st_dev}:{found.st_ino}"
