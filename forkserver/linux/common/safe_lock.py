"""A lock that no exception leaves taken, wherever one comes.

One may come between any two steps of Python code, from a signal handler or from a time limit that another thread keeps
(PyThreadState_SetAsyncExc). CPython looks for one at the beginning of a function, at the end of a loop's round, and
behind each call: behind that of ``acquire``, and since 3.14 behind that of ``__enter__``, too. So the lock is taken
where an attribute is read, and given back by the ``finally`` that comes next: nothing comes in between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from operator import methodcaller


class SafeLock:
    """``taken``, read as a statement right before a ``try``, waits for it and takes it; ``release`` gives it back."""

    __slots__ = ("acquire", "release")

    def __init__(self, reentrant: bool = False) -> None:
        lock = threading.RLock() if reentrant else threading.Lock()
        self.acquire: Callable[[], object] = lock.acquire
        self.release: Callable[[], None] = lock.release

    taken = property(methodcaller("acquire"))  # in C: a function in Python begins with a look for exceptions
