"""WebSocket as its users run it: Flask-Sock and simple-websocket on threads, directly and behind nginx."""

from __future__ import annotations

import base64
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simple_websocket import Client, ConnectionClosed

from forkserver.cli import control_client
from harness import BOUND, proxies
from harness.clients import Wire
from harness.processes import wait_gone
from harness.program import Program, listener

PAGE = Path(__file__).parents[2] / "docs" / "streams.md"
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
)
PING, PONG, MASK = 0x89, 0x8A, 0x80  # a whole frame's first octet, and the second's highest bit: RFC 6455 section 5.2
Serve = Callable[..., Program]


def url(address: object, path: str) -> str:
    assert isinstance(address, tuple)
    return f"ws://{address[0]}:{address[1]}{path}"


@contextmanager
def websocket(address: object, path: str = "/ws/echo") -> Iterator[Client]:
    client = Client(url(address, path))
    try:
        yield client
    finally:
        if client.connected:
            client.close()
        client.thread.join(BOUND)
        assert not client.thread.is_alive(), "the server ends it, too"


def echoed(client: Client, message: str | bytes) -> str | bytes | None:
    client.send(message)
    answer: str | bytes | None = client.receive(BOUND)
    return answer


def test_messages_of_any_kind_and_size_come_back(program: Serve) -> None:
    server = program("websocket_site:site", "--threads", "4")
    with websocket(server.address) as first, websocket(server.address) as second:
        for message in ("text", b"\0binary", "long" * 100_000, os.urandom(1 << 20)):
            assert echoed(first, message) == message
            assert echoed(second, message) == message
        with server.connect() as wire:
            assert wire.get("/pid").status == 200, "threads that are free serve on"
    assert server.stop() == 0
    assert " error " not in server.log.text()


def test_a_thread_is_free_again_when_its_client_has_gone(program: Serve) -> None:
    """By a farewell, and without one."""
    server = program("websocket_site:site", "--threads", "2")
    for _ in range(3):
        with websocket(server.address) as first, websocket(server.address) as second:
            assert echoed(first, "a") == echoed(second, "a")
            first.sock.shutdown(socket.SHUT_RDWR)
            first.thread.join(BOUND)
    with server.connect() as wire:
        assert wire.get("/pid").status == 200
    assert server.stop() == 0


def test_a_websocket_may_last_longer_than_timeout(program: Serve, tmp_path: Path) -> None:
    """Three pings, a second apart, are three times the timeout; then it still answers."""
    control = str(tmp_path / "control.sock")
    more = ("--threads", "2", "--timeout", "1", "--control-socket", control)
    server = program("websocket_site:site", *more, environ={"PING_SECONDS": "1"})
    with server.connect() as wire:
        wire.send(HANDSHAKE.format("/ws/echo").encode())
        assert wire.head().status == 101
        for _ in range(3):
            assert wire.exactly(2) == bytes((PING, 0))
            wire.send(bytes((PONG, MASK, 0, 0, 0, 0)))
        (worker,) = control_client.ask(control, {"command": "status"}, BOUND)["workers"]
        assert [(call["request"], call["websocket"]) for call in worker["busy"]] == [("GET /ws/echo", True)]
        assert worker["busy"][0]["seconds"] > 2
    assert server.stop() == 0
    assert "longer than it may" not in server.log.text()


def test_a_client_that_answers_no_ping_is_left(program: Serve) -> None:
    """The library closes the socket from a thread of its own, whose selector knows the descriptor by its number."""
    server = program("websocket_site:site", "--threads", "2", environ={"PING_SECONDS": "0.5"})
    with server.connect() as wire:
        wire.send(HANDSHAKE.format("/ws/echo").encode())
        assert wire.head().status == 101
        assert wire.exactly(2) == bytes((PING, 0))
        assert wire.exactly(1) == b"\x88", "a close frame"
        assert wire.count(100) < 100, "and the end"
    assert server.stop() == 0


@pytest.mark.parametrize("path", ["/ws/echo", "/ws/pid"])
def test_a_reload_ends_a_websocket_and_its_client_finds_the_new_workers(program: Serve, path: str) -> None:
    """Whatever its application waits for, it sees the end of its client."""
    server = program("websocket_site:site", "--threads", "2", "-w", "1")
    (old,) = server.workers()
    with websocket(server.address, path) as client:
        assert echoed(client, "before") == (str(old.pid) if path == "/ws/pid" else "before")
        server.reload()
        with pytest.raises(ConnectionClosed):
            client.receive(BOUND)
    assert wait_gone(old.pid)
    with websocket(server.address, "/ws/pid") as client:
        assert echoed(client, "which?") not in (None, str(old.pid))
    assert server.stop() == 0
    assert not re.search(r" (error|warning) worker", server.log.text())


def test_a_stop_ends_a_websocket(program: Serve) -> None:
    server = program("websocket_site:site", "--threads", "2")
    with websocket(server.address) as client:
        assert echoed(client, "before") == "before"
        assert server.stop() == 0
        with pytest.raises(ConnectionClosed):
            client.receive(BOUND)


def test_with_one_thread_the_log_says_what_to_do(program: Serve) -> None:
    server = program("websocket_site:site")
    with server.connect() as wire:
        wire.send(HANDSHAKE.format("/ws/echo").encode())
        assert wire.answer().status == 500
    server.log.wait(r'"GET /ws/echo": no socket for WebSocket: with one thread .*--threads N')
    assert server.stop() == 0


def site_of_the_page(front: str, back: str) -> str:
    """The nginx site of docs/streams.md, listening on ``front``, before ``back``."""
    (site,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    site = proxies.changed(PAGE, site, r"listen 80;", f"listen {front};")
    return proxies.changed(PAGE, site, r"server unix:.*;", f"server {back};")


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_the_nginx_site_of_the_page_passes_websockets(program: Serve, tmp_path: Path, family: str) -> None:
    listen = ("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "site.sock")
    server = program("websocket_site:site", "--threads", "4", listen=listen)
    back = f"unix:{listen}" if family == "unix" else "{}:{}".format(*server.address)
    with listener() as made:
        address = made.getsockname()
        site = site_of_the_page("{}:{}".format(*address), back)
        with proxies.nginx(tmp_path, site, made.fileno()):
            with websocket(address) as client:
                for message in ("text", os.urandom(1 << 20)):
                    assert echoed(client, message) == message
                with Wire(address) as wire:
                    assert wire.get("/pid").status == 200
                    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                    assert wire.get("/pid", headers=upgrade).status == 200
                server.reload()
                with pytest.raises(ConnectionClosed):
                    client.receive(BOUND)
            with websocket(address) as client:
                assert echoed(client, "after") == "after"
    assert server.stop() == 0
