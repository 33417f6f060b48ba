"""``python -m launch SERVER MODULE:APP HOST PORT WORKERS [CERTIFICATE KEY]``: servers without a program for this."""

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


def run_cheroot(app: Any, host: str, port: int, _workers: int, certificate: str, key: str) -> None:
    """Over TLS, and idle connections kept as long as its command line is told elsewhere."""
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    server = Server((host, port), app, timeout=75)
    server.ssl_adapter = BuiltinSSLAdapter(certificate, key)
    server.safe_start()


SERVERS: dict[str, Callable[..., None]] = {
    "bjoern": run_bjoern,
    "fastpysgi": run_fastpysgi,
    "cheroot": run_cheroot,
}

if __name__ == "__main__":
    server, named, host, port, workers, *files = sys.argv[1:]
    module, _, attribute = named.partition(":")
    SERVERS[server](getattr(importlib.import_module(module), attribute), host, int(port), int(workers), *files)
