"""The same question to wsgiref and to forkserver, in this process: real sockets on loopback, no sleeps.

``ask`` needs no thread: the client's connection and request lie in the kernel before the server is told to take them.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

from harness import BOUND
from harness.clients import Address, Answer, Wire, request

WSGIREF = importlib.import_module("wsgiref.simple_server")
FORKSERVER = importlib.import_module("forkserver")
App = Callable[[dict[str, Any], Callable[..., Any]], Any]
PLAIN = (("Content-Type", "text/plain"),)  # a tuple: wsgiref adds to the list it is given


def ok(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    return [b"ok"]


def address_of(httpd: Any) -> Address:
    address = httpd.server_address
    return address if isinstance(address, str) else ("localhost" if address[0] == "" else address[0], address[1])


def ask(httpd: Any, data: bytes = request(), *, to_head: bool = False) -> Answer:
    """What ``httpd.handle_request`` answers to ``data``."""
    with Wire(address_of(httpd)) as wire:
        wire.send(data)
        httpd.handle_request()
        return wire.answer(to_head=to_head)


def refuse(httpd: Any, data: bytes = request()) -> bool:
    """Whether ``httpd.handle_request`` closes the connection without an answer to ``data``."""
    with Wire(address_of(httpd)) as wire:
        wire.send(data)
        httpd.handle_request()
        return wire.ended()


class Served:
    """``httpd.serve_forever`` in a thread of its own. Its context ends all."""

    def __init__(self, httpd: Any, poll_interval: float = 0.01) -> None:
        self.httpd = httpd
        self.address = address_of(httpd)
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, args=(poll_interval,))
        self._thread.start()

    def _serve(self, poll_interval: float) -> None:
        try:
            self.httpd.serve_forever(poll_interval)
        except BaseException as error:  # shown by the thread that closes
            self.failed = error

    def stop(self) -> None:
        """Have serve_forever return; the listener stays."""
        if self._thread.is_alive():
            self.httpd.shutdown()
        self._thread.join(BOUND)
        assert not self._thread.is_alive(), "serve_forever does not return"
        if self.failed is not None:
            raise self.failed

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.httpd.server_close()
