"""The access log in its other formats: the same with the extension and without it, and no request is left to Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.logs.access_log import AccessLog
from harness.plain_answers import GET, REQUESTS, Application, Told, both
from harness.plain_reading import OURS
from harness.worker import StartWorker

Start = Callable[..., Any]
ATOMS = (
    '%(h)s %(u)s "%(r)s" %(m)s %(U)s %(q)s %(H)s %(s)s %(b)s %(f)s %(a)s %({X-Own}i)s %({content-length}o)s '
    "%({x-own}o)s %({own}e)s %({HTTP_HOST}e)s %(id)s %(worker)s"
)
NAMED = GET.replace(b"\r\n\r\n", b'\r\nX-Request-Id: an-id\r\nReferer: http://r/\xff"\r\nX-Own: of the client\r\n\r\n')
PLACES = re.compile(r'"time":"[^"]+"|"(wait_|app_)?seconds":[0-9.]+|"pid":\d+')


def plain(environ: dict[str, Any], start_response: Start) -> list[bytes]:
    environ["own"], environ["HTTP_REFERER"], environ["HTTP_X_OWN"] = "of the application", "changed", "changed"
    start_response("200 OK", [("Content-Length", "4"), ("X-Own", "one"), ("x-own", "two")])
    return [b"body"]


def streams(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    environ["REMOTE_USER"], environ["own"] = "some one", object()
    start_response("200 OK", [("X-Own", "one")])
    yield b"body"
    yield b"more"


def empty(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
    start_response("304 Not Modified", [])
    return []


def raises(_environ: dict[str, Any], _start_response: Start) -> list[bytes]:
    raise LookupError("on purpose")


APPLICATIONS: list[Application] = [plain, streams, empty, raises]


def lines_of(told: Told, form: str, folder: Path) -> list[str]:
    """What one worker writes of all the requests."""
    path = folder / "log"
    log = AccessLog(str(path), form=form)
    log.identify(3, 2)
    told.worker.replace(access=log)
    for app in APPLICATIONS:
        for requests in (*REQUESTS.values(), NAMED):
            told.ask(app, requests)
    log.flush()
    log.close()
    lines = path.read_text("ascii").splitlines()
    if form == "json":
        found = [json.loads(each) for each in lines]
        assert len({tuple(each) for each in found}) == 1, "names, and their order"
        assert {each["pid"] for each in found} == {os.getpid()}
    return [PLACES.sub("", OURS.sub("ours", each)) for each in lines]


@pytest.mark.extension
@pytest.mark.parametrize("form", ["combined", "json", ATOMS])
def test_with_the_extension_and_without_it_lines_are_the_same(form: str, tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    with both() as (with_c, without):
        first, second = lines_of(with_c, form, tmp_path / "with"), lines_of(without, form, tmp_path / "without")
        served = with_c.served
    assert len(first) > 30
    assert [DATE.sub("", each) for each in first] == [DATE.sub("", each) for each in second]
    assert served > 15, "other formats decline no request"


DATE = re.compile(r"\[\d\d/\w{3}/[^\]]+\]")


class Blocking(WSGIRequestHandler):
    """Served on a blocking socket."""

    def handle(self) -> None:
        super().handle()


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Blocking])
def test_json_says_how_long_it_took(worker: StartWorker, handler: type[WSGIRequestHandler], tmp_path: Path) -> None:
    server = worker(plain, handler=handler)
    log = AccessLog(str(tmp_path / "log"), form="json")
    server.replace(access=log)
    server.until_answered(server.client(NAMED), 2)
    server.turn(2)
    log.flush()
    log.close()
    (line,) = (json.loads(each) for each in (tmp_path / "log").read_text().splitlines())
    assert (line["request_id"], line["status"], line["bytes"], line["host"]) == ("an-id", 200, 4, "a")
    assert line["referer"] == 'http://r/\\xff"'
    assert 0 <= line["app_seconds"] < 60
    assert handler is Blocking or line["wait_seconds"] >= 0


def test_a_refused_request_is_an_object_too(worker: StartWorker, tmp_path: Path) -> None:
    server = worker(plain)
    log = AccessLog(str(tmp_path / "log"), form="json")
    server.replace(access=log)
    server.until_answered(server.client(b'GET /"\x1b[2J HTTP/1.1\r\n\r\n'))
    log.flush()
    log.close()
    (line,) = (json.loads(each) for each in (tmp_path / "log").read_text().splitlines())
    assert (line["status"], line["seconds"]) == (400, None)
    assert OURS.fullmatch(line["request_id"])
    assert line["request"].startswith('GET /"')
