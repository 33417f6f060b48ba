"""Starting the threads of a worker where the system may refuse them.

A worker serves without its background thread, and with fewer application threads than wanted, when the kernel gives
none (TasksMax, pids.max, RLIMIT_NPROC). The refusal is logged once, with the limit that is reached; a start is tried
again after a delay that doubles up to ``LAST_DELAY``, and the first that succeeds is logged too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from forkserver.linux.process_limits import with_limit
from forkserver.logs.error_log import ErrorLog

T = TypeVar("T")
FIRST_DELAY: Final = 1.0  # seconds
LAST_DELAY: Final = 30.0
NO_THREAD: Final = "can't start new thread"  # the RuntimeError of _thread.start_new_thread


class ThreadStarter:
    """Starts threads for one worker; times are CLOCK_MONOTONIC seconds."""

    def __init__(self, log: ErrorLog) -> None:
        self._log = log
        self._delay = 0.0
        self._retry_at = 0.0

    def try_start(self, start: Callable[[], T], consequence: str, now: float) -> T | None:
        """What ``start`` returns, or None where no thread can be had now; ``consequence`` is for the log."""
        if now < self._retry_at:
            return None
        try:
            started = start()
        except (RuntimeError, OSError) as error:  # OSError: no descriptor for what the thread needs
            self.refused(str(error), consequence, now)
            return None
        if self._delay:
            self._delay = self._retry_at = 0.0
            self._log.info("threads can be started again")
        return started

    def refused(self, why: str, consequence: str, now: float) -> None:
        """A thread could not be started: ``why`` is logged the first time in a row, with the ``consequence``."""
        if not self._delay:
            reason = with_limit(why) if why == NO_THREAD else why
            self._log.warning(f"{reason}; {consequence}, and it is tried again")
        self._delay = min(2 * self._delay or FIRST_DELAY, LAST_DELAY)
        self._retry_at = now + self._delay
