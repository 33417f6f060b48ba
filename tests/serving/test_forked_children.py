"""In a child that the application forked: what the worker had is closed here, and stays with the worker there.

The test is worker and child in one: ``forget`` closes what the child would have copies of.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forkserver.ipc.scoreboard import BUSY_SINCE, OPEN, REQUESTS, ROW_WORDS
from forkserver.server.connection.states import BODY, DRAINING, READY
from forkserver.server.threads.background_driver import INTERRUPT
from harness.worker import StartWorker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HALF = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000


def states(server: Any) -> set[int]:
    return {connection.state for connection in server.loop.connections}


def end_steward(server: Any) -> Any:
    """A child has no such thread."""
    background_driver = server.loop.background_driver
    if background_driver is not None:
        background_driver._over = True
        background_driver.rouse()
        background_driver._thread.join()
    return background_driver


def test_a_child_has_nothing_of_what_is_on_its_way(worker: StartWorker, tmp_path: Path) -> None:
    """Not the sockets, not the spool's files, not the application's file, which the worker will close."""
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    opened = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        opened.append((tmp_path / "file").open("rb"))
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](opened[-1])

    server = worker(app, body_memory=0)
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted sockets inherit it
    server.client(GET, receive_buffer=4096)
    server.turn_until(lambda: DRAINING in states(server))
    server.client(HALF)
    server.turn_until(lambda: BODY in states(server) and server.loop.context.spool.used >= 100_000)
    connections = list(server.loop.connections)
    [part] = [connection.transport.out.parts[0] for connection in connections if connection.transport.out]
    end_steward(server)
    server.httpd.forget()
    assert [connection.fd for connection in connections] == [-1, -1]
    assert [connection.sock.fileno() for connection in connections] == [-1, -1]
    assert part.file.closed
    assert not opened[0].closed, "its close() is called once, in the worker"
    opened[0].close()
    assert server.listener.fileno() == -1
    assert server.httpd.retired, "there is nothing for it to serve"


def test_requests_that_wait_are_not_served_by_a_child(worker: StartWorker) -> None:
    """A child that comes back from its call would find them behind the one it was forked in."""
    called, server = [], None

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        called.append(environ["PATH_INFO"])
        assert server is not None
        end_steward(server)
        for _ in range(1000):  # as the background driver does it meanwhile
            server.tend()
            if server.loop.calls:
                break
        assert READY in states(server)
        server.httpd.before_fork()
        server.httpd.forget()
        server.httpd.after_fork()
        start_response("200 OK", [])
        return [b"this reaches no client"]

    server = worker(app)
    server.client(GET)
    server.client(GET)
    server.turn_until(lambda: called)
    assert server.httpd.retired
    assert len(called) == 1
    assert not server.loop.calls


def test_what_a_child_does_is_not_shown_as_the_workers(worker: StartWorker) -> None:
    """The scoreboard's memory is shared."""
    server = None

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        assert server is not None
        end_steward(server)
        server.httpd.forget()
        start_response("200 OK", [])
        return [b"this reaches no client"]

    server = worker(app)
    server.client(GET)
    server.turn_until(lambda: server.loop.forked)
    words = server.row.words
    assert (words[OPEN], words[REQUESTS]) == (1, 0)
    assert words[ROW_WORDS + BUSY_SINCE]


def test_a_thread_of_a_child_may_fork(worker: StartWorker) -> None:
    """The baton that the worker took for the fork is given back in the child as well."""
    server = worker()
    server.httpd.before_fork()
    server.httpd.forget()
    server.httpd.after_fork()
    forked = threading.Event()

    def fork() -> None:
        server.httpd.before_fork()
        server.httpd.after_fork()
        forked.set()

    thread = threading.Thread(target=fork, daemon=True)
    thread.start()
    assert forked.wait(20)
    thread.join()


def test_a_child_wakes_nobody_and_writes_nowhere(worker: StartWorker, tmp_path: Path) -> None:
    server = worker()
    number = server.loop.poller.wakeup.fileno()
    with (tmp_path / "file").open("wb") as file:
        server.httpd.forget()
        os.dup2(file.fileno(), number)
        server.loop.wake()
        assert os.fstat(number).st_size == 0
        os.close(number)


def test_nothing_of_the_steward_is_left_in_a_child(worker: StartWorker) -> None:
    server = worker()
    server.client(GET)
    server.turn_until(lambda: server.row.words[REQUESTS])
    background_driver = end_steward(server)
    assert signal.getsignal(INTERRUPT) == background_driver._interrupted
    server.httpd.forget()
    assert signal.getsignal(INTERRUPT) is signal.SIG_DFL
    assert background_driver._wakeup.fileno() == -1
    background_driver.rouse()


def test_a_handler_of_the_applications_own_stays_in_a_child(worker: StartWorker) -> None:
    server = worker()
    server.client(GET)
    server.turn_until(lambda: server.row.words[REQUESTS])
    end_steward(server)

    def own(_signum: int, _frame: object) -> None:
        """A handler of the application's."""

    before = signal.signal(INTERRUPT, own)
    try:
        server.httpd.forget()
        assert signal.getsignal(INTERRUPT) is own
    finally:
        signal.signal(INTERRUPT, before)
