"""Hooks of a handler or server class that raise, or that take long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.ipc.scoreboard import REQUESTS
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


class Slow(WSGIRequestHandler):
    """Looks what the master sees while a hook is at work."""

    look: Callable[[str], None]

    def get_environ(self) -> dict[str, Any]:
        self.look("get_environ")
        return super().get_environ()

    def log_request(self, *_: object) -> None:
        self.look("log_request")


def test_the_master_sees_a_hook_at_work_as_a_call(worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop waits for it, so one that hangs would hold the worker for ever: ``timeout`` is to find it."""
    seen = []

    def look(where: str) -> None:
        busy = server.row.busy()
        seen.append((where, busy.line if busy else None))

    def verify(_request: object, _address: object) -> bool:
        look("verify_request")
        return True

    monkeypatch.setattr(Slow, "look", lambda _, where: look(where), raising=False)
    server = worker(handler=Slow)
    server.httpd.verify_request = verify
    server.loop.context.hooks.verify_request = True
    assert b" 200 " in server.until_answered(server.client(GET_PATH % b"page?secret"))
    assert seen == [
        ("verify_request", "hook verify_request"),
        ("get_environ", "GET /page"),
        ("log_request", "GET /page"),
    ]
    assert server.row.busy() is None
    assert server.row.figure(REQUESTS) == 1


@pytest.mark.parametrize(("threads", "seen"), [(1, "hook service_actions"), (2, "")])
def test_the_master_sees_service_actions_at_work_where_the_row_has_a_place_for_it(
    worker: StartWorker, threads: int, seen: str
) -> None:
    """The thread that serves calls it. With several the loop has another one, and so is no call of theirs."""
    server = worker(threads=threads)
    found = []

    def service_actions() -> None:
        found.append([busy.line for each in range(threads) if (busy := server.row.busy(each))])

    server.httpd.service_actions = service_actions
    server.loop.context.hooks.service_actions = True
    server.loop.wake()
    server.httpd.handle_request()
    assert found == [[seen] if seen else []]
    assert server.row.busy() is None


@pytest.mark.parametrize("where", ["get_app", "get_stderr", "log_request"])
def test_a_hook_that_raises_leaves_nothing_in_the_spool_and_no_thread_busy(
    worker: StartWorker, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Else max_spool is used up some day, and the master kills a worker that seems to be in a call."""
    handler = {"log_request": FailingLog, "get_stderr": FailingStream}.get(where, WSGIRequestHandler)
    server = worker(raising, handler=handler)
    if where == "get_app":
        server.httpd.get_app = broken_get_app
        monkeypatch.setattr(server.loop.context.hooks, "get_app", True)  # which workers of the same classes share
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
