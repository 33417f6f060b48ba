"""Whose call a thread has in hand, and where that thread is, while the application is at it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.worker.stacks.thread_stacks import call_stack
from harness import BOUND
from harness.worker import Slow, StartWorker, wait_until

SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


class Blocking(WSGIRequestHandler):
    def handle(self) -> None:
        super().handle()


@pytest.mark.parametrize("changes", [{}, {"handler": Blocking}])
def test_the_background_driver_sees_the_main_threads_call(
    worker: StartWorker, app: Slow, changes: dict[str, Any]
) -> None:
    """The order to look comes while the call goes on, and is heard beside it."""
    server = worker(app, **changes)
    seen: list[Any] = []

    def look() -> None:
        client, ident = server.httpd.call_of(0)
        seen.append((client, ident, call_stack(ident)))

    def during(_environ: dict[str, Any]) -> None:
        wait_until(lambda: server.loop.tended)
        beside = threading.Thread(target=look)
        beside.start()
        beside.join(BOUND)

    app.during = during
    server.until_answered(server.client(SLOW), 3)
    ((client, ident, stack),) = seen
    assert client == "127.0.0.1"
    assert ident == threading.get_ident()
    assert "in during: beside." in stack.text
    assert stack.place == stack.text.split(": ")[0]
    assert stack.text.split("\n")[-1].startswith("(forkserver: "), "no frame of the server's is shown"


def test_the_client_is_the_one_that_a_trusted_proxy_names(worker: StartWorker, app: Slow) -> None:
    server = worker(app)
    seen = []
    app.during = lambda _environ: seen.append(server.httpd.call_of(0)[0])
    server.until_answered(server.client(SLOW.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")))
    assert seen == ["192.0.2.7"]


def test_each_application_thread_is_found_by_its_number(worker: StartWorker, app: Slow) -> None:
    server = worker(app, threads=2)
    both, leave = threading.Barrier(3), threading.Event()
    idents = []

    def during(_environ: dict[str, Any]) -> None:
        idents.append(threading.get_ident())
        both.wait(BOUND)
        leave.wait(BOUND)

    app.during = during
    clients = [server.client(SLOW) for _ in range(2)]
    try:
        server.turn_until(lambda: len(idents) == 2)
        both.wait(BOUND)
        found = [server.httpd.call_of(number) for number in range(2)]
    finally:
        leave.set()
    for client in clients:
        server.turn_until(lambda client=client: server.until_answered(client))
    assert {ident for _, ident in found} == set(idents)
    assert [client for client, _ in found] == ["127.0.0.1"] * 2
    assert server.httpd.call_of(2) == ("", None), "the place of hooks that the loop calls itself"


def test_a_thread_that_has_nothing_in_hand_has_no_client(worker: StartWorker, app: Slow) -> None:
    server = worker(app)
    server.until_answered(server.client(SLOW))
    assert server.httpd.call_of(0)[0] == ""
