"""Hooks of a handler or server class that raise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from harness.worker import StartWorker

GET_PATH = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_base_exception_of_a_hook_costs_one_connection(worker: StartWorker) -> None:
    """asyncio's CancelledError and SystemExit are no reason to leave."""
    server = worker()
    raised = []

    def verify(_request: object, _address: object) -> bool:
        if not raised:
            raised.append(True)
            raise asyncio.CancelledError
        return True

    server.httpd.verify_request = verify
    server.loop.context.hooks.verify_request = True
    assert server.until_answered(server.client(GET_PATH % b"")) in (b"<closed>", b"<reset>")
    assert server.until_answered(server.client(GET_PATH % b"")).endswith(b"GET / 0")


class FailingLog(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        raise ValueError("a hook's fault")


class FailingStream(WSGIRequestHandler):
    def get_stderr(self) -> Any:
        return self

    def write(self, _text: str) -> None:
        raise ValueError("a hook's fault")


def raising(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    raise LookupError("the application's fault")


def broken_get_app() -> Any:
    raise ValueError("a hook's fault")


@pytest.mark.parametrize("where", ["get_app", "get_stderr", "log_request"])
def test_a_hook_that_raises_leaves_nothing_in_the_spool_and_no_thread_busy(
    worker: StartWorker, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    """Else max_spool is used up some day, and the master kills a worker that seems to be in a call."""
    handler = {"log_request": FailingLog, "get_stderr": FailingStream}.get(where, WSGIRequestHandler)
    server = worker(raising, handler=handler)
    if where == "get_app":
        server.httpd.get_app, server.loop.context.hooks.get_app = broken_get_app, True
    size = 200_000
    server.until_answered(server.client(GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: %d\r\n\r\n" % size))
    (connection,) = server.loop.connections
    client = server._clients[0]
    client.setblocking(True)
    client.sendall(b"x" * size)
    client.setblocking(False)
    server.turn(5)
    assert connection not in server.loop.connections
    assert "a hook's fault" in capfd.readouterr().err
    assert server.loop.context.spool.used == 0
    assert server.row.busy() is None
