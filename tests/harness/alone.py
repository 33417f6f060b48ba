"""A check in a process with one thread, for what befalls a whole process."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def alone(check: Callable[[], None]) -> None:
    """Run a check in a fork of this process, which has no thread but this one.

    Where an allocation is made to fail, it fails in whatever thread comes first: pytest-xdist's, that reads which tests
    are next, would lose them.

    Raises AssertionError, with the traceback of what the check raised.
    """
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            check()
        except BaseException:
            os.write(writing, traceback.format_exc().encode(errors="backslashreplace")[-60_000:])
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert (said, status) == ("", 0), said or f"wait status {status}"
