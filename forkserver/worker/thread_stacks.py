"""Where the threads of this process are, for the log.

It is safe beside threads that run: the interpreter's lock is held while their frames are read. What
faulthandler writes from a signal handler is not; it is left for processes in which nothing else can run any more.

Source: sys._current_frames, https://docs.python.org/3/library/faulthandler.html
"""

from __future__ import annotations

import sys
import threading
import traceback


def thread_stacks() -> str:
    """The stack of each thread, the innermost call last, under the thread's name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        found.append(f"thread {names.get(ident, ident)}:\n")
        found += traceback.format_stack(frame)
    return "".join(found)
