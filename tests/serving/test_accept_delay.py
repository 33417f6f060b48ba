"""Requests that have waited in the kernel's queue, unaccepted, while the worker's only thread was in a call."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.ipc.figures import WAITED
from forkserver.ipc.scoreboard import REQUESTS
from forkserver.server.connection import plain_exchange
from forkserver.server.pressure import accept_delay
from harness import credentials
from harness.worker import Slow, StartWorker

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"
Wait = Callable[[float], None]


class Speaking(WSGIRequestHandler):
    def version_string(self) -> str:
        return "speaking"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Has the kernel say how long the bytes of each connection have waited."""

    def say(seconds: float) -> None:
        monkeypatch.setattr(accept_delay, "waiting_seconds", lambda _descriptor: seconds)

    say(0.0)
    return say


@pytest.fixture(params=["extension", "python"], autouse=True)
def _both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(plain_exchange, "load", lambda: None)


def test_a_request_that_came_during_a_call_and_waited_too_long_is_turned_down(
    worker: StartWorker, app: Slow, waited: Wait
) -> None:
    """It was served, seconds late, although queue_timeout was set; and so were all behind it."""
    server = worker(app, queue_timeout=3)
    late = []

    def during(_environ: dict[str, Any]) -> None:
        late.append(server.client(GET % b"late"))
        waited(3.1)
        server.clock.now += 3.1

    app.during = during
    assert server.until_answered(server.client(GET % b"slow")).endswith(b"slow")
    answer = server.until_answered(late[0])
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After" in answer
    assert server.row.words[REQUESTS] == 1, "the application has not seen it"


def test_a_request_that_has_waited_less_is_served_and_its_wait_is_in_the_figures(
    worker: StartWorker, waited: Wait
) -> None:
    server = worker(queue_timeout=3)
    server.clock.now = time.monotonic()  # the scoreboard's clock
    waited(2.9)
    client = server.client(GET % b"")
    assert server.until_answered(client, 3).endswith(b"GET / 0")
    told = server.row.words[WAITED]
    assert told >= 2.9e9
    waited(0.0)
    client.sendall(GET % b"")
    assert server.until_answered(client, 3).endswith(b"GET / 0")
    assert server.row.words[WAITED] - told < 2.9e9, "the next request of the connection has not waited"


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Speaking])
def test_it_is_so_behind_a_proxy_header_and_with_a_class_of_the_applications(
    worker: StartWorker, waited: Wait, handler: type[WSGIRequestHandler]
) -> None:
    server = worker(queue_timeout=3, proxy_protocol="on", proxy_allow_ips=["127.0.0.1"], handler=handler)
    waited(3.1)
    assert server.until_answered(server.client(PROXY + GET % b"")).startswith(b"HTTP/1.1 503 ")


def test_a_connection_in_tls_has_waited_since_its_handshake_came(
    worker: StartWorker, waited: Wait, tmp_path: Path
) -> None:
    server = worker(queue_timeout=3, tls=credentials.server(tmp_path))
    waited(3.1)
    client, incoming, outgoing = server.client(), ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = credentials.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    client.sendall(outgoing.read())
    incoming.write(server.until_answered(client))
    tls.do_handshake()
    tls.write(GET % b"")
    client.sendall(outgoing.read())
    incoming.write(server.until_answered(client).removesuffix(b"<closed>"))
    assert tls.read(1 << 16).startswith(b"HTTP/1.1 503 ")


BODIES = b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


@pytest.mark.parametrize("rest", [b"\r\n", *BODIES])
def test_a_request_whose_rest_came_later_has_not_waited(worker: StartWorker, waited: Wait, rest: bytes) -> None:
    """Until then the worker waited for it."""
    for size in (0, len(rest) - 1):
        server = worker(queue_timeout=3)
        waited(3.1)
        client = server.client((GET % b"")[:-2] + rest[:size])
        server.turn(2)
        client.sendall(rest[size:])
        assert server.until_answered(client).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_is_asked_for_has_not_waited(worker: StartWorker, waited: Wait) -> None:
    server = worker(queue_timeout=3)
    waited(3.1)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert server.until_answered(client, 3).startswith(b"HTTP/1.1 100 ")
    client.sendall(b"hi")
    assert server.until_answered(client).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_has_said_nothing_has_not_waited(worker: StartWorker) -> None:
    """Browsers connect ahead of requests."""
    server = worker(queue_timeout=3)
    client = server.client()
    server.turn(2)
    (connection,) = server.loop.connections
    assert connection.backlog_seconds == 0
    client.sendall(GET % b"")
    assert server.until_answered(client).startswith(b"HTTP/1.1 200 ")
