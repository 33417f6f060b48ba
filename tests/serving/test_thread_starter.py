"""Where the kernel gives no thread, requests are served without it, the log says so once, and it is tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from forkserver.server.threads.thread_starter import FIRST_DELAY, LAST_DELAY, NO_THREAD
from harness import BOUND

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Refusals:
    """The kernel's refusals to start a thread: ``room`` more are given, and then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int = 0) -> None:
        self.room, self.refused = room, 0
        start: Callable[[threading.Thread], None] = threading.Thread.start

        def limited(thread: threading.Thread) -> None:
            if self.room <= 0:
                self.refused += 1
                raise RuntimeError(NO_THREAD)
            self.room -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])
    return [threading.current_thread().name.encode()]


def answered(server: Any) -> bytes:
    """An answer by whatever thread, which may not have begun when the loop has nothing more to do."""
    client, data = server.client(GET), b""
    end = time.monotonic() + BOUND
    while not data.endswith((b"MainThread", b"app-0", b"app-1")) and time.monotonic() < end:
        server.loop.turn(0.01)
        with suppress(BlockingIOError):
            data += client.recv(1 << 16)
    return data


def test_a_worker_serves_without_its_background_thread(
    worker: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refusals = Refusals(monkeypatch)
    server = worker(app)
    for _ in range(5):
        assert server.until_answered(server.client(GET)).startswith(b"HTTP/1.1 200 ")
    assert server.loop.background_driver is None
    assert refusals.refused == 1, "no thread is asked for with each request"
    said = capfd.readouterr().err
    assert said.count("the worker serves without its background thread") == 1
    assert "Traceback" not in said
    refusals.room = 1
    server.clock.now += FIRST_DELAY
    assert server.until_answered(server.client(GET)).startswith(b"HTTP/1.1 200 ")
    assert server.loop.background_driver is not None
    assert capfd.readouterr().err.count("threads can be started again") == 1


def test_a_pool_serves_with_the_threads_that_it_has(
    worker: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refusals = Refusals(monkeypatch, room=1)
    server = worker(app, threads=2)
    assert answered(server).endswith(b"app-0")
    said = capfd.readouterr().err
    assert said.count("requests are served by 1 of 2 threads") == 1
    refusals.room = 1
    server.clock.now += LAST_DELAY
    assert answered(server).startswith(b"HTTP/1.1 200 ")
    assert len(server.loop.calls.pool) == 2


def test_the_loop_serves_while_a_pool_has_no_thread_at_all(
    worker: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refusals = Refusals(monkeypatch)
    server = worker(app, threads=2)
    for _ in range(3):
        assert answered(server).endswith(b"MainThread")
    assert capfd.readouterr().err.count("requests are served by one thread") == 1
    refusals.room = 2
    server.clock.now += FIRST_DELAY
    assert answered(server)[:-1].endswith(b"app-"), "one of the pool's threads"
    assert len(server.loop.calls.pool) == 2
