"""The loop lock: the thread that has it may turn the loop and touch its connections.

The application runs without it, so that the background driver, or another application thread, can have it meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class LoopLock:
    """A reentrant lock whose two methods cost one attribute each; ``outside`` says that the application runs now.

    ``outside`` means something where one thread runs the application: there, and only there, may it be interrupted.
    """

    __slots__ = ("_was_outside", "acquire", "outside", "release")

    def __init__(self) -> None:
        lock = threading.RLock()
        self.acquire: Callable[[], object] = lock.acquire
        self.release = lock.release
        self.outside = False
        self._was_outside = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_raised: object) -> None:
        self.release()

    def lend(self, call: Callable[..., Any], *args: Any) -> Any:
        """What ``call(*args)`` gives, called without the lock: it is the application's code."""
        try:
            self.release()
            self.outside = True
            return call(*args)
        finally:
            self.outside = False
            self.acquire()

    def take_for_fork(self) -> None:
        """Have it while the application forks: nothing is half done in the child, and no thread is interrupted."""
        was, self.outside = self.outside, False
        self.acquire()
        self._was_outside = was  # only now: another thread may have been forking

    def return_from_fork(self) -> None:
        """Give it back."""
        was = self._was_outside
        self.release()
        self.outside = was

    def borrow(self, call: Callable[..., Any], *args: Any) -> Any:
        """The way back in: what ``call(*args)`` gives, called with the lock, from within the application's code."""
        was, self.outside = self.outside, False
        self.acquire()
        try:
            return call(*args)
        finally:
            self.release()
            self.outside = was


def acquired_lock() -> LoopLock:
    """A lock of its own for code that shares nothing: acquired, as the caller of the application expects it."""
    loop_lock = LoopLock()
    loop_lock.acquire()
    return loop_lock
