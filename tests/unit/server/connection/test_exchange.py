"""One request being answered: the call, what is told of it, and a call that is cut off; on a fake socket."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.server.connection.states import CALLING, CLOSED, LINGERING, READING, UPGRADED
from forkserver.server.wsgi.websocket import SOCKET, UpgradedSocket
from harness.fakes import FakeLoop, FakeServer
from harness.worker import hello

GET = b"GET /path?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n"
HANDSHAKE = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
Environ = dict[str, Any]
Start = Callable[..., Any]


def served(loop: FakeLoop, data: bytes = GET) -> Any:
    """A connection whose request was served."""
    connection = loop.connect(data)
    loop.serve()
    return connection


def sent(connection: Any) -> bytes:
    return bytes(connection.sock.sent)


# The call


def test_the_scoreboard_shows_the_call_while_it_lasts() -> None:
    seen = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        busy = loop.row.busy(1)
        assert busy is not None
        seen.append((busy.line, loop.loop_lock.outside, loop.roused))
        return hello(environ, start_response)

    loop = FakeLoop(app)
    loop.dozing = True
    loop.connect(GET)
    loop.submitted.popleft()[0].serve(1)
    assert seen == [("GET /path", True, 1)]
    assert loop.row.busy(1) is None


def test_deadlines_count_from_the_end_of_the_call() -> None:
    """A long call must not doom its own answer, nor the wait for the next request."""

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        loop.clock.now += 100
        return hello(environ, start_response)

    loop = FakeLoop(app, keep_alive=75.0)
    connection = served(loop)
    assert loop.timeouts.idle.deadline(connection) == loop.clock.now + 75


def test_the_access_log_gets_the_request_as_it_came_and_the_client_as_the_application_leaves_it() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        environ["REMOTE_USER"], environ["HTTP_USER_AGENT"] = "user", "made up"
        return hello(environ, start_response)

    loop = FakeLoop(app)
    served(loop, GET[:-2] + b"User-Agent: agent\r\nReferer: /from\r\n\r\n")
    assert loop.access == [("192.0.2.7", "user", "GET /path?secret=1 HTTP/1.1", 200, 11, "/from", "agent")]


def test_a_fault_of_the_application_is_a_500_and_one_event_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        raise LookupError("on purpose")

    loop = FakeLoop(app)
    connection = served(loop)
    assert sent(connection).startswith(b"HTTP/1.1 500 ")
    said = capfd.readouterr().err
    assert re.search(r"GET /path\?secret=1 \(request [0-9a-f-]{36}\): the application raised", said)
    assert "LookupError: on purpose" in said
    assert loop.access[0][3] == 500


@pytest.mark.parametrize(("closing", "retiring", "stays"), [(True, False, False), (False, True, True)])
def test_the_answer_ends_a_connection_that_cannot_go_on(closing: bool, retiring: bool, stays: bool) -> None:
    loop = FakeLoop()
    connection = loop.connect(GET)
    loop.closing, loop.retiring, connection.stays = closing, retiring, stays
    loop.serve()
    assert b"\r\nConnection: close\r\n" in sent(connection)
    assert connection.state is LINGERING


def test_hooks_of_a_handler_speak_for_the_request() -> None:
    class Handler(WSGIRequestHandler):
        def get_environ(self) -> Environ:
            return super().get_environ() | {"own": self.path}

        def version_string(self) -> str:
            return "mine"

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            logged.append((self.path, code, size))

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["own"].encode()]

    logged: list[Any] = []
    connection = served(FakeLoop(app, Handler))
    assert sent(connection).endswith(b"/path?secret=1")
    assert b"\r\nServer: mine\r\n" in sent(connection)
    assert logged == [("/path?secret=1", "200", 14)]


def test_get_app_of_a_server_gives_the_application() -> None:
    class Server(FakeServer):
        def get_app(self) -> Any:
            return hello

    assert sent(served(FakeLoop(None, server_class=Server))).endswith(b"GET /path 0")  # type: ignore[arg-type]


def test_a_request_whose_proxy_cannot_be_understood_is_refused() -> None:
    loop = FakeLoop(forwarded_allow_ips=["192.0.2.7"], forwarded_fields=["forwarded"])
    connection = loop.connect(GET[:-2] + b"Forwarded: for=\r\n\r\n")
    loop.serve()
    assert sent(connection).startswith(b"HTTP/1.1 400 ")
    assert loop.access[0][3] == 400


# A call that lasts too long


def test_a_client_is_answered_for_an_application_that_goes_on() -> None:
    """libpq and other C code waits on; the client need not."""

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        loop.loop_lock.borrow(connection.expire)
        return hello(environ, start_response)

    loop = FakeLoop(app)
    connection = loop.connect(GET)
    loop.serve()
    assert sent(connection).startswith(b"HTTP/1.1 504 ")
    assert b"200 OK" not in sent(connection)
    assert connection.state is LINGERING
    assert [line[3] for line in loop.access] == [504], "logged once, and before the call is over"


def test_an_answer_that_has_begun_is_cut() -> None:
    """A status line cannot be taken back; a reset says that the answer is not whole."""

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "8")])
        yield b"half"
        loop.loop_lock.borrow(connection.expire)
        yield b"half"

    loop = FakeLoop(app)
    connection = loop.connect(GET)
    loop.serve()
    assert sent(connection).endswith(b"\r\n\r\nhalf")
    assert connection.state is CLOSED
    assert [line[3:5] for line in loop.access] == [(200, 4)]


def test_an_answer_that_is_whole_is_left_alone() -> None:
    """The application has said all, and tidies up."""

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        yield b"whole"
        loop.loop_lock.borrow(connection.expire)

    loop = FakeLoop(app)
    connection = loop.connect(GET)
    loop.serve()
    assert connection.state is READING


# WebSocket


class Upgrade:
    """A handshake on a socket pair, and an application that does ``during`` with the socket it is offered."""

    def __init__(self, threaded: bool = True) -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.ours = ours
        self.loop = FakeLoop(self.application)
        self.loop.threaded = threaded
        self.during: Callable[[UpgradedSocket], object] = lambda _: None
        self.offered: UpgradedSocket | None = None

    def application(self, environ: Environ, start_response: Start) -> list[bytes]:
        self.offered = environ.get(SOCKET)
        if self.offered is not None:
            self.during(self.offered)
        return hello(environ, start_response)

    def serve(self, data: bytes = HANDSHAKE) -> Any:
        self.client.sendall(data)
        connection = self.loop.connect(sock=self.ours)
        self.loop.serve()
        return connection


@pytest.fixture
def upgrade() -> Iterator[Upgrade]:
    made = Upgrade()
    yield made
    made.ours.close()
    made.client.close()


def test_a_socket_that_is_not_used_leads_nowhere_afterwards(upgrade: Upgrade) -> None:
    connection = upgrade.serve()
    assert connection.state is READING
    assert upgrade.offered is not None
    assert upgrade.offered.fileno() == -1


def test_a_socket_that_is_used_leaves_the_loop(upgrade: Upgrade) -> None:
    seen: list[Any] = []

    def speak(offered: UpgradedSocket) -> None:
        offered.sendall(b"four")
        (connection,) = upgrade.loop.connections
        busy = upgrade.loop.row.busy()
        assert busy is not None
        seen.append((connection.state, connection in upgrade.loop.poller.reading, connection.queue, busy.websocket))
        upgrade.loop.pass_time(10_000)

    upgrade.during = speak
    connection = upgrade.serve()
    assert seen == [(UPGRADED, False, None, True)]
    assert upgrade.client.recv(100) == b"four", "and no answer behind it"
    assert connection.state is LINGERING
    assert [line[3:5] for line in upgrade.loop.access] == [(101, 4)]
    connection.close()


@pytest.mark.parametrize("data", [GET, HANDSHAKE.replace(b"GET", b"DELETE")])
def test_other_requests_are_offered_no_socket(upgrade: Upgrade, data: bytes) -> None:
    upgrade.serve(data)
    assert upgrade.offered is None


def test_with_one_thread_there_is_no_socket(upgrade: Upgrade) -> None:
    """It would stop the worker."""
    upgrade.loop.threaded = False
    upgrade.serve()
    assert upgrade.offered is None


def test_a_client_that_speaks_before_it_is_answered_is_refused(upgrade: Upgrade) -> None:
    """RFC 6455 section 4.1: it waits. A library that polls the socket would never see what was read already."""
    connection = upgrade.serve(HANDSHAKE + b"\x81\x80early")
    assert upgrade.client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert connection.state is LINGERING
    assert upgrade.offered is None


def test_a_worker_that_retires_lets_the_application_see_the_end_of_its_client(upgrade: Upgrade) -> None:
    ends: list[bytes] = []

    def wait(offered: UpgradedSocket) -> None:
        offered.setblocking(True)
        (connection,) = upgrade.loop.connections
        connection.stop_reading()
        ends.append(offered.recv(1))

    upgrade.during = wait
    upgrade.serve().close()
    assert ends == [b""]


def test_a_call_in_hand_streams_when_its_answer_has_begun() -> None:
    seen = []

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        (connection,) = loop.connections
        seen.append((connection.state, connection.streams))
        yield b"x"
        seen.append((connection.state, connection.streams))

    loop = FakeLoop(app)
    connection = served(loop)
    assert seen == [(CALLING, False), (CALLING, True)]
    assert not connection.streams
