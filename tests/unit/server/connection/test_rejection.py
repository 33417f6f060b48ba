"""Requests that are answered without the application: the page, both logs, and the end that follows."""

from __future__ import annotations

import re
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.errors import ProtocolError
from forkserver.logs.access_format import NO_FACTS
from forkserver.server.connection.rejection import client_address, refuse, request_line
from forkserver.server.connection.states import CLOSED, DRAINING, LINGERING
from harness.fakes import FakeLoop
from harness.plain_reading import OURS

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


def refused(status: int = 413, data: bytes = GET, room: int = 1 << 30, **settings: Any) -> tuple[FakeLoop, Any]:
    """A connection whose request was refused."""
    loop = FakeLoop(**settings)
    connection = loop.connect(data, room)
    refuse(connection, ProtocolError(status, "the reason"))
    return loop, connection


def sent(connection: Any) -> bytes:
    return bytes(connection.sock.sent)


@pytest.mark.parametrize(("status", "retry"), [(400, False), (408, False), (413, False), (431, False), (503, True)])
def test_the_page_has_the_status_and_ends_the_connection(status: int, retry: bool) -> None:
    _, connection = refused(status)
    assert sent(connection).startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in sent(connection)
    assert (b"\r\nRetry-After: 1\r\n" in sent(connection)) is retry
    assert b"the reason" not in sent(connection), "it is for the operator"
    assert connection.state is LINGERING
    assert connection.sock.shut


@pytest.mark.parametrize("data", [GET.replace(b"GET", b"HEAD"), b"HEAD /half"])
def test_a_head_request_gets_no_body(data: bytes) -> None:
    _, connection = refused(data=data)
    assert sent(connection).endswith(b"\r\n\r\n")
    assert sent(FakeLoop().connect(b"HEAD nonsense\r\n\r\n")).endswith(b"\r\n\r\n")


def test_both_logs_are_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    loop, connection = refused()
    told = capfd.readouterr().err
    assert "refused 413 to 192.0.2.7: the reason (raise --max-body if the application takes such bodies" in told
    assert re.search(rf': "GET /path HTTP/1\.1" \(request {OURS.pattern}\)\n\Z', told)
    size = len(sent(connection).partition(b"\r\n\r\n")[2])
    assert loop.access == [("192.0.2.7", "", "GET /path HTTP/1.1", 413, size, "", "", NO_FACTS)]


def test_a_client_that_has_gone_is_logged_with_no_bytes() -> None:
    loop = FakeLoop()
    connection = loop.connect(GET)
    connection.sock.failed = True
    refuse(connection, ProtocolError(413, "the reason"))
    assert connection.state is CLOSED
    assert loop.access[0][3:5] == (413, 0)


def test_a_page_that_the_client_does_not_take_at_once_is_drained() -> None:
    loop, connection = refused(room=10)
    assert connection.state is DRAINING
    connection.sock.room = 10_000
    connection.writable(4)
    assert connection.state is LINGERING
    assert connection.queue is loop.timeouts.discarding


@pytest.mark.parametrize(("status", "least", "most"), [(413, 25, 31), (408, 0, 6)])
def test_what_follows_is_dropped_for_a_bounded_time(status: int, least: float, most: float) -> None:
    """A proxy writes all of an upload before it reads the answer; a client that was too slow gets no further time."""
    loop, connection = refused(status)
    passed = 0
    while connection.state is LINGERING and passed < 100:
        loop.send(connection, b"x" * 1000)
        loop.pass_time(1.1)
        passed += 1
    assert least <= passed * 1.1 < most


def test_the_error_page_of_a_subclass_is_the_documented_one() -> None:
    class Handler(WSGIRequestHandler):
        error_message_format = "%(code)d of my own"
        error_content_type = "text/plain"

    _, connection = refused(handler=Handler)
    assert sent(connection).startswith(b"HTTP/1.1 413 ")
    assert sent(connection).endswith(b"413 of my own")


def test_a_server_of_another_name_has_it_on_its_error_pages() -> None:
    class Handler(WSGIRequestHandler):
        def version_string(self) -> str:
            return "mine"

    _, connection = refused(handler=Handler)
    assert b"\r\nServer: mine\r\n" in sent(connection)


def test_the_client_of_a_refusal_is_the_one_that_trusted_proxies_name() -> None:
    trusting: dict[str, Any] = {"forwarded_allow_ips": ["192.0.2.7"], "forwarded_fields": ["x-forwarded-for"]}
    loop = FakeLoop(**trusting)
    connection = loop.connect(GET[:-2] + b"X-Forwarded-For: 198.51.100.1\r\n\r\n")
    assert client_address(connection) == "198.51.100.1"
    stranger = FakeLoop().connect(GET[:-2] + b"X-Forwarded-For: 198.51.100.1\r\n\r\n")
    assert client_address(stranger) == "192.0.2.7"
    half = loop.connect(GET[:10])
    assert client_address(half) == "192.0.2.7"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (GET, "GET /path HTTP/1.1"),
        (b"GET /half", "GET /half"),
        (b"", ""),
        (b"GET /x HTTP/1.1\r\nHo", "GET /x HTTP/1.1"),
    ],
)
def test_the_request_line_is_told_as_far_as_it_was_read(data: bytes, line: str) -> None:
    assert request_line(FakeLoop().connect(data)) == line
