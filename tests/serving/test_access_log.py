"""Lines of the access log: one a request, with the fields of that request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkserver.logs.access_log import AccessLog
from forkserver.server.wsgi.access_log_entry import UNLOGGED
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


class Unspeakable:
    """What the application may put into an environ: each method that may be asked raises."""

    def __str__(self) -> str:
        raise LookupError("no code is to ask")

    __repr__ = __format__ = __str__  # type: ignore[assignment]


class UnspeakableText(str):
    """The same as text."""

    def isascii(self) -> bool:
        raise LookupError("no code is to ask")

    __str__ = __format__ = encode = replace = isprintable = partition = isascii  # type: ignore[assignment]


@pytest.mark.parametrize("accelerator", ["on", "off"])
@pytest.mark.parametrize(
    "form", ["combined", "json", "%(h)s %(u)s %(f)s %(a)s %(r)s %(id)s %({REMOTE_ADDR}e)s %({Host}i)s"]
)
def test_what_the_application_puts_into_its_environ_costs_no_answer(
    worker: StartWorker, tmp_path: Path, form: str, accelerator: str
) -> None:
    """Whatever it is, and under whichever name that the server has set, or reads afterwards."""
    names = ["REMOTE_USER", "HTTP_REFERER", "own", UNLOGGED]
    values: list[object] = [None, Unspeakable(), UnspeakableText("a\xe9"), "\ud800", 10**5000, [1]]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        names.extend(name for name in environ if name not in names)
        number, _, value = environ["QUERY_STRING"].partition("&")
        environ[names[int(number)]] = values[int(value)]
        start_response("200 OK", [])
        return [b"fine"]

    server = worker(app, forwarded_allow_ips=["127.0.0.1"])
    log = AccessLog(str(tmp_path / "log"), form=form)
    server.replace(access=log)
    if accelerator == "off":
        server.loop.plain = None
    client = server.client()
    asked = 0
    while asked < len(names) * len(values):
        number, value = divmod(asked, len(values))
        client.sendall(b"GET /?%d&%d HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n" % (number, value))
        data = b""
        while not data.endswith((b"fine", b"<closed>")):
            data += server.until_answered(client, 1)
        assert data.endswith(b"fine"), (names[number], value)
        asked += 1
    assert len(names) > 25
    log.flush()
    log.close()
    assert (tmp_path / "log").read_text().count("\n") == asked


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
