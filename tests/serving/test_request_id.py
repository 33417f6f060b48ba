"""The id of a request on its way: environ, answer, error log and scoreboard, with the extension and without it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.logs.access_log import AccessLog
from harness.plain_answers import GET, Application, both
from harness.plain_reading import OURS
from harness.worker import Slow, StartWorker

Start = Callable[..., Any]
NAMED = GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: from-the-proxy\r\n\r\n")
FORGED = GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: from \x1b[2J\r\n\r\n").replace(b"\x1b", b"\xff")
OWN_FIELD: dict[str, Any] = {"request_id_header": "X-Request-ID"}


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


class Worded(WSGIRequestHandler):
    """Whose page of an error is its own."""

    error_message_format = "%(code)d in own words"


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


def sent_id(answer: bytes) -> str:
    found = re.findall(rb"\r\nX-Request-Id: (.*)\r\n", answer)
    assert len(found) == 1, answer
    return str(found[0], "ascii")


LARGE = NAMED.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 999\r\n\r\n")
REFUSED = {
    b"nonsense\r\n\r\n": (400, OURS.pattern),
    b"GET / HTTP/1.1\r\nX-Request-Id: from-the-proxy\r\n\r\n": (400, OURS.pattern),
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000 + b"\r\n\r\n": (431, OURS.pattern),
    LARGE: (413, "from-the-proxy"),
    LARGE.replace(b"from-the-proxy", b"from \xff"): (413, OURS.pattern),
}


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Speaking, Worded, Blocking])
@pytest.mark.parametrize("asked", REFUSED)
def test_a_request_that_is_refused_has_an_id_too(
    worker: StartWorker,
    handler: type[WSGIRequestHandler],
    asked: bytes,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A proxy's, where the head could be read: so a client that shows its page is found in both logs."""
    status, named = REFUSED[asked]
    server = worker(plain, handler=handler, request_id_header="X-Request-Id", max_body=100)
    log = AccessLog(str(tmp_path / "log"), form="json")
    server.replace(access=log)
    client = server.client(asked)
    client.shutdown(socket.SHUT_WR)
    answer = server.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    found = sent_id(answer)
    assert re.fullmatch(named, found)
    assert capfd.readouterr().err.endswith(f" (request {found})\n")
    log.flush()
    log.close()
    (line,) = (json.loads(each) for each in (tmp_path / "log").read_text().splitlines())
    assert (line["status"], line["request_id"]) == (status, found)


def test_a_request_that_came_too_slowly_has_an_id(worker: StartWorker) -> None:
    server = worker(plain, request_id_header="X-Request-Id", header_timeout=15.0, body_timeout=15.0)
    head, body = server.client(b"GET /slow"), server.client(LARGE + b"abc")
    server.turn(3)
    server.pass_time(16)
    answers = [server.until_answered(client) for client in (head, body)]
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 408"] * 2
    assert OURS.fullmatch(sent_id(answers[0]))
    assert sent_id(answers[1]) == "from-the-proxy"


@pytest.mark.parametrize("handler", HANDLERS)
def test_without_the_setting_a_refusal_tells_the_client_no_id(
    worker: StartWorker, handler: type[WSGIRequestHandler]
) -> None:
    server = worker(plain, handler=handler)
    assert b"request-id" not in server.until_answered(server.client(b"nonsense\r\n\r\n")).lower()


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
