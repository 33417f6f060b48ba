"""A connection for a blocking handler: when it is given to the server, and what becomes of it."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn
from typing import Any

import pytest

from forkserver.http1.in_the_clear import HINT
from forkserver.server.blocking.connection import BlockingConnection
from forkserver.server.connection.states import CLOSED, LINGERING, READING, READY
from forkserver.server.threads.thread_starter import NO_THREAD
from harness import BOUND
from harness.fakes import FakeLoop, FakeServer, FakeSocket
from harness.late import LateError

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


class Server(FakeServer):
    """Notes what it is to process; ``error`` is what its handler raises."""

    error: BaseException | None = None

    def process_request(self, request: Any, client_address: Any) -> None:
        self.processed.append((request, client_address, request.gettimeout()))
        if self.error is not None:
            raise self.error
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        self.turned_away.append(request)
        request.close()


class House:
    """A connection of a blocking handler on a socket pair, in a loop of fakes."""

    def __init__(self, ours: socket.socket, client: socket.socket, server_class: Any, **settings: Any) -> None:
        self.ours, self.client = ours, client
        self.loop = FakeLoop(handler=BaseHTTPRequestHandler, server_class=server_class, **settings)
        self.server = self.loop.server
        self.connection = self.loop.connect(connection_class=BlockingConnection, sock=ours)

    def send(self, data: bytes, event: int = 0) -> None:
        self.client.sendall(data)
        self.connection.readable(event)


Make = Callable[..., House]


@pytest.fixture
def make() -> Iterator[Make]:
    ours, client = socket.socketpair()
    ours.setblocking(False)
    client.settimeout(BOUND)
    yield lambda server_class=Server, **settings: House(ours, client, server_class, **settings)
    ours.close()
    client.close()


@pytest.mark.parametrize(
    "head", [GET, b"GET / HTTP/1.0\n\n", b"\r\n\r\n" + GET, b"GET / HTTP/1.1\r\nX: " + bytes(64 * 1024)],
    ids=["a head", "bare line feeds", "empty lines before it", "too large a head"],
)  # fmt: skip
def test_the_server_gets_the_socket_when_a_head_can_be_read_and_all_of_it(make: Make, head: bytes) -> None:
    house = make(body_timeout=7.0)
    house.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    house.send(head)
    assert house.connection.state is READY
    house.loop.serve()
    ((request, address, timeout),) = house.server.processed
    assert (request, address, timeout) == (house.ours, ("192.0.2.7", 4711), 7.0)
    assert house.connection.state is CLOSED
    assert house.loop.left == [house.connection]
    assert house.connection.queue is None


def test_a_client_that_sends_nothing_or_half_a_head_occupies_no_thread(make: Make) -> None:
    house = make(header_timeout=15.0)
    for data in (b"\r\n\r\n", GET[:10], GET[10:-1]):
        house.send(data)
        assert house.connection.state is READING
    house.loop.pass_time(16)
    assert house.connection.state is CLOSED
    assert not house.server.processed


def test_a_head_without_an_end_is_served_when_the_client_sends_nothing_more(make: Make) -> None:
    """The stdlib's handlers take what `printf 'GET / HTTP/1.0\\n' | nc` sends."""
    house = make()
    house.client.sendall(b"GET / HTTP/1.0\n")
    house.client.shutdown(socket.SHUT_WR)
    house.connection.readable(select.EPOLLIN | select.EPOLLRDHUP)
    assert house.connection.state is READY


@pytest.mark.parametrize("gone", [False, True])
def test_a_client_that_goes_before_its_head_is_closed(make: Make, gone: bool) -> None:
    house = make()
    if gone:
        house.ours.close()
    else:
        house.client.close()
    house.connection.readable()
    assert house.connection.state is CLOSED


def test_the_scoreboard_shows_the_request_line_that_was_peeked_at(make: Make) -> None:
    seen = []

    class Looking(Server):
        def process_request(self, request: Any, client_address: Any) -> None:
            busy = house.loop.row.busy(1)
            assert busy is not None
            seen.append((busy.line, house.connection.line, house.loop.loop_lock.outside))
            request.close()

    house = make(Looking)
    house.loop.dozing = True
    house.send(b"\r\n" + GET.replace(b"/path", b"/path?secret=1"))
    house.loop.submitted.popleft()[0].serve(1)
    assert seen == [("GET /path", b"GET /path?secret=1", True)]
    assert house.loop.row.busy(1) is None
    assert house.loop.roused == 1


def test_a_socket_of_get_requests_own_is_served_at_once() -> None:
    """What it has read already, TLS for example, cannot be seen."""
    loop = FakeLoop(handler=BaseHTTPRequestHandler, server_class=Server)
    own = FakeSocket()
    own.timeout = 3.0
    connection = loop.connect(connection_class=BlockingConnection, sock=own)
    assert connection.state is READY
    loop.serve()
    assert loop.server.processed == [(own, ("192.0.2.7", 4711), 3.0)], "with the timeout that get_request has set"


def test_a_fault_of_the_handler_is_for_handle_error(make: Make) -> None:
    house = make()
    house.server.error = LookupError()
    house.send(GET)
    house.loop.serve()
    assert house.server.faults == house.server.turned_away == [house.ours]
    assert house.connection.state is CLOSED


def test_what_ends_the_process_closes_the_socket_and_goes_on(make: Make) -> None:
    house = make()
    house.server.error = SystemExit()
    house.send(GET)
    with pytest.raises(SystemExit):
        house.loop.serve()
    assert (house.server.faults, house.server.turned_away) == ([], [house.ours])
    assert house.connection.state is CLOSED
    assert house.loop.row.busy() is None


@pytest.mark.parametrize("broken_off", ["shutdown_request", "_ready_request"])
def test_what_an_exception_breaks_off_is_closed_all_the_same(
    make: Make, broken_off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit that comes late may come before the socket is the server's, or while that closes it."""

    def struck(*_arguments: object) -> None:
        raise LateError

    house = make()
    owner: Any = house.server if broken_off == "shutdown_request" else BlockingConnection
    monkeypatch.setattr(owner, broken_off, struck)
    house.send(GET)
    with pytest.raises(LateError):
        house.loop.serve()
    assert house.ours.fileno() == -1
    assert not house.loop.handler_sockets


def test_without_a_thread_for_it_a_request_is_served_in_this_one(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    class Threaded(ThreadingMixIn, Server):
        _threads: Any = None

        def process_request(self, request: Any, client_address: Any) -> None:
            raise RuntimeError(NO_THREAD)

        def finish_request(self, request: Any, client_address: Any) -> None:
            self.processed.append(request)

    house = make(Threaded)
    house.send(GET)
    house.loop.serve()
    assert house.server.processed == [house.ours]
    assert house.server.faults == []
    assert "requests are served one by one" in capfd.readouterr().err


def test_a_request_that_waits_too_long_is_answered_by_the_worker(make: Make) -> None:
    """The handler has not seen it, and never will."""
    house = make()
    house.send(GET)
    house.connection.turn_down()
    assert house.client.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert house.connection.state is LINGERING
    assert not house.server.processed


def test_a_client_that_verify_request_does_not_want_is_shut_down(make: Make) -> None:
    house = make()
    house.connection.turn_away()
    assert house.server.turned_away == [house.ours]
    assert house.connection.state is CLOSED


@pytest.fixture
def tls() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_client_that_speaks_http_to_an_https_port_is_told_so(
    make: Make, tls: ssl.SSLContext, method: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """No handler is to see it."""
    house = make()
    house.connection.listener.tls = tls
    house.send(GET.replace(b"GET", method))
    answer = house.client.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (HINT.encode() in answer) is (method == b"GET")
    assert house.connection.state is LINGERING
    assert not house.server.processed
    assert "no TLS on an address that speaks it" in capfd.readouterr().err
    assert house.loop.access[0][2:4] == (f"{method.decode()} /path HTTP/1.1", 400)


def test_a_handshake_that_fails_costs_its_client_alone(make: Make, tls: ssl.SSLContext) -> None:
    house = make(body_timeout=5.0)
    house.connection.listener.tls = tls
    house.send(b"\x16\x03\x01\0\x05hello")
    assert house.connection.state is READY, "a handshake begins"
    house.client.shutdown(socket.SHUT_WR)
    house.loop.serve()
    assert house.connection.state is CLOSED
    assert (house.server.processed, house.server.faults) == ([], [])
