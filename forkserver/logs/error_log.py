"""The error log: forkserver's own events, one a line.

Events are written as text or as JSON (error_format.py). A line is written whole or not at all, and a client's text
cannot forge one. The stdlib's logging is not used: applications reconfigure it.
"""

from __future__ import annotations

import os
import traceback
from select import PIPE_BUF
from typing import Final

from forkserver.linux.syscalls import wall_time
from forkserver.logs import journal
from forkserver.logs.error_format import PRIORITIES, JsonForm, LogEvent, RequestFacts, SyslogForm, TextForm
from forkserver.logs.journal import JournalSocket
from forkserver.logs.log_file import LogFile, lines_missing
from forkserver.logs.terminal import TerminalForm

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
TEXT: Final = "text"
JSON: Final = "json"
_MOST_BYTES: Final = 1 << 20  # of an event in a file


class ErrorLog(LogFile):
    """forkserver's own events, each written at once: to a file by one write(2), to anything else in whole lines.

    ``target`` is a path, "-" for standard error, or syslog (syslog.py); events below ``level`` are left out;
    ``process`` is its name, and may be changed; ``opened`` is the file's descriptor where it is open already;
    ``service`` is the uid that workers run as, which may own the file's folder. ``details`` of an event become further
    lines, indented. Where standard error is the journal's own stream, events of TEXT go to the journal's socket
    (journal.py), and a line of the stream begins with its priority. ``form`` is TEXT, which a terminal gets aligned and
    coloured, or JSON; ``inherited`` as for LogFile. Raises ConfigError, and ForkserverError where the system is at
    fault.
    """

    has_priorities = True

    def __init__(
        self,
        target: str,
        level: str,
        process: str = "master",
        opened: int = -1,
        service: int = -1,
        form: str = TEXT,
        inherited: bool = False,
    ) -> None:
        super().__init__(target, "error_log", 2, opened, service, inherited)
        self._least = LEVELS[level]
        self._form = self._form_of(form)
        self._journal = _journal_socket() if form == TEXT and self._to_journal else None
        self.process = process
        self._captures = False

    def _form_of(self, form: str) -> TextForm:
        priorities = self.to_syslog or self._to_journal
        if form == JSON:
            return JsonForm(_MOST_BYTES if self._output.is_file else PIPE_BUF, priorities)
        if self.to_syslog:
            return SyslogForm(priorities)
        return TerminalForm(os.environ) if os.isatty(self._fd) else TextForm(priorities)

    @property
    def _to_journal(self) -> bool:
        return not self._own and not self.to_syslog and _is_journal(self._fd)

    def close(self) -> None:
        """Close what was opened for this log; standard streams stay open."""
        super().close()
        if self._journal is not None:
            self._journal.close()

    def part(self) -> None:
        """In a forked child: write by open file descriptions that the parent does not share."""
        super().part()
        if self._journal is not None:
            self._journal.renew()

    def descriptors(self) -> list[int]:
        """Those without which the log cannot be written."""
        return [self._fd, self.dump_fileno(), *([] if self._journal is None else [self._journal.fileno()])]

    def capture(self) -> None:
        """Have this process's standard output and standard error go to the file; where there is none, leave them."""
        self._captures = self._own
        self._redirect()

    def adopt(self, fd: int) -> None:
        """Write to ``fd`` from now on, with what is captured."""
        super().adopt(fd)
        self._redirect()

    def _redirect(self) -> None:
        if self._captures:
            for number in (1, 2):
                os.dup2(self._fd, number)

    def debug(self, message: str, details: str = "") -> None:
        self._event("debug", message, details)

    def info(self, message: str, details: str = "", request_id: str = "") -> None:
        self._event("info", message, details, request_id)

    def warning(self, message: str, details: str = "", about: RequestFacts | None = None) -> None:
        """``about`` are the facts of the slow request that it is about."""
        self._event("warning", message, details, "" if about is None else about.request_id, about)

    def error(self, message: str, details: str = "", request_id: str = "") -> None:
        self._event("error", message, details, request_id)

    def critical(self, message: str, details: str = "") -> None:
        self._event("critical", message, details)

    def shows(self, level: str) -> bool:
        """Whether events of ``level`` are written."""
        return LEVELS[level] >= self._least

    def exception(self, message: str, error: BaseException, request_id: str = "") -> None:
        """``message``, and the traceback of ``error`` beneath it."""
        self._event("error", message, "".join(traceback.format_exception(error)), request_id)

    def dump_fileno(self) -> int:
        """The descriptor for faulthandler: it keeps its number, and does not block where one could be had."""
        if self.to_syslog:
            return 2  # what it writes is no datagram of syslog's
        return self._fd if self._own else self._output.fileno()

    def pass_on(self, text: str) -> None:
        """Write lines of the application; ``text`` ends with a line feed."""
        self._write(self._form.application(LogEvent(wall_time(), "", self.process, os.getpid(), text)))

    def _event(
        self, level: str, message: str, details: str, request_id: str = "", about: RequestFacts | None = None
    ) -> None:
        if LEVELS[level] < self._least:
            return
        event = LogEvent(wall_time(), level, self.process, os.getpid(), message, details, request_id, about)
        if self._journal is None or not self._journal.takes(event):
            self._write(self._form.event(event))

    def _write(self, text: str) -> None:
        """Write ``text``, and before it how many lines were dropped until now."""
        output = self._output
        output.lock.taken  # noqa: B018
        try:
            before = output.dropped
            if before:
                said = f"error_log {self.target!r} could not be written ({output.reason}): {lines_missing(before)} here"
                text = self._form.event(LogEvent(wall_time(), "warning", self.process, os.getpid(), said)) + text
            lost = output.write(text.encode("utf-8", "backslashreplace"))
            untold = before > 0 and lost == text.count("\n")
            if before:
                # With no room even for the notice, that is no line to count; else it has said what was before.
                output.dropped -= 1 if untold else before
            if lost > untold:
                self.on_lost(lost - untold)
        finally:
            output.lock.release()


def priority(level: str, fd: int = 2) -> str:
    """What a line of ``level`` begins with where ``fd`` is the journal's stream; empty elsewhere."""
    return PRIORITIES[level] if _is_journal(fd) else ""


def _journal_socket() -> JournalSocket | None:
    try:
        return JournalSocket(journal.SOCKET)
    except OSError:  # not in this mount namespace: the stream takes what there is
        return None


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
