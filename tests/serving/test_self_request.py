"""The request that a worker makes of itself before it says that it is ready (``ready_path``)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from harness import BOUND
from harness.worker import StartWorker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_rehearsal_ends_with_the_answer_of_an_application_thread(worker: StartWorker) -> None:
    """It closes its connection, which wakes no thread: ready_path and threads, and the worker never was ready."""
    asleep = threading.Event()

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        assert asleep.wait(BOUND)
        start_response("200 OK", [])
        return [b"ok"]

    server = worker(app, threads=2)
    poll = server.loop.poller.poll

    def last_poll(timeout: float | None, room: int) -> Any:
        if timeout is None:
            asleep.set()
            timeout = BOUND
            waits.append(bool(found := poll(timeout, room)))
            return found
        return poll(timeout, room)

    waits: list[bool] = []
    server.loop.poller.poll = last_poll
    assert server.httpd.check("/") == 200
    assert all(waits)


def test_a_rehearsal_is_none_of_max_requests(worker: StartWorker) -> None:
    """With 1 a worker was spent before it was ready, and the next, and the next."""
    server = worker(max_requests=1)
    spent: list[str] = []
    server.httpd.on_due_for_recycling = spent.append
    assert server.httpd.check("/") == 200
    assert not spent
    server.until_answered(server.client(GET), 3)
    assert spent


def test_a_rehearsal_has_the_environ_of_any_request(worker: StartWorker) -> None:
    """It may be read before the first turn of the loop; a health check that looks at SERVER_NAME failed then."""
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return [b"ok"]

    server = worker(app)
    assert server.httpd.check("/") == 200
    server.until_answered(server.client(GET))
    assert seen[0].keys() - seen[1].keys() <= {"HTTP_CONNECTION", "HTTP_USER_AGENT"}
    assert seen[1].keys() - seen[0].keys() == set()
    assert (seen[0]["SERVER_NAME"], seen[0]["SERVER_PORT"]) == (seen[1]["SERVER_NAME"], seen[1]["SERVER_PORT"])
