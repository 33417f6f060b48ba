"""The error log, one event a line, and the access log, one request a line.

A line is whole or absent, nothing that a client sent can forge a line of ours, and a log that is not read neither
raises nor blocks: its lines are dropped and counted (log_output.py). What the application writes to ``wsgi.errors`` is
its own text, and goes to the error log as it is. The stdlib's logging is not used here: applications reconfigure it.
"""

from __future__ import annotations

import io
import math
import os
import re
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from errno import EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, ESTALE
from select import PIPE_BUF
from time import monotonic
from typing import Final

from forkserver.errors import ConfigError, ForkserverError
from forkserver.linux.files.trusted_paths import UntrustedPathError, open_for_append
from forkserver.logs.escaping import printable
from forkserver.logs.log_output import LogOutput

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

# What the journal reads at the head of a line: sd-daemon(3), SyslogLevelPrefix= in systemd.exec(5).
_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
_LINE_CHARS: Final = 16 * 1024  # of an application's line that does not end
_UNENDED_THREADS: Final = 256  # that may have begun a line; a thread that has ended may have left one
_BATCH_BYTES: Final = 64 * 1024  # of one write to a file, which O_APPEND keeps whole whoever else writes: open(2)
_MEMO_CLIENTS: Final = 1024
_MEMO_CHARS: Final = 512  # of a client's fields; longer ones are not worth a place
_TOLD_AGAIN: Final = 60.0  # seconds between two sentences on dropped lines
_FAULTS_OF_THE_SYSTEM: Final = frozenset({ENOSPC, EDQUOT, EIO, ESTALE, EMFILE, ENFILE, ENOMEM})
_FILE_MODE: Final = 0o640  # access logs hold addresses of people
_UNSAFE: Final = re.compile(r"[^\x20-\x7e]|[\"\\]")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _File:
    """A log's descriptor: a standard stream, or a file whose number stays the same when it is opened again."""

    def __init__(self, target: str, setting: str, stream: int, held: int = -1, service: int = -1) -> None:
        self.target = target
        self._service = service
        self._setting = setting
        self._own = target != "-"
        self._fd = (self._open() if held < 0 else held) if self._own else stream
        self._output = LogOutput(self._fd)
        self.on_lost: Callable[[int], None] = uncounted  # called with the number of lines that could not be written

    def _open(self) -> int:
        try:
            return open_for_append(self.target, _FILE_MODE, self._service)
        except UntrustedPathError as error:
            raise ConfigError(f"{self._setting} {self.target!r}: {error}") from None
        except OSError as error:
            # A full disk is no mistake in the settings, after which systemd would not start the service again.
            kind = ForkserverError if error.errno in _FAULTS_OF_THE_SYSTEM else ConfigError
            raise kind(
                f"{self._setting} {self.target!r}: cannot be opened: {os.strerror(error.errno or 0).lower()}; "
                'fix that, name another file, or give "-" for the standard stream'
            ) from None

    def fileno(self) -> int:
        """The descriptor; reopening keeps its number."""
        return self._fd

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


class ErrorLog(_File):
    """forkserver's own events, each written at once: to a file by one write(2), to anything else in whole lines.

    ``target`` is a path, or "-" for standard error; events below ``level`` are left out; ``who`` names the process and
    may be changed; ``held`` is the file where it is open already; ``service`` is the uid that workers run as, which
    may own the file's folder. ``details`` of an event become further lines, indented. Where standard error is the
    journal's own stream, each line begins with its priority, so that ``journalctl -p err`` finds it. Raises
    ConfigError, and ForkserverError where the system is at fault.
    """

    def __init__(self, target: str, level: str, who: str = "master", held: int = -1, service: int = -1) -> None:
        super().__init__(target, "error_log", 2, held, service)
        self._least = LEVELS[level]
        self._priorities = _PRIORITIES if not self._own and _is_journal(self._fd) else {}
        self.who = who

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
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        priority = self._priorities.get(level, "")
        text = f"{priority}{now} {level} {self.who} pid={os.getpid()} {printable(message)}\n"
        for line in details.splitlines():
            text += f"{priority}  {printable(line)}\n"
        return text

    def _write(self, text: str) -> None:
        """Write ``text``, and before it how many lines were dropped until now."""
        output = self._output
        with output.lock:
            before = output.dropped
            if before:
                said = (
                    f"error_log {self.target!r} could not be written ({output.reason}): {_lines_missing(before)} here"
                )
                text = self._lines("warning", said) + text
            lost = output.write(text.encode("utf-8", "backslashreplace"))
            untold = before > 0 and lost == text.count("\n")
            if before:
                # With no room even for the notice, that is no line to count; else it has said what was before.
                output.dropped -= 1 if untold else before
            if lost > untold:
                self.on_lost(lost - untold)


class AccessLog(_File):
    """One line per request in combined format, gathered for a second at most and written as whole lines.

    ``target`` is a path, "-" for standard output, or None for no log. ``complain`` is called with a sentence when lines
    must be dropped, because a pipe is full or a disk is, and with their number when lines are taken again, each at
    most once a minute; ``dropped`` counts them. Safe to use from several threads. ``held`` is the file where it is open
    already; ``service`` is the uid that workers run as, which may own the file's folder. ``clock`` gives seconds.
    Raises ConfigError, and ForkserverError where the system is at fault.
    """

    def __init__(
        self,
        target: str | None,
        complain: Callable[[str], None] | None = None,
        held: int = -1,
        service: int = -1,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.enabled = target is not None
        self.dropped = 0
        self._untold = 0  # dropped lines of which nothing was said
        self._silent_until = -math.inf
        self._clock = clock
        self._complain = complain or _to_standard_error
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._size = 0  # bytes in _lines, which are ASCII
        self._until = 0.0  # wall-clock time (seconds since 1970) at which ``_date`` is stale
        self._date = ""
        self._known: dict[tuple[str, str, str], tuple[str, str]] = {}  # peer, user, agent -> a line's head and its end
        super().__init__("-" if target is None else target, "access_log", 1 if self.enabled else -1, held, service)
        self._limit, self._batch = self._limits()

    def fileno(self) -> int:
        """The descriptor, or -1 where there is no access log."""
        return self._fd if self.enabled else -1

    def adopt(self, fd: int) -> None:
        """Write what is gathered to the old file, then go on in ``fd``, which is closed itself."""
        self.flush()
        super().adopt(fd)
        self._limit, self._batch = self._limits()

    def add(self, peer: str, user: str, line: str, status: int, size: int, referer: str, agent: str) -> None:
        """Note one answered request; ``size`` is the body's bytes. Everything from the client is escaped."""
        if not self.enabled:
            return
        client = peer, user, agent
        head, end = self._known.get(client) or self._learn(client)
        # As _field does it, without the price of a call: what is common needs no look at each character.
        if not line or not (line.isascii() and line.isprintable()) or '"' in line or "\\" in line:
            line = _field(line)
        referer = _field(referer) if referer else "-"
        with self._lock:
            now = time.time()
            if not self._until - 1 <= now < self._until:  # a clock that was set back counts too
                self._begin_second(int(now))
            entry = f'{head}{self._date}"{line}" {status} {size or "-"} "{referer}" {end}'
            length = len(entry)
            if length > self._limit:
                entry = self._shortened(client, line, f"{status} {size or '-'}", referer)
                length = len(entry)
            if self._size + length > self._batch:
                self._write()
            self._lines.append(entry)
            self._size += length

    def _learn(self, client: tuple[str, str, str]) -> tuple[str, str]:
        """How a line of ``client`` begins and ends; remembered, for a client and its program ask again."""
        peer, user, agent = map(_field, client)
        known = _head(peer, user), f'"{agent}"\n'
        if len(peer) + len(user) + len(agent) <= _MEMO_CHARS:
            if len(self._known) >= _MEMO_CLIENTS:
                self._known.clear()
            self._known[client] = known
        return known

    def _shortened(self, client: tuple[str, str, str], line: str, figures: str, referer: str) -> str:
        """An entry that is too long, with what makes it so cut. Caller holds the lock."""
        share = (self._limit - 256) // 4  # the rest is for the date, the figures and the marks
        peer, user, agent = map(_field, client)
        head, line, referer, agent = (_cut(part, share) for part in (_head(peer, user), line, referer, agent))
        return f'{head}{self._date}"{line}" {figures} "{referer}" "{agent}"\n'

    def flush(self) -> None:
        """Write what is gathered; to be called before sleeping."""
        if self._lines or self._output.pending:
            with self._lock:
                self._write()

    def finish(self) -> None:
        """Write what is gathered for the last time, and say how many lines were dropped."""
        self.flush()
        with self._lock:
            self._tell_dropped()

    def forget(self) -> None:
        """In a forked child: drop what is gathered, which its parent writes, and a lock that no thread releases."""
        self._lock = threading.Lock()
        self._lines, self._size, self._untold = [], 0, 0

    def _begin_second(self, second: int) -> None:
        """Make the date as the format wants it; write what is gathered, lest it waits while a call is slow.

        Caller holds the lock.
        """
        if self._lines:
            self._write()
        at = time.gmtime(second)
        clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
        self._date = f"[{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{clock} +0000] "
        self._until = second + 1.0

    def _write(self) -> None:
        """Hand the batch to the kernel, or drop it. Caller holds the lock."""
        batch = "".join(self._lines).encode("ascii")
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
            self._complain(f"access_log {self.target!r} could not be written: {_lines_missing(lost)}")

    def _limits(self) -> tuple[int, int]:
        """How long a line, and a batch, may be: to anything but a file, what one write delivers unmixed with others."""
        return (1 << 20, _BATCH_BYTES) if self._output.is_file else (PIPE_BUF, PIPE_BUF)


def uncounted(_lost: int) -> None:
    """In place of a count of lost lines, where no process keeps one."""


def _lines_missing(count: int) -> str:
    return "1 line is missing" if count == 1 else f"{count} lines are missing"


def _to_standard_error(sentence: str) -> None:
    log = ErrorLog("-", "warning", "access-log")
    log.warning(sentence)
    log.close()


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


def quoted(text: str, most: int) -> str:
    """``text`` from a client as one word in quotes, escaped as in the access log, of ``most`` characters at most."""
    return f'"{_cut(_field(text[: most + 1]), most)}"'


def _field(text: str) -> str:
    """``text`` as a field in quotes: what could end the field or the line, or is not ASCII, is \\xHH; empty is "-"."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text or "-"
    return _UNSAFE.sub(_hex, text)


def _head(peer: str, user: str) -> str:
    """What stands before the date; a blank in ``user`` would divide it."""
    return f"{peer} - {user.replace(' ', chr(92) + 'x20')} "


def _hex(match: re.Match[str]) -> str:
    character = match[0]
    # What came off the wire was decoded as latin-1, so its number is the byte.
    raw = bytes([ord(character)]) if ord(character) < 256 else character.encode("utf-8", "backslashreplace")
    return "".join(f"\\x{byte:02x}" for byte in raw)


def _cut(field: str, most: int) -> str:
    """``field`` of at most ``most`` characters, with an ellipsis, and never half an escape."""
    if len(field) <= most:
        return field
    kept = field[: most - 3]
    escape = kept.rfind("\\", -3)
    return (kept if escape < 0 else kept[:escape]) + "..."


class ErrorStream(io.TextIOBase):
    """``wsgi.errors`` of a worker: the application's own text, written to the error log as it is (PEP 3333).

    No level, no priority and no name are added, whatever ``log_level`` says: the application has its own. What one call
    completes is written by one write(2), so that a traceback stays together; text without a line feed waits for it,
    for ``flush`` or for the end of the request, for each thread apart. Safe to use from several threads.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True
    mode = "w"

    def __init__(self, log: ErrorLog) -> None:
        self._log = log
        self.name = "<stderr>" if log.target == "-" else log.target
        self.unended: dict[int, str] = {}  # text that waits for its line feed, by thread

    def write(self, text: str, /) -> int:
        """Write ``text``; a line goes out when it is complete. Gives the number of characters."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread = threading.get_ident()
        lines, feed, rest = (self.unended.pop(thread, "") + text).rpartition("\n")
        if len(rest) > _LINE_CHARS or (rest and len(self.unended) >= _UNENDED_THREADS):
            lines, feed, rest = f"{lines}{feed}{rest}", "\n", ""
        if rest:
            self.unended[thread] = rest
        if feed:
            self._log.pass_on(lines + feed)
        return len(text)

    def forget(self) -> None:
        """In a forked child: drop what is begun of a line, which its parent completes."""
        self.unended.clear()

    def flush(self) -> None:
        """Write what this thread has begun of a line, and end that line: others write to the same log."""
        if rest := self.unended.pop(threading.get_ident(), ""):
            self._log.pass_on(f"{rest}\n")

    def close(self) -> None:
        """Flush. It stays open: PEP 3333 gives every request the same stream."""
        self.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        """Whether the error log is a terminal."""
        return os.isatty(self._log.fileno())

    def fileno(self) -> int:
        """The error log's descriptor, which keeps its number when the log is opened again after a rotation."""
        return self._log.fileno()
