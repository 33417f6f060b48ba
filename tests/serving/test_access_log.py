"""Lines of the access log: one a request, with the fields of that request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.worker import Slow, StartWorker, read

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = GET.replace(b"/ ", b"/slow ")


def test_each_line_of_the_access_log_has_its_own_users_and_fields(worker: StartWorker) -> None:
    """On one connection a login changes the user, and each page is another one's referer."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["REMOTE_USER"] = int(environ["QUERY_STRING"])
        environ["HTTP_REFERER"] = environ["HTTP_USER_AGENT"] = "the application's own"
        start_response("200 OK", [])
        return [b"fine"]

    server = worker(app)
    lines = server.access_lines()
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

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["REMOTE_USER"] = Markup("someone")
        start_response("200 OK", [])
        return [b"fine"]

    server = worker(app)
    lines = server.access_lines()
    assert server.until_answered(server.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 3).endswith(b"fine")
    assert [(type(line[1]), line[1]) for line in lines] == [(str, "someone")]


def test_a_request_that_the_end_of_its_worker_cuts_off_is_logged(worker: StartWorker, app: Slow) -> None:
    """At once, and once: its call does not end."""
    server = worker(app)
    lines = server.access_lines()
    client = server.client(SLOW)

    def during(_environ: dict[str, Any]) -> None:
        with server.loop.loop_lock.mutex:
            server.httpd.close_now()
        assert [line[2:5] for line in lines] == [("GET /slow HTTP/1.1", 500, 0)]

    app.during = during
    server.until_answered(client)
    assert len(lines) == 1


def test_a_504_is_logged_with_its_request(worker: StartWorker, app: Slow) -> None:
    """At once, and once: its call may end after the worker, or never."""
    server = worker(app)
    lines = server.access_lines()
    slow = server.client(SLOW)

    def during(_environ: dict[str, Any]) -> None:
        with server.loop.loop_lock.mutex:
            assert server.httpd.expire(0, server.row.busy().since)
            (connection,) = server.loop.connections
            connection.expire()
        assert b" 504 " in read(slow, 13)
        assert len(lines) == 1

    app.during = during
    server.turn(2)
    page = server.until_answered(slow).removesuffix(b"<closed>").partition(b"\r\n\r\n")[2]
    assert [line[2:5] for line in lines] == [("GET /slow HTTP/1.1", 504, len(page))]
