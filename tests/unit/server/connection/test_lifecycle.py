"""How a connection ends: lingering, resets, closes, and what it gives back; on a fake socket, by a fake clock."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver.server.connection import lifecycle
from forkserver.server.connection.states import CALLING, CLOSED, LINGERING, READING, READY, UPGRADED
from forkserver.server.proxy.client_address import ProxiedAddress
from harness.fakes import FakeLoop, FakeSocket
from harness.late import LateError

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = GET[:-2] + b"Connection: close\r\n\r\n"
POST = b"POST /path HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.mark.parametrize(
    ("data", "more", "state"),
    [(CLOSE, b"", CLOSED), (CLOSE + GET, b"", LINGERING), (POST, b"", CLOSED), (POST, b"\r\n", LINGERING)],
    ids=["asked for", "bytes behind it", "a body", "old clients' CRLF behind a body"],
)
def test_a_close_lingers_only_where_it_could_become_a_reset(
    loop: FakeLoop, data: bytes, more: bytes, state: Any
) -> None:
    """Unread bytes turn a close into a reset, which can overtake the answer."""
    connection = loop.connect(data)
    connection.sock.incoming += more
    loop.serve()
    assert b"200 OK" in connection.sock.sent
    assert connection.state is state


def test_what_comes_while_it_lingers_is_dropped_until_the_client_ends(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    connection.linger()
    loop.send(connection, b"x" * 1000)
    assert not connection.sock.incoming
    assert connection.state is LINGERING
    connection.sock.ended = True
    loop.send(connection, b"")
    assert connection.state is CLOSED


def test_a_client_that_sends_without_end_is_not_read_without_end(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LINGER_BYTES", 5000)
    connection = loop.connect(GET)
    connection.linger()
    for _ in range(5):
        loop.send(connection, b"x" * 1000)
    assert connection.state is LINGERING
    loop.send(connection, b"x")
    assert connection.state is CLOSED


def test_a_client_that_has_gone_cannot_linger(loop: FakeLoop) -> None:
    connection = loop.connect()
    connection.sock.failed = True
    connection.linger()
    assert connection.state is CLOSED


def test_closing_twice_is_once(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    connection.close()
    connection.close()
    assert loop.left == [connection]
    assert connection.fd == -1
    assert connection.queue is None
    assert connection not in loop.poller.reading


def test_a_close_that_an_exception_breaks_off_closes_the_socket(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit that comes late may come there, too."""

    def struck(_connection: Any) -> None:
        raise LateError

    connection = loop.connect(GET)
    monkeypatch.setattr(loop, "leave", struck)
    with pytest.raises(LateError):
        connection.close()
    assert (connection.sock.closed, connection.fd) == (True, -1)


def test_a_close_that_is_broken_off_before_its_socket_is_found_by_what_goes_on_with_it(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck(_connection: Any) -> None:
        raise LateError

    connection = loop.connect(GET)
    with monkeypatch.context() as late:
        late.setattr(type(connection), "_close_descriptor", struck)
        with pytest.raises(LateError):
            connection.close()
    assert connection in loop.connections
    loop.leave(connection)
    connection.close()
    assert (connection.sock.closed, connection.fd) == (True, -1)


def test_a_close_that_was_broken_off_is_gone_on_with(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    connection.state = CLOSED  # and nothing more
    connection.close()
    assert (connection.sock.closed, connection.fd, connection.queue) == (True, -1, None)
    assert loop.left == [connection]


@pytest.mark.parametrize("state", [READING, LINGERING])
def test_a_connection_without_a_deadline_is_stranded(loop: FakeLoop, state: Any) -> None:
    connection = loop.connect()
    connection.state = state
    assert not connection.stranded
    connection.queue.discard(connection)
    assert connection.stranded
    connection.queue = None
    assert connection.stranded
    connection.queued = True
    assert not connection.stranded


@pytest.mark.parametrize("state", [READY, CALLING, UPGRADED, CLOSED])
def test_a_connection_that_waits_for_the_application_needs_no_deadline(loop: FakeLoop, state: Any) -> None:
    connection = loop.connect()
    connection.forget_deadline()
    connection.state = state
    assert not connection.stranded


def test_a_body_is_given_back_with_its_connection(loop: FakeLoop) -> None:
    local = FakeSocket(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + bytes(1000))
    local.family = socket.AF_UNIX
    connection = loop.connect(sock=local)
    assert loop.context.spool.memory < loop.context.settings.body_memory
    connection.close()
    assert loop.context.spool.memory == loop.context.settings.body_memory


def test_a_connection_that_is_cut_in_its_call_is_logged_with_what_was_sent(loop: FakeLoop) -> None:
    """The call may outlive the worker."""

    def app(_environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        yield b"12345"
        (connection,) = loop.connections
        loop.loop_lock.borrow(connection.cut)
        yield b"67890"

    loop.server.application = app
    connection = loop.connect(GET)
    loop.serve()
    assert connection.state is CLOSED
    assert [line[3:5] for line in loop.access] == [(200, 5)]
    assert bytes(connection.sock.sent).endswith(b"12345")


def test_the_body_of_a_call_stays_readable_when_its_connection_is_cut(loop: FakeLoop) -> None:
    read: list[bytes] = []

    def app(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        (connection,) = loop.connections
        loop.loop_lock.borrow(connection.cut)
        read.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b"no client gets this"]

    loop.server.application = app
    connection = loop.connect(POST)
    loop.serve()
    assert read == [b"body"]
    assert connection.upload is None


def test_a_forked_child_closes_its_copies_and_sends_nothing(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    connection.forget()
    assert connection.sock.closed
    assert (connection.fd, connection.interest, connection.sock.shut) == (-1, 0, [])
    assert loop.left == []


def test_the_order_of_idle_connections_is_kept_at_little_cost() -> None:
    """A busy connection is not put in order on every request, and yet waits for its whole time."""
    loop = FakeLoop(keep_alive=75.0)
    busy, other = loop.connect(GET), loop.connect(GET)
    loop.serve()
    loop.pass_time(0.5)
    loop.send(busy, GET)
    loop.serve()
    assert [*loop.timeouts.idle] == [busy, other]
    loop.pass_time(1)
    loop.send(busy, GET)
    loop.serve()
    assert [*loop.timeouts.idle] == [other, busy]
    loop.timeouts.hurry()
    loop.send(other, GET)
    loop.serve()
    assert [*loop.timeouts.idle] == [busy, other]


def test_a_retiring_worker_hands_a_connection_on_with_its_answer(loop: FakeLoop) -> None:
    loop.retiring = loop.takes_handed_on = True
    connection = loop.connect(GET)
    loop.serve()
    assert loop.handed_on == [connection]
    loop.takes_handed_on = False
    stays = loop.connect(GET)
    loop.serve()
    assert stays.state is READING


def test_an_answer_in_hand_says_that_the_connection_ends_where_it_still_can(loop: FakeLoop) -> None:
    def app(_environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        (connection,) = loop.connections
        connection.end_with_answer()
        start_response("200 OK", [])
        return [b"ok"]

    loop.server.application = app
    connection = loop.connect(GET)
    loop.serve()
    assert b"\r\nConnection: close\r\n" in connection.sock.sent
    assert connection.state is LINGERING


def test_a_client_that_came_to_its_proxy_by_tls_has_https(loop: FakeLoop) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        seen.append((environ.get("HTTPS"), environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]))
        start_response("200 OK", [])
        return []

    loop.server.application = app
    connection = loop.connect()
    connection.set_client_address(ProxiedAddress.of(("198.51.100.7", 9), 7))
    loop.send(connection, GET)
    loop.serve()
    assert seen == [("on", "https", "198.51.100.7")]
