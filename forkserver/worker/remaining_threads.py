"""Threads of the application that a worker's exit waits for, named in the log.

The interpreter joins threads that are no daemons before a process ends. Those of pools end by themselves within a
moment; a worker that still waits after that says for which, since it is killed when graceful_timeout is over.

Source: the module threading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

_SHOWN: Final = 5  # threads that hold an exit
_NAME: Final = 60  # characters of a thread's name, and of its function's
_NOTICE_SECONDS: Final = 1.0  # that threads may hold an exit without a word: those of pools end by themselves


def tell_of(tell: Callable[[str], None], seconds: float) -> None:
    """Have ``tell`` called with the names of the threads that hold the exit for longer than a moment.

    ``seconds`` is the most to wait for that.
    """

    def name_them() -> None:
        if names := _named():
            tell(names)

    if not _named():
        return
    naming = threading.Timer(max(0.0, min(_NOTICE_SECONDS, seconds)), name_them)
    naming.daemon = True
    try:
        naming.start()
    except RuntimeError:  # no thread to be had: said too early rather than never
        name_them()


def _named() -> str:
    """The threads that the interpreter waits for at its exit, named; empty where there are none."""
    ours = (threading.main_thread(), threading.current_thread())
    found = [each for each in threading.enumerate() if not each.daemon and each not in ours]
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ", ".join([*map(_thread, found[:_SHOWN]), *more])


def _thread(thread: threading.Thread) -> str:
    """A thread by its name and what it runs, which is the application's text: ``'poller' (mysite.poll)``."""
    runs = getattr(thread, "_target", None) or type(thread).run  # the stdlib has no public name for it
    place = f"{getattr(runs, '__module__', '')}.{getattr(runs, '__qualname__', type(runs).__qualname__)}"
    return f"{thread.name[:_NAME]!a} ({ascii(place[:_NAME])[1:-1]})"
