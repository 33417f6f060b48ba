"""The life of a helper of the master, a process that runs no code of the application, from its fork to its end."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import NoReturn

from forkserver.logs.error_log import ErrorLog


def run_to_end(run: Callable[[], None], log: ErrorLog, name: str) -> NoReturn:
    """Call ``run`` in the forked process, and end it: with status 1 where ``run`` raises, which ``log`` tells.

    ``name`` is the process in that sentence. What the fork has taken along is frozen first: the collector is not to
    close descriptors by numbers that the master's objects have.
    """
    gc.freeze()
    try:
        run()
    except BaseException as error:  # whatever it is, no frame of the master's is to go on here
        log.exception(f"{name} cannot go on", error)
        os._exit(1)
    os._exit(0)
