"""A time limit that is kept by another thread, and comes late: an exception between two steps of Python code."""

from __future__ import annotations

import ctypes
import threading


class LateError(Exception):
    """What such a time limit raises."""


def strike(thread: threading.Thread) -> None:
    """Raise LateError in ``thread`` as soon as it runs Python code."""
    assert thread.ident is not None
    struck = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(LateError))
    assert struck == 1
