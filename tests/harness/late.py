"""A time limit that is kept by another thread, and comes late: an exception between two steps of Python code."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class LateError(Exception):
    """What such a time limit raises."""


@contextmanager
def strike(thread: threading.Thread) -> Iterator[None]:
    """Raise LateError in ``thread`` as soon as it runs Python code. Within, see to it that it does, and wait for that.

    Nothing is traced within, as coverage does: while the exception waits for a thread that sleeps, CPython 3.11 comes
    to no end in the function that a traced thread calls.
    """
    assert thread.ident is not None
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        count = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(LateError))
        assert count == 1
        yield
    finally:
        sys.settrace(trace)
