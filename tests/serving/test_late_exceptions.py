"""Time limits that come late, one after the other: no connection, descriptor, lock or thread is lost by them.

What they break off may cost its client the answer; what comes afterwards is served as ever.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler as StdlibHandler

import pytest

from forkserver import WSGIRequestHandler
from harness import BOUND
from harness.late import LateError
from harness.worker import StartWorker, Worker, wait_until

STRIKES = 1500
PATHS = (b"/plain", b"/blocks", b"/big")
BIG = b"x" * 300_000


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    start_response("200 OK", [])
    body = {"/plain": [b"plain"], "/blocks": iter([b"two", b"blocks"])}
    return body.get(environ["PATH_INFO"], [BIG])


def ask(server: Worker, path: bytes, close: bool) -> bytes:
    """What a client gets who asks for ``path`` twice, and for the close with the first request where that is said."""
    data = b""
    with socket.create_connection(server.address, BOUND) as client, suppress(OSError):
        for last in (close, True)[: 1 if close else 2]:
            client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path, b"Connection: close\r\n" * last))
        while piece := client.recv(1 << 16):
            data += piece
    return data


class Service:
    """``server`` with a thread that turns its loop, clients that ask until ``close``, and late exceptions."""

    def __init__(self, server: Worker) -> None:
        self.server = server
        self._over = self._ended = False
        self._loop = threading.Thread(target=self._turn)
        self._clients = [threading.Thread(target=self._ask, args=(path, last)) for path in PATHS for last in (0, 1)]
        for each in (self._loop, *self._clients):
            each.start()

    def _turn(self) -> None:
        while not self._ended:
            self.server.loop.turn(0.05)

    def _ask(self, path: bytes, close: int) -> None:
        while not self._over:
            ask(self.server, path, bool(close))

    def strike(self) -> None:
        """Raise LateError once in each application thread, wherever it is."""
        pool = self.server.loop.calls.pool
        assert pool is not None
        for thread in pool._threads:
            if thread.is_alive():
                assert thread.ident is not None
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(LateError))

    def calm_down(self) -> None:
        """Have every client answered or closed."""
        self._over = True
        for each in self._clients:
            each.join(BOUND)
            assert not each.is_alive(), "a client waits for an answer"

    def close(self) -> None:
        self._over = self._ended = True
        for each in (*self._clients, self._loop):
            each.join(BOUND)


def open_sockets() -> int:
    """How many descriptors of this process are sockets."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return found


class QuietHandler(StdlibHandler):
    """A handler of the standard library's, which needs a blocking socket."""

    def log_message(self, *_arguments: Any) -> None:
        """Standard error is for what the server says."""


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """Coverage is not measured: that runs between the lines of what it looks at, and lets exceptions in there."""
    of_threads, of_this = threading.gettrace(), sys.gettrace()
    threading.settrace(None)  # type: ignore[arg-type]
    sys.settrace(None)
    yield
    sys.settrace(of_this)
    threading.settrace(of_threads)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("accelerator", "handler"), [("on", WSGIRequestHandler), ("off", WSGIRequestHandler), ("off", QuietHandler)]
)
def test_a_storm_of_late_exceptions_loses_nothing(
    worker: StartWorker,
    accelerator: str,
    handler: Any,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pytest's hooks run in the thread that is struck, and are struck, too.
    monkeypatch.setattr(sys, "unraisablehook", print)
    monkeypatch.setattr(threading, "excepthook", print)
    server = worker(app, threads=2, handler=handler)
    if accelerator == "off":
        server.loop.plain = None
    before, threads = open_sockets(), threading.active_count()
    service = Service(server)
    try:
        moment = threading.Event()
        for _ in range(STRIKES):
            service.strike()
            moment.wait(0.0005)
        service.calm_down()
        for path, size in ((b"/plain", 5), (b"/blocks", 9), (b"/big", len(BIG))):
            assert len(ask(server, path, True)) > size
        wait_until(lambda: not server.loop.connections)
    finally:
        service.close()
    pool = server.loop.calls.pool
    assert pool is not None
    pool.look_at = 0.0  # a thread may have been struck before its first step; while a request waits, that is looked for
    pool.fill()
    assert open_sockets() == before
    assert threading.active_count() == threads
    assert [server.row.busy(thread) for thread in range(2)] == [None, None]
    assert "LateError" in capfd.readouterr().err
