"""What both logs say of requests that are refused, and of pages that the server itself answers with."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.errors import ProtocolError
from forkserver.logs.error_log import ErrorLog
from forkserver.server.client_notices import Notices
from forkserver.server.connection.rejection import refuse
from forkserver.server.connection.states import BODY
from harness.plain_reading import OURS

HOST = b"Host: a\r\n"
Serve = Callable[..., Any]


class Told:
    """The error log of a worker and the lines of its access log."""

    enabled = plain = True
    parts = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = ErrorLog(str(path), "info", "worker=1 gen=1")
        self.lines: list[tuple[Any, ...]] = []

    def listen_to(self, server: Any) -> None:
        server.replace(log=self._log, notices=Notices(self._log), access=self)

    def add(self, *line: Any) -> None:
        self.lines.append(line)

    def flush(self) -> None:
        """Nothing is kept back."""

    @property
    def access(self) -> list[tuple[str, str, int, int]]:
        """Client, request line, status and bytes of the body."""
        return [(line[0], *line[2:5]) for line in self.lines]

    @property
    def errors(self) -> list[str]:
        """Messages without the id of a request that is ours (test_request_id.py)."""
        messages = (line.split(" ", 5)[5] for line in self._path.read_text().splitlines())
        return [re.sub(rf" \(request {OURS.pattern}\)", "", message) for message in messages]

    def close(self) -> None:
        os.close(self._log.fileno())


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path / "error.log")
    yield made
    made.close()


def body_size(answer: bytes) -> int:
    return len(answer.removesuffix(b"<closed>").partition(b"\r\n\r\n")[2])


class Worded(WSGIRequestHandler):
    """Whose page of an error is its own."""

    error_message_format = "%(code)d in own words"


class Blocking(WSGIRequestHandler):
    """Which is served the blocking way."""

    def setup(self) -> None:
        super().setup()


SINS = {
    b"GET /no%20host?a=b HTTP/1.1\r\n\r\n": ("GET /no%20host?a=b HTTP/1.1", 400, "HTTP/1.1 without Host"),
    b"\r\nGET /x HTTP/3.0\r\n\r\n": ("GET /x HTTP/3.0", 505, "an HTTP version other than 1"),
    b"HEAD /x HTTP/1.1\r\n\r\n": ("HEAD /x HTTP/1.1", 400, "HTTP/1.1 without Host"),
    b"nonsense\r\n\r\n": ("nonsense", 400, "malformed request line"),
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n": (
        "POST / HTTP/1.1",
        413,
        "the body is larger than 100 bytes",
    ),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n": ("POST / HTTP/1.1", 400, ""),
}


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Worded, Blocking], ids=["plain", "hook", "blocking"])
@pytest.mark.parametrize("sent", SINS)
def test_a_refused_request_is_in_both_logs_as_far_as_it_was_read(
    worker: Serve, told: Told, handler: type, sent: bytes
) -> None:
    """Which client asked what, why it was refused, and what went out: once in each."""
    line, status, reason = SINS[sent]
    server = worker(handler=handler, max_body=100)
    told.listen_to(server)
    client = server.client(sent)
    client.shutdown(socket.SHUT_WR)  # or the worker waits for the rest of the body
    answer = server.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert told.access == [("127.0.0.1", line, status, body_size(answer))]
    (said,) = told.errors
    assert said.startswith(f"refused {status} to 127.0.0.1: {reason}")
    assert said.endswith(f': "{line}"')


def test_a_second_refusal_of_a_connection_is_not_told_by_the_first_ones_line(worker: Serve, told: Told) -> None:
    server = worker()
    told.listen_to(server)
    client = server.client(b"GET /fine HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /later HTTP/1.1\r\n\r\n")
    server.until_answered(client)
    assert [line[1:3] for line in told.access] == [("GET /fine HTTP/1.1", 200), ("GET /later HTTP/1.1", 400)]


def test_a_head_and_a_body_that_take_too_long_are_told_of(worker: Serve, told: Told) -> None:
    server = worker(header_timeout=15.0, body_timeout=15.0)
    told.listen_to(server)
    slow = server.client(b"GET /slow")
    slower = server.client(b"POST /slower HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nabc")
    server.turn(3)
    server.pass_time(16)
    pages = {server.until_answered(client).partition(b" ")[2][:3] for client in (slow, slower)}
    assert pages == {b"408"}
    assert {(line[1], line[2]) for line in told.access} == {("GET /slow", 408), ("POST /slower HTTP/1.1", 408)}
    assert told.errors == ['refused 408 to 127.0.0.1: the request took too long: "GET /slow"'], "one for each client"


def test_a_client_behind_a_proxy_is_named_once_its_head_is_read(worker: Serve, told: Told) -> None:
    server = worker(body_timeout=15.0)
    told.listen_to(server)
    fields = HOST + b"X-Forwarded-For: 192.0.2.1\r\nContent-Length: 9\r\n\r\n"
    client = server.client(b"POST / HTTP/1.1\r\n" + fields)
    server.turn(3)
    (connection,) = server.loop.connections
    assert connection.state == BODY
    server.pass_time(16)
    server.until_answered(client)
    assert told.access[0][0] == "192.0.2.1"
    assert told.errors[0].startswith("refused 408 to 192.0.2.1: ")


@pytest.mark.parametrize(
    ("handler", "line"), [(WSGIRequestHandler, "GET /x HTTP/1.1"), (Blocking, "GET /x")], ids=["plain", "blocking"]
)
def test_a_request_that_waited_too_long_is_told_of(worker: Serve, told: Told, handler: type, line: str) -> None:
    server = worker(handler=handler, queue_timeout=5)
    told.listen_to(server)
    client = server.client(b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n")
    call_all, server.loop.calls.call_all = server.loop.calls.call_all, lambda: None
    server.turn(2)
    server.clock.now += 6
    server.loop.calls.call_all = call_all
    answer = server.until_answered(client)
    assert told.access == [("127.0.0.1", line, 503, body_size(answer))]
    assert told.errors == [f'refused 503 to 127.0.0.1: the request has waited longer than queue_timeout: "{line}"']


def test_what_a_proxy_says_and_cannot_be_read_is_told_of(worker: Serve, told: Told) -> None:
    server = worker(forwarded_fields=["forwarded"])
    told.listen_to(server)
    server.until_answered(server.client(b"GET / HTTP/1.1\r\n" + HOST + b'Forwarded: for="\r\n\r\n'))
    assert told.access[0][:3] == ("127.0.0.1", "GET / HTTP/1.1", 400)
    assert told.errors == ['refused 400 to 127.0.0.1: malformed Forwarded: "GET / HTTP/1.1"']


def test_a_long_request_line_is_cut_in_the_access_log(worker: Serve, told: Told) -> None:
    server = worker(limit_request_line=1000)
    told.listen_to(server)
    server.until_answered(server.client(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"))
    ((_, line, status, _),) = told.access
    assert (len(line), status) == (1000, 414)


def test_a_client_that_has_gone_was_sent_nothing(worker: Serve, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    server = worker()
    told.listen_to(server)
    server.client()
    server.turn(2)
    (connection,) = server.loop.connections

    def broken(_data: bytes) -> int:
        raise ConnectionResetError

    connection.transport._send = broken
    refuse(connection, ProtocolError(400, "a reason"))
    assert told.access == [("127.0.0.1", "", 400, 0)]
    assert not server.loop.connections


def failing(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    raise LookupError("on purpose")


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Blocking])
def test_the_page_of_a_fault_has_its_bytes_in_the_access_log(worker: Serve, told: Told, handler: type) -> None:
    server = worker(failing, handler=handler)
    told.listen_to(server)
    answer = server.until_answered(server.client(b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"))
    assert told.access == [("127.0.0.1", "GET /x HTTP/1.1", 500, body_size(answer))]
    assert body_size(answer) > 0


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Worded, Blocking], ids=["plain", "hook", "blocking"])
def test_a_sender_that_is_not_believed_is_told_of_once(worker: Serve, told: Told, handler: type) -> None:
    server = worker(handler=handler, forwarded_allow_ips=["10.0.0.1"])
    told.listen_to(server)
    for _ in range(2):
        request = b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-Proto: https\r\n\r\n"
        assert b"200 OK" in server.until_answered(server.client(request))
    (said,) = told.errors
    assert re.match(r"X-Forwarded-Proto from 127\.0\.0\.1 dropped: .*--forwarded-allow-ips 127\.0\.0\.1 ", said)


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Worded, Blocking], ids=["plain", "hook", "blocking"])
def test_both_names_of_the_target_are_there(worker: Serve, handler: type) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{environ['REQUEST_URI']} {environ['RAW_URI']}".encode()]

    server = worker(app, handler=handler)
    client = server.client()
    for number in range(1 if handler is Blocking else 3):  # the same head each time is remembered
        client.sendall(b"GET /a%%20b?%d HTTP/1.1\r\n" % number + HOST + b"\r\n")
        answer = server.until_answered(client, 3)
        assert b"/a%%20b?%d /a%%20b?%d" % (number, number) in answer
