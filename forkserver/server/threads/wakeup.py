"""A descriptor by which any thread ends another's wait.

It is an eventfd behind a lock: after ``close`` nothing is written any more, although a thread may still call ``notify``
and the number may be another file's by then.

Source: eventfd(2).
"""

from __future__ import annotations

import os

from forkserver.linux.common.safe_lock import SafeLock


class Wakeup:
    """Readable from ``notify`` until ``clear``. ``notify`` and ``close`` may be called from any thread."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = SafeLock(reentrant=True)  # reentrant: a signal handler may interrupt its own thread in here

    def fileno(self) -> int:
        """The descriptor to wait for; -1 once it is closed."""
        return self._fd

    def notify(self) -> None:
        """End the wait, or the next one. Does nothing once it is closed."""
        self._lock.taken  # noqa: B018
        try:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)
        finally:
            self._lock.release()

    def clear(self) -> None:
        """Let the next wait begin; several threads may have been woken."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return  # another thread has cleared it

    def close(self) -> None:
        """Give the descriptor back. Closing twice is once."""
        self._lock.taken  # noqa: B018
        try:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """In a forked child: close its copy. A thread that held the lock at the fork does not exist here."""
        self._lock = SafeLock(reentrant=True)
        self.close()
