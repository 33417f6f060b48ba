"""``python -m launch SERVER MODULE:APP HOST PORT WORKERS``: servers that have no program of their own for this."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


def run_bjoern(app: Any, host: str, port: int, workers: int) -> None:
    """More than one worker by fork, as its README has it."""
    import bjoern

    bjoern.listen(app, host, port)
    if workers == 1 or 0 in forks(workers):
        bjoern.run()
    else:
        for _ in range(workers):
            os.wait()


def forks(count: int) -> Iterator[int]:
    """What each fork returns: 0 in a child, which must not come back for the next one."""
    for _ in range(count):
        yield os.fork()


def run_fastpysgi(app: Any, host: str, port: int, workers: int) -> None:
    import fastpysgi

    fastpysgi.run(app, host, port, workers=workers)


SERVERS: dict[str, Callable[[Any, str, int, int], None]] = {"bjoern": run_bjoern, "fastpysgi": run_fastpysgi}

if __name__ == "__main__":
    server, named, host, port, workers = sys.argv[1:]
    module, _, attribute = named.partition(":")
    SERVERS[server](getattr(importlib.import_module(module), attribute), host, int(port), int(workers))
