"""Each request's environ is its own (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.worker import StartWorker

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


def test_an_application_may_empty_its_environ(worker: StartWorker) -> None:
    """PEP 3333: it may change the environ in any way it desires, with an access log too."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ.clear()
        start_response("200 OK", [])
        return [b"fine"]

    server = worker(app)
    lines = server.access_lines()
    assert server.until_answered(server.client(GET % b"x?secret")).endswith(b"fine")
    assert lines[0][2:5] == ("GET /x?secret HTTP/1.1", 200, 4)


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
