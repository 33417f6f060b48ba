"""Faults that a hostile reading found, each once: what must not come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.errors import AppError
from harness.worker import Clock, StartWorker

PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


def test_bytes_that_came_during_a_slow_call_are_read_before_they_are_judged(worker: StartWorker, clock: Clock) -> None:
    """The worker was late, not the client."""
    half = b"POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab"
    unfinished = server = None

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            clock.now += 40
            unfinished.sendall(b"cd")
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    server = worker(app, body_timeout=30.0)
    unfinished = server.client(half)
    server.turn(2)
    slow = server.client(GET % b"slow")
    assert server.until_answered(slow, 1).endswith(b"/slow")
    assert server.until_answered(unfinished, 3).endswith(b"/half")


def test_deadlines_hold_under_load(worker: StartWorker, clock: Clock) -> None:
    """A hundred busy connections fill every batch; a slow head is judged all the same."""
    server = worker(header_timeout=1.0)
    busy = [server.client() for _ in range(100)]
    slow = server.client(b"GET / HT")
    server.turn(110)
    clock.now += 1.5
    for client in busy:
        client.sendall(GET % b"busy")
    server.turn()
    assert server.until_answered(slow, 1).startswith(b"HTTP/1.1 408 ")
    assert all(server.until_answered(client, 1).endswith(b"GET /busy 0") for client in busy)


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
    server.loop.hooks.verify_request = True
    assert server.until_answered(server.client(GET % b"")) in (b"<closed>", b"<reset>")
    assert server.until_answered(server.client(GET % b"")).endswith(b"GET / 0")


def test_a_hook_that_raises_behind_a_proxy_header_lets_no_client_introduce_itself(worker: StartWorker) -> None:
    """What follows the header is the client's: read as a header once more, it would be whoever it says."""
    server = worker(proxy_protocol="on", proxy_allow_ips=["127.0.0.1"])
    asked = []

    def verify(_request: object, address: Any) -> bool:
        asked.append(address[0])
        if len(asked) == 1:
            raise LookupError("a hook's fault")
        return True

    server.httpd.verify_request = verify
    server.loop.hooks.verify_request = True
    client = server.client()
    server.turn()  # the header comes later than the connection
    client.sendall(PROXY)
    server.turn(2)
    client.sendall(PROXY.replace(b"192.0.2.1", b"127.0.0.1") + GET % b"forged")
    assert server.until_answered(client) in (b"<closed>", b"<reset>")
    assert asked == ["192.0.2.1"]
    assert not server.loop.connections


class Speaking(WSGIRequestHandler):
    def version_string(self) -> str:
        return "speaking"


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Speaking])
def test_a_host_that_a_trusted_proxy_names_goes_before_the_clients_target(
    worker: StartWorker, handler: type[WSGIRequestHandler]
) -> None:
    """A target in absolute form goes before Host, as RFC 9112 has it, but it is the client's own word as well."""
    said = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        said.append(environ["HTTP_HOST"])
        start_response("204 No Content", [])
        return []

    server = worker(app, handler=handler, forwarded_allow_ips=["127.0.0.1"], forwarded_fields=["x-forwarded-host"])
    told = b" HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: named\r\n\r\n"
    for line in (b"GET http://made.up/", b"GET /", b"GET http://made.up/", b"GET http://made.up/", b"GET /"):
        server.until_answered(server.client(line + told))
    client = server.client()
    for line in (b"GET /", b"GET http://made.up/", b"GET /", b"GET http://made.up/"):
        client.sendall(line + told)
        server.until_answered(client)
    assert said == ["named"] * 9


def test_accepting_resumes_when_a_connection_becomes_idle(worker: StartWorker) -> None:
    """At the limit, an idle connection is one to be closed for a newcomer, not one to wait for."""
    server = worker(worker_connections=1)
    busy = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
    server.turn(2)
    waiting = server.client(GET % b"")
    server.turn(3)
    busy.sendall(b"ok")
    assert server.until_answered(waiting).endswith(b"GET / 0")


def test_a_request_that_has_arrived_is_not_closed_to_make_room(worker: StartWorker) -> None:
    """Idle is who has sent nothing; the kernel knows more than epoll has told."""
    server = worker(worker_connections=2)
    first, second = server.client(GET % b""), server.client(GET % b"")
    for client in (first, second):
        server.until_answered(client, 3)
    first.sendall(GET % b"first")
    listener = server.loop.acceptor.listeners[0]
    newcomer = server.client(GET % b"new")
    server.loop.acceptor.take_and_serve(listener)
    assert b"/new 0" in server.until_answered(newcomer, 3)
    assert b"/first 0" in server.until_answered(first, 3)


def test_a_stream_is_not_one_block_behind_after_a_large_one(worker: StartWorker) -> None:
    """PEP 3333: a block is on its way before the next is asked for."""
    server = client = None
    seen = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        yield b"x" * 6_000_000
        while server.loop.connections and (connection := next(iter(server.loop.connections))).out:
            client.recv(1 << 20)
            connection.flush()
        yield b"small"
        seen.append(bool(connection.out))

    server = worker(app)
    client = server.client(GET % b"", receive_buffer=4096)
    client.settimeout(20)  # what the kernel has taken may be on its way yet
    server.turn(2)
    assert seen == [False]


def test_stray_bytes_do_not_turn_a_close_into_a_reset(worker: StartWorker) -> None:
    """Old clients send CRLF after a body; the answer must reach them whole."""
    client = None
    body = b"y" * 200_000

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        client.sendall(b"\r\n")
        start_response("200 OK", [])
        return [body]

    server = worker(app)
    client = server.client(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
    answer = server.until_answered(client, 200)
    assert answer.endswith(b"y<closed>")
    assert answer.partition(b"\r\n\r\n")[2] == body + b"<closed>"


def test_one_reader_cannot_take_the_whole_spool(worker: StartWorker) -> None:
    """A response has a share; uploads of others need room too."""
    server = worker(max_spool=8_000_000, max_body=1_000_000, write_timeout=0.01)
    server.httpd.set_app(lambda environ, start: (start("200 OK", []), (b"z" * 100_000 for _ in range(100)))[1])
    server.client(GET % b"", receive_buffer=4096)
    server.turn(2)
    assert server.loop.spool.used <= 2_000_000


def test_an_answer_that_is_whole_survives_what_its_generator_does_then(worker: StartWorker) -> None:
    """The last byte of Content-Length was sent: there is nothing left to spoil."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        yield b"whole"
        raise ValueError

    server = worker(app)
    assert server.until_answered(server.client(GET % b"")).endswith(b"whole<closed>")


def test_short_keep_alive_is_kept_too(worker: StartWorker) -> None:
    """The order of deadlines may be coarse, but not as coarse as the deadline."""
    server = worker(keep_alive=1.0)
    client = server.client(GET % b"")
    server.until_answered(client, 3)
    for _ in range(5):
        server.pass_time(0.85)
        client.sendall(GET % b"")
        assert server.until_answered(client, 3).endswith(b"GET / 0")


def test_an_application_may_empty_its_environ(worker: StartWorker) -> None:
    """PEP 3333: it may change the environ in any way it desires, with an access log too."""

    class Access:
        enabled = True

        def __init__(self) -> None:
            self.lines: list[tuple[object, ...]] = []

        def add(self, *line: object) -> None:
            self.lines.append(line)

        def flush(self) -> None:
            """Nothing is kept back."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ.clear()
        start_response("200 OK", [])
        return [b"fine"]

    server = worker(app)
    server.loop.access, server.loop.watched = Access(), True
    assert server.until_answered(server.client(GET % b"x?secret")).endswith(b"fine")
    assert server.loop.access.lines[0][2:5] == ("GET /x?secret HTTP/1.1", 200, 4)


def test_each_line_of_the_access_log_has_its_own_users_and_fields(worker: StartWorker) -> None:
    """On one connection a login changes the user, and each page is another one's referer."""
    lines: list[tuple[object, ...]] = []

    class Access:
        enabled = True

        def add(self, *line: object) -> None:
            lines.append(line)

        def flush(self) -> None:
            """Nothing is kept back."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["REMOTE_USER"] = int(environ["QUERY_STRING"])
        environ["HTTP_REFERER"] = environ["HTTP_USER_AGENT"] = "the application's own"
        start_response("200 OK", [])
        return [b"fine"]

    server = worker(app)
    server.loop.access, server.loop.watched = Access(), True
    client = server.client()
    for number in range(6):
        client.sendall(b"GET /?%d HTTP/1.1\r\nHost: a\r\nUser-Agent: u\r\nReferer: /%d\r\n\r\n" % (number, number))
        assert server.until_answered(client, 2).endswith(b"fine")
    assert [(line[1], line[2], line[5], line[6]) for line in lines] == [
        (str(number), f"GET /?{number} HTTP/1.1", f"/{number}", "u") for number in range(6)
    ]


def test_the_access_log_has_the_characters_of_a_user_whatever_its_class(worker: StartWorker) -> None:
    class Markup(str):
        def __str__(self) -> str:
            return "other"

    users: list[object] = []

    class Access:
        enabled = True

        def add(self, _peer: str, user: str, *_: object) -> None:
            users.append(user)

        def flush(self) -> None:
            """Nothing is kept back."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["REMOTE_USER"] = Markup("someone")
        start_response("200 OK", [])
        return [b"fine"]

    server = worker(app)
    server.loop.access, server.loop.watched = Access(), True
    assert server.until_answered(server.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 3).endswith(b"fine")
    assert [(type(user), user) for user in users] == [(str, "someone")]


def test_a_late_write_does_not_reach_the_next_answer(worker: StartWorker) -> None:
    """An application that keeps write() speaks to nobody."""
    kept = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        write = start_response("200 OK", [])
        if kept:
            kept[0](b"from the first request")
        kept.append(write)
        write(b"own")
        return []

    server = worker(app)
    client = server.client(GET % b"")
    server.until_answered(client, 3)
    client.sendall(GET % b"")
    assert server.until_answered(client, 3).startswith(b"HTTP/1.1 200 OK")


def test_late_early_hints_do_not_reach_the_next_answer(worker: StartWorker) -> None:
    """A proxy's kept connection carries another client's request by then."""
    kept: list[Callable[..., None]] = []
    refused: list[AppError] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        for hints in kept:
            try:
                hints([("Link", "</of-an-earlier-request>")])
            except AppError as error:
                refused.append(error)
        kept.append(environ["wsgi.early_hints"])
        start_response("200 OK", [])
        return [b"own"]

    server = worker(app)
    client = server.client()
    for _ in range(4):  # the environ of a header block that has come twice is remembered
        client.sendall(GET % b"")
        assert server.until_answered(client, 3).startswith(b"HTTP/1.1 200 OK")
    assert len(refused) == 1 + 2 + 3


def test_small_blocks_cost_their_overhead(worker: StartWorker) -> None:
    """A million one-byte blocks are no megabyte."""
    server = worker(lambda environ, start: (start("200 OK", []), (b"x" for _ in range(50_000)))[1])
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted sockets inherit it
    server.client(GET % b"", receive_buffer=4096)
    server.turn(2)
    [connection] = server.loop.connections
    assert len(connection.out.parts) < 5000


def test_a_connection_field_is_reported_once(worker: StartWorker, capfd: Any) -> None:
    """An application that sets one sets it in every answer."""
    server = worker(lambda environ, start: (start("200 OK", [("Upgrade", "x")]), [b""])[1])
    for _ in range(3):
        server.until_answered(server.client(GET % b""), 3)
    assert capfd.readouterr().err.count("dropped upgrade") <= 1


def test_a_field_that_varies_leaves_nothing_in_the_environ_of_others(worker: StartWorker) -> None:
    """What is remembered of an environ must be the block's own, not what came in its place since."""
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ["HTTP_X"] + environ.get("HTTP_LEFT", ""))
        environ["HTTP_X"] = environ["HTTP_LEFT"] = "the application's own"
        start_response("200 OK", [])
        return [b"whole"]

    server = worker(app)
    client = server.client()
    sent = [1, 2, 3, 2, 2, 4, 5, 2, 4]
    for value in sent:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\nC: d\r\n\r\n" % value)
        assert server.until_answered(client, 3).endswith(b"whole")
    assert seen == [str(value) for value in sent]
