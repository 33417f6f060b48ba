"""Handlers that need a blocking socket: of the stdlib's BaseHTTPRequestHandler, or ours with methods of it."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

from forkserver import WSGIRequestHandler
from harness.worker import StartWorker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Blocking(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()


class Waiting(WSGIRequestHandler):
    timeout = 0.1  # seconds of one read

    def handle(self) -> None:
        super().handle()


def test_a_blocking_handlers_client_that_was_turned_down_is_let_go(worker: StartWorker) -> None:
    """It need not close: the 503 lingers for some seconds, and then the connection is closed."""
    server = worker(handler=Blocking, queue_timeout=5)
    client = server.client(GET)
    call_all, server.loop.calls.call_all = server.loop.calls.call_all, lambda: None
    server.turn(2)
    server.clock.now += 6
    server.loop.calls.call_all = call_all
    assert b" 503 " in server.until_answered(client, 3)
    server.turn(2)  # its request is dropped
    server.pass_time(6)
    assert not server.loop.connections


def test_empty_lines_are_no_head_that_a_blocking_handler_is_called_for(worker: StartWorker) -> None:
    """The thread would wait for the request behind them, which may never come; header_timeout ends them instead."""
    server = worker(handler=Waiting, header_timeout=15)
    idle, late = server.client(b"\r\n\r\n"), server.client(b"\r\n\r\n")
    server.turn(3)
    assert len(server.loop.connections) == 2
    late.sendall(GET)
    assert b" 200 " in server.until_answered(late)
    server.pass_time(16)
    assert not server.loop.connections
    assert server.until_answered(idle, 3) in (b"<closed>", b"<reset>")
