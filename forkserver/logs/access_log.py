"""The access log: one line per request, in combined format or another one (access_format.py).

Lines are gathered for a second at most and written whole, in batches. Fields from a client are escaped, so a client
cannot forge a line. Nor can one choose the priority of its line in the journal, which reads it at the head of a line
(SyslogLevelPrefix= in systemd.exec(5)): what looks like one there gets another before it.

Source: Apache's mod_log_config, "Combined Log Format".
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from select import PIPE_BUF
from typing import Final

from forkserver.errors import ConfigError
from forkserver.linux.common.safe_lock import SafeLock
from forkserver.linux.syscalls import monotonic, wall_time
from forkserver.logs.access_format import (
    AUTO,
    COMBINED,
    NO_FACTS,
    Facts,
    FormatError,
    Line,
    Named,
    Part,
    combined_parts,
    compiled,
)
from forkserver.logs.client_text import cut, escaped, is_plain
from forkserver.logs.error_log import ErrorLog, priority
from forkserver.logs.log_file import LogFile, lines_missing
from forkserver.logs.terminal import TerminalFormat

_BEGINS_LIKE_A_PRIORITY: Final = re.compile(rb"^(?=<)", re.MULTILINE)
_BATCH_BYTES: Final = 64 * 1024  # of one write to a file, which O_APPEND keeps whole whichever process writes: open(2)
_TOLD_AGAIN: Final = 60.0  # seconds between two sentences on dropped lines
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class AccessLog(LogFile):
    """One line per request in ``form``, gathered for a second at most and written as whole lines.

    ``target`` is a path, "-" for standard output, syslog (syslog.py), or None for no log. ``complain`` is called with a
    sentence when lines must be dropped, because a pipe is full or a disk is, and with their number when lines are taken
    again, each at most once a minute; ``dropped`` counts them. Safe to use from several threads. ``opened`` is the
    file's descriptor where it is open already; ``service`` is the uid that workers run as, which may own the file's
    folder. ``clock`` gives seconds; ``inherited`` is as for LogFile. Raises ConfigError, and ForkserverError where the
    system is at fault.
    """

    def __init__(
        self,
        target: str | None,
        complain: Callable[[str], None] | None = None,
        opened: int = -1,
        service: int = -1,
        clock: Callable[[], float] = monotonic,
        form: str = COMBINED,
        inherited: bool = False,
    ) -> None:
        self.form = form
        try:
            self._format = compiled(form)
        except FormatError as error:
            raise ConfigError(f"access_log_format {form!r}: {error}") from None
        self._of_worker = 0, 0, os.getpid()  # its number, its generation, its process
        self.enabled = target is not None
        self.dropped = 0
        self._untold = 0  # dropped lines of which nothing was said
        self._silent_until = -math.inf
        self._clock = clock
        self._complain = complain or _to_standard_error
        self._lock = SafeLock()
        self._lines: list[bytes] = []
        self._size = 0  # bytes in _lines
        self._hand_over: Callable[[], object] = _nothing
        self._until = 0.0  # wall-clock time (seconds since 1970) at which ``_date`` is stale
        self._date = ""
        stream = 1 if self.enabled else -1
        super().__init__("-" if target is None else target, "access_log", stream, opened, service, inherited)
        self._mark = b"" if self._own or self.to_syslog else priority("info", self._fd).encode()
        self._limit, self._batch = self._limits()
        if form == AUTO and self.enabled and os.isatty(self._fd):
            self._format = TerminalFormat(os.environ)

    def fileno(self) -> int:
        """The descriptor, or -1 where there is no access log."""
        return self._fd if self.enabled else -1

    def adopt(self, fd: int) -> None:
        """Write what is gathered to the old file, then go on in ``fd``, which is closed itself."""
        self.flush()
        super().adopt(fd)
        self._limit, self._batch = self._limits()

    @property
    def plain(self) -> bool:
        """Whether lines are in combined format, which needs no ``facts`` beside its fields."""
        return self._format is None

    @property
    def named(self) -> tuple[Named, ...]:
        """The values that the format asks for by name."""
        return () if self._format is None else self._format.named

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the extension makes a line of; empty where each is made here."""
        return combined_parts() if self._format is None else self._format.parts(*self._of_worker)

    def identify(self, worker: int, generation: int) -> None:
        """This process is that worker."""
        self._of_worker = worker, generation, os.getpid()

    def add(
        self,
        peer: str,
        user: str,
        line: str,
        status: int,
        size: int,
        referer: str,
        agent: str,
        facts: Facts = NO_FACTS,
    ) -> None:
        """Note one answered request; ``size`` is the body's bytes. Everything from the client is escaped."""
        if not self.enabled:
            return
        self._hand_over()  # what was answered before
        if self._format is not None:
            self._add_formatted(peer, user, line, status, size, referer, agent, facts)
            return
        if not is_plain(f"{peer}{user}{line}{referer}{agent}"):  # one look at all of them, which are plain as a rule
            peer, user, line, referer, agent = map(escaped, (peer, user, line, referer, agent))
        user = user.replace(" ", "\\x20")  # a blank would divide it
        self._lock.taken  # noqa: B018
        try:
            self._keep_time()
            entry = self._entry(peer, user, line, f"{status} {size or '-'}", referer, agent)
            if len(entry) > self._limit:
                share = (self._limit - 256) // 5  # the rest is for the date, the figures and the marks
                peer, user, line, referer, agent = (cut(each, share) for each in (peer, user, line, referer, agent))
                entry = self._entry(peer, user, line, f"{status} {size or '-'}", referer, agent)
            self._gather(entry.encode("ascii"))
        finally:
            self._lock.release()

    def _add_formatted(self, *fields: *tuple[str, str, str, int, int, str, str, Facts]) -> None:
        assert self._format is not None
        whole_at = fields[-1].whole_at
        seconds = None if whole_at is None else max(0.0, self._clock() - whole_at)
        self._lock.taken  # noqa: B018
        try:
            now = self._keep_time()
            line = Line(*fields, seconds, now, self._date, *self._of_worker)
            self._gather(self._format.write(line, self._limit).encode("ascii"))
        finally:
            self._lock.release()

    def collect_from(self, hand_over: Callable[[], object]) -> None:
        """Lines are gathered elsewhere, too: ``hand_over()`` calls ``add_lines`` with those that there are."""
        self._hand_over = hand_over

    def add_lines(self, lines: bytes) -> None:
        """Note whole lines, of one second and together no longer than what one write delivers unmixed with others."""
        self._lock.taken  # noqa: B018
        try:
            self._gather(lines)
            self._keep_time()
        finally:
            self._lock.release()

    def _keep_time(self) -> float:
        now = wall_time()
        if not self._until - 1 <= now < self._until:  # a clock that was set back counts too
            self._begin_second(int(now))
        return now

    def _gather(self, lines: bytes) -> None:
        if self._size + len(lines) > self._batch:
            self._write()
        self._lines.append(lines)
        self._size += len(lines)

    def _entry(self, peer: str, user: str, line: str, figures: str, referer: str, agent: str) -> str:
        head = f"{peer or '-'} - {user or '-'} {self._date}"
        return f'{head}"{line or "-"}" {figures} "{referer or "-"}" "{agent or "-"}"\n'

    def flush(self) -> None:
        """Write what is gathered; to be called before sleeping."""
        self._hand_over()
        if self._lines or self._output.pending:
            self._lock.taken  # noqa: B018
            try:
                self._write()
            finally:
                self._lock.release()

    def finish(self) -> None:
        """Write what is gathered for the last time, and say how many lines were dropped."""
        self.flush()
        self._lock.taken  # noqa: B018
        try:
            self._tell_dropped()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """In a forked child: drop what is gathered, which its parent writes, and a lock that no thread releases."""
        self._lock = SafeLock()
        self._hand_over = _nothing
        self._lines, self._size, self._untold = [], 0, 0
        self._of_worker = *self._of_worker[:2], os.getpid()

    def _begin_second(self, second: int) -> None:
        """Make the date; write what is gathered, which a slow call must not delay. Caller holds the lock."""
        if self._lines:
            self._write()
        at = time.gmtime(second)
        clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
        self._date = f"[{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{clock} +0000] "
        self._until = second + 1.0

    def _write(self) -> None:
        """Hand the batch to the kernel, or drop it. Caller holds the lock."""
        batch = b"".join(self._lines)
        if self._mark:
            batch = _BEGINS_LIKE_A_PRIORITY.sub(self._mark, batch)
        self._lines.clear()
        self._size = 0
        lost = self._output.write(batch)
        if lost:
            self._note_dropped(lost)
        elif self._untold and self._clock() >= self._silent_until:
            self._tell_dropped()

    def _note_dropped(self, lost: int) -> None:
        self.dropped += lost
        self.on_lost(lost)
        if not self._untold and self._clock() >= self._silent_until:
            reason = self._output.reason
            self._complain(f"access_log {self.target!r} cannot be written: {reason}; lines are dropped until it can")
        self._untold += lost

    def _tell_dropped(self) -> None:
        """Say how many lines were dropped, if any; the next time a minute later at the earliest."""
        if self._untold:
            lost, self._untold = self._untold, 0
            self._silent_until = self._clock() + _TOLD_AGAIN
            self._complain(f"access_log {self.target!r} could not be written: {lines_missing(lost)}")

    def _limits(self) -> tuple[int, int]:
        """How long a line, and a batch, may be: to anything but a file, what one write delivers unmixed with others."""
        return (1 << 20, _BATCH_BYTES) if self._output.is_file else (PIPE_BUF - len(self._mark), PIPE_BUF)


def _nothing() -> None:
    """In place of lines that are gathered elsewhere."""


def _to_standard_error(sentence: str) -> None:
    log = ErrorLog("-", "warning", "access-log")
    log.warning(sentence)
    log.close()
