"""The id of a request on its way: environ, answer, error log and scoreboard, with the extension and without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from harness.plain_answers import GET, Application, both
from harness.plain_reading import OURS
from harness.worker import Slow, StartWorker

Start = Callable[..., Any]
NAMED = GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: from-the-proxy\r\n\r\n")
FORGED = GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: from \x1b[2J\r\n\r\n").replace(b"\x1b", b"\xff")
OWN_FIELD = {"request_id_header": "X-Request-ID"}


def plain(environ: dict[str, Any], start_response: Start) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["forkserver.request_id"].encode()]


def streams(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield environ["forkserver.request_id"].encode()
    yield b"!"


def empty(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
    start_response("304 Not Modified", [])
    return []


def own(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
    start_response("200 OK", [("x-request-id", "the-applications")])
    return [b"x"]


def own_stream(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [("X-REQUEST-ID", "the-applications")])
    yield b"x"


def raises(environ: dict[str, Any], _start_response: Start) -> list[bytes]:
    environ["forkserver.request_id"] = "not the application's to say"
    raise LookupError("on purpose")


def raises_later(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Length", "9")])
    yield b"x"
    raise LookupError("on purpose")


APPLICATIONS: list[Application] = [plain, streams, empty, own, own_stream, raises, raises_later]


ASKED = [GET, NAMED, FORGED, NAMED.replace(b"GET", b"HEAD"), NAMED * 2]


@pytest.mark.extension
@pytest.mark.parametrize("settings", [{}, OWN_FIELD, {"request_id_from": []} | OWN_FIELD])
def test_with_the_extension_and_without_it_the_id_is_the_same(settings: dict[str, Any]) -> None:
    with both(**settings) as (with_c, without):
        for app in APPLICATIONS:
            for asked in ASKED:
                assert with_c.ask(app, asked) == without.ask(app, asked), (app, asked)


@pytest.mark.extension
@pytest.mark.parametrize("asked", [GET, NAMED, FORGED])
def test_an_id_leaves_no_request_to_the_python_code(asked: bytes) -> None:
    with both(**OWN_FIELD) as (with_c, _):
        with_c.ask(plain, asked)
        assert with_c.served == 1


class Speaking(WSGIRequestHandler):
    """The environ is made by the handler."""

    def get_environ(self) -> dict[str, Any]:
        return super().get_environ()


class Blocking(WSGIRequestHandler):
    """Served on a blocking socket."""

    def handle(self) -> None:
        super().handle()


HANDLERS = [WSGIRequestHandler, Speaking, Blocking]


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_answer_and_the_environ_tell_the_same_id(worker: StartWorker, handler: type[WSGIRequestHandler]) -> None:
    server = worker(plain, handler=handler, request_id_header="X-Request-Id")
    answer = server.until_answered(server.client(NAMED))
    assert b"\r\nX-Request-Id: from-the-proxy\r\n" in answer
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"from-the-proxy")
    answer = server.until_answered(server.client(GET))
    sent = re.search(rb"\r\nX-Request-Id: (.*)\r\n", answer)
    assert sent is not None
    assert OURS.fullmatch(sent[1].decode())
    assert sent[1] in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_fault_is_told_with_the_id_to_the_operator_and_to_the_client(
    worker: StartWorker, handler: type[WSGIRequestHandler], capfd: pytest.CaptureFixture[str]
) -> None:
    server = worker(raises, handler=handler, request_id_header="X-Request-Id")
    answer = server.until_answered(server.client(NAMED))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nX-Request-Id: from-the-proxy\r\n" in answer
    assert "(request from-the-proxy): the application raised" in capfd.readouterr().err


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Speaking, Blocking])
def test_a_call_in_hand_shows_its_id(worker: StartWorker, app: Slow, handler: type[WSGIRequestHandler]) -> None:
    server = worker(app, handler=handler)
    seen: list[Any] = []
    app.during = lambda _environ: seen.append(server.row.busy())
    for asked in (NAMED, GET):
        server.until_answered(server.client(asked.replace(b"/a?b", b"/slow")), 3)
    assert seen[0].told() == "GET /slow (request from-the-proxy)"
    assert OURS.fullmatch(seen[1].request_id)


def test_a_child_of_the_applications_makes_other_ids(worker: StartWorker) -> None:
    server = worker(plain)
    context = server.loop.context
    before = context.request_ids.of({}, ("192.0.2.1", 1))
    context.forget()
    assert context.request_ids.of({}, ("192.0.2.1", 1))[-12:] != before[-12:]
