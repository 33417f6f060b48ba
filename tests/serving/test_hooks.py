"""Hooks of a handler or server class that raise, or that take long."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.ipc.scoreboard import REQUESTS
from harness.worker import StartWorker

GET_PATH = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_base_exception_of_a_hook_costs_one_connection(worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's CancelledError and SystemExit are no reason to leave."""
    server = worker()
    raised = []

    def verify(_request: object, _address: object) -> bool:
        if not raised:
            raised.append(True)
            raise asyncio.CancelledError
        return True

    server.httpd.verify_request = verify
    monkeypatch.setattr(server.loop.context.hooks, "verify_request", True)
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
        (busy,) = server.row.calls()
        seen.append((where, busy.line))

    def verify(_request: object, _address: object) -> bool:
        look("verify_request")
        return True

    monkeypatch.setattr(Slow, "look", lambda _, where: look(where), raising=False)
    server = worker(handler=Slow)
    server.httpd.verify_request = verify
    monkeypatch.setattr(server.loop.context.hooks, "verify_request", True)
    assert b" 200 " in server.until_answered(server.client(GET_PATH % b"page?secret"))
    assert seen == [
        ("verify_request", "hook verify_request"),
        ("get_environ", "GET /page"),
        ("log_request", "GET /page"),
    ]
    assert server.row.busy() is None
    assert server.row.figure(REQUESTS) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_master_sees_a_hook_that_the_loop_calls_itself(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """The loop has a place of its own in the row, beside those of the threads, which are free meanwhile."""
    server = worker(threads=threads)
    found: list[tuple[list[str], bool]] = []

    def look(*_asked: object) -> bool:
        found.append(([busy.line for busy in server.row.calls()], server.row.idle()))
        return False

    server.httpd.service_actions = server.httpd.verify_request = look
    for name in ("service_actions", "verify_request"):  # workers of the same classes share what they override
        monkeypatch.setattr(server.loop.context.hooks, name, True)
    server.client()
    server.httpd.handle_request()
    assert found == [(["hook verify_request"], True), (["hook service_actions"], True)]
    assert server.row.calls() == []


class Refusing(WSGIRequestHandler):
    """Looks what the master sees while a request is refused."""

    look: Callable[[str], None]

    def log_message(self, *_: object) -> None:
        self.look("log_message")

    def version_string(self) -> str:
        self.look("version_string")
        return "mine"


@pytest.mark.parametrize("threads", [1, 2])
def test_the_master_sees_the_hooks_of_a_request_that_is_refused(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """A stranger chooses when they are called."""
    seen: list[tuple[str, list[str]]] = []

    def look(where: str) -> None:
        seen.append((where, [busy.line for busy in server.row.calls()]))

    monkeypatch.setattr(Refusing, "look", lambda _, where: look(where), raising=False)
    server = worker(handler=Refusing, threads=threads)
    assert b" 400 " in server.until_answered(server.client(b"GET / HTTP/1.1\r\n\r\n"))
    assert {where for where, _ in seen} == {"log_message", "version_string"}
    assert all(lines == ["hook send_error"] for _, lines in seen)
    assert server.row.calls() == []


def test_the_master_sees_what_is_called_of_a_fault_and_of_a_file(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[str, list[str]]] = []

    def look(where: str) -> None:
        seen.append((where, [busy.line for busy in server.row.calls()]))

    class File(io.FileIO):
        def close(self) -> None:
            if not self.closed:
                look("close")
            super().close()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](File(path))

    path = tmp_path / "file"
    path.write_bytes(b"x" * 8_000_000)
    server = worker(app, handler=FailingLog)
    server.httpd.handle_error = lambda *_: look("handle_error")  # type: ignore[method-assign]
    client = server.client(GET)
    server.turn(2)
    assert sorted(seen) == [("close", ["GET /"]), ("handle_error", ["hook handle_error"])]
    client.close()


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
