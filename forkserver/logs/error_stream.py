"""The stream ``wsgi.errors`` of a worker, which goes to the error log."""

from __future__ import annotations

import io
import os
import threading
from typing import Final

from forkserver.logs.error_log import ErrorLog

_LINE_CHARS: Final = 16 * 1024  # of an application's line that does not end
_UNENDED_THREADS: Final = 256  # that may have begun a line; a thread that has ended may have left one


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
