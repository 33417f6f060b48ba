"""Faults that a hostile reading found between workers and between threads, each once: what must not come back."""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS, WAITING
from forkserver.server.handoff.queue import Handoff
from harness.worker import StartTwoWorkers, StartWorker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = GET.replace(b"/ ", b"/slow ")
BIG = 8_000_000
BOUND = 20.0  # seconds, against hanging


class Slow:
    """An application whose ``/slow`` does what the test says."""

    def __init__(self) -> None:
        self.during: Callable[[dict[str, Any]], Any] = lambda _environ: None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        body = (self.during(environ) or [b"slow"]) if environ["PATH_INFO"] == "/slow" else [b"quick"]
        start_response("200 OK", [])
        return body


@pytest.fixture
def app() -> Slow:
    return Slow()


def read(client: socket.socket, size: int) -> bytes:
    """``size`` bytes of what ``client`` gets, without a turn of ours."""
    client.settimeout(BOUND)
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    client.setblocking(False)
    return data


def wait_until(true: Callable[[], object]) -> None:
    """Wait for what a thread does; there is no event to wait for, so look again and again, bounded."""
    pulse = threading.Event()
    for _ in range(int(BOUND / 0.002)):
        if true():
            return
        pulse.wait(0.002)
    raise AssertionError("it has not come true")


def retires(server: Any) -> Callable[[dict[str, Any]], None]:
    """What the steward does in a call when the order to retire comes."""

    def retire(_environ: dict[str, Any]) -> None:
        with server.loop.loop_lock:
            server.httpd.retire(30, handoff=True)

    return retire


def events_in(server: Any, turns: int, descriptor: int) -> int:
    """In how many of so many turns ``descriptor`` was ready."""
    poll, seen = server.loop._poll, []
    server.loop._poll = lambda timeout, room: seen.append(poll(0, room)) or seen[-1]
    server.turn(turns)
    server.loop._poll = poll
    return sum(descriptor in dict(events) for events in seen)


# Between workers


def test_what_was_yielded_before_the_call_was_slow_goes_out_too(worker: StartWorker, app: Slow) -> None:
    """When the block is kept nobody drives beside; the steward comes later and must find it."""
    server = worker(app)
    slow = server.client(SLOW, receive_buffer=4096)
    got = []

    def body() -> Iterator[bytes]:
        yield b"x" * BIG
        got.append(len(read(slow, BIG)))
        yield b"end"

    app.during = lambda _environ: body()
    server.until_answered(slow)
    assert got == [BIG]


def test_a_stop_is_heard_by_who_retires_and_drains(two_workers: StartTwoWorkers) -> None:
    """Reload, drain_delay, stop: nobody takes from the queue any more, so nothing may be put there."""
    first, second = two_workers(lambda _environ, start: (start("200 OK", []) and None) or [b"x" * BIG])
    client = first.client(GET, receive_buffer=4096)
    first.turn(2)
    first.httpd.retire(30, handoff=True)
    first.httpd.drain()
    second.httpd.retire(30, handoff=False)
    first.httpd.retire(30, handoff=False)
    assert first.until_answered(client, 5000).endswith(b"x" * 100)
    client.sendall(GET)
    assert b"Connection: close" in first.until_answered(client, 5)


def test_who_waits_for_room_in_the_queue_does_not_spin_after_a_stop(
    two_workers: StartTwoWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the client that would have gone is let go in time."""
    first, _ = two_workers()
    client = first.client(GET)
    first.until_answered(client, 3)
    with monkeypatch.context() as full:
        full.setattr(Handoff, "give", lambda *_: False)
        full.setattr(Handoff, "full", lambda _: True)
        first.httpd.retire(30, handoff=True)
    first.httpd.retire(30, handoff=False)
    assert events_in(first, 10, first.loop.balancer._handoff.outlet()) <= 1
    first.pass_time(2.1)
    assert first.until_answered(client) == b"<closed>"


def test_one_that_cannot_be_handed_on_keeps_nobody_and_does_not_spin(two_workers: StartTwoWorkers) -> None:
    """A head larger than a parcel stays; the queue has room all the while."""
    first, second = two_workers(limit_request_head=256 * 1024, limit_request_fields=1000)
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(80))
    large = first.client(GET[:-2] + fields)
    first.turn(10)
    other = first.client(GET[:10])
    first.turn(2)
    first.httpd.retire(30, handoff=True)
    assert events_in(first, 10, first.loop.balancer._handoff.outlet()) == 0
    assert len(first.loop.connections) == 1
    other.sendall(GET[10:])
    assert second.until_answered(other).endswith(b"GET / 0")
    large.sendall(b"\r\n")
    assert b"200 OK" in first.until_answered(large, 3)


def test_an_answered_connection_goes_on_with_its_whole_time(two_workers: StartTwoWorkers, app: Slow) -> None:
    """The deadline of the wait before its request is not that of the wait for the next one."""
    first, second = two_workers(app, keep_alive=10)
    client = first.client(GET)
    first.until_answered(client, 3)
    first.pass_time(9)
    app.during = retires(first)
    client.sendall(SLOW)
    assert first.until_answered(client, 4).endswith(b"slow")
    second.turn(2)
    second.pass_time(2)
    client.sendall(GET)
    assert second.until_answered(client, 4).endswith(b"quick")


def test_a_request_that_goes_on_behind_another_has_not_waited(two_workers: StartTwoWorkers, app: Slow) -> None:
    """It was not whole for anybody before: queue_timeout counts from its arrival."""
    first, second = two_workers(app, queue_timeout=5)
    app.during = retires(first)
    client = first.client(SLOW + GET)
    assert first.until_answered(client, 4).endswith(b"slow")
    assert second.until_answered(client, 4).endswith(b"quick")


def test_what_has_waited_is_not_counted_as_waiting(two_workers: StartTwoWorkers, app: Slow) -> None:
    """The line of a death names what was lost, and nothing besides."""
    first, second = two_workers(app)
    other = first.client(GET)
    first.until_answered(other, 3)
    second.row.begin(b"GET /busy")

    def during(_environ: dict[str, Any]) -> None:
        other.sendall(GET)
        wait_until(lambda: first.row.words[WAITING])

    app.during = during
    first.until_answered(first.client(SLOW))
    assert first.until_answered(other, 5).endswith(b"quick")
    assert first.row.words[WAITING] == 0


def test_an_answer_that_is_cut_by_a_quick_stop_is_no_fault(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client takes more in the turn in which the stop is heard."""
    server = worker(lambda _environ, start: (start("200 OK", []) and None) or [b"x" * BIG])
    server.client(GET, receive_buffer=4096)
    server.turn(2)
    (connection,) = server.loop.connections
    target = server.loop._targets[connection.fd]
    server.httpd.close_now()
    server.loop.guard(connection, target, select.EPOLLOUT)
    assert capfd.readouterr().err == ""
    assert server.httpd.retired


# Between threads


def test_a_pipelined_request_wakes_the_driver_that_is_about_to_sleep(worker: StartWorker) -> None:
    """An application thread leaves it just after the driver has looked whether there is something."""
    server = worker(threads=2)

    class Late(deque[Any]):
        def __bool__(self) -> bool:
            found = len(self) > 0
            other = threading.Thread(target=server.loop.wake_other)
            other.start()
            other.join()
            return found

    server.loop.ready = Late()
    poll, waits = server.loop._poll, []
    server.loop._poll = lambda _timeout, room: waits.append(poll(0, room)) or waits[-1]
    server.loop.turn()
    assert server.loop._wakeup.fileno() in dict(waits[0])


def test_a_rehearsal_ends_with_the_answer_of_an_application_thread(worker: StartWorker) -> None:
    """It closes its connection, which nobody is woken by: ready_path and threads, and the worker never was ready."""
    asleep = threading.Event()

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        assert asleep.wait(BOUND)
        start_response("200 OK", [])
        return [b"ok"]

    server = worker(app, threads=2)
    poll = server.loop._poll

    def last_poll(timeout: float | None, room: int) -> Any:
        if timeout is None:
            asleep.set()
            timeout = BOUND
            waits.append(bool(found := poll(timeout, room)))
            return found
        return poll(timeout, room)

    waits: list[bool] = []
    server.loop._poll = last_poll
    assert server.httpd.check("/") == 200
    assert all(waits)


def test_a_rehearsal_is_none_of_max_requests(worker: StartWorker) -> None:
    """With 1 a worker was spent before it was ready, and the next, and the next."""
    server = worker(max_requests=1)
    spent: list[str] = []
    server.httpd.on_spent = spent.append
    assert server.httpd.check("/") == 200
    assert not spent
    server.until_answered(server.client(GET), 3)
    assert spent


def test_asking_for_less_time_takes_none_away(worker: StartWorker, app: Slow) -> None:
    """``extend_deadline(5)`` says that five seconds from now will do, not that ``timeout`` is too much."""
    server = worker(app, timeout=30.0)
    seen: list[float] = []

    def during(environ: dict[str, Any]) -> None:
        environ["forkserver.extend_deadline"](5)
        seen.append((server.row.busy().deadline - server.row.words[ROW_WORDS + BUSY_SINCE]) / 1e9)

    app.during = during
    server.until_answered(server.client(SLOW))
    assert seen == [30.0]


def test_without_a_timeout_asking_for_time_sets_none(worker: StartWorker, app: Slow) -> None:
    server = worker(app, timeout=float("inf"))
    seen: list[int] = []

    def during(environ: dict[str, Any]) -> None:
        environ["forkserver.extend_deadline"](5)
        seen.append(server.row.busy().deadline)

    app.during = during
    server.until_answered(server.client(SLOW))
    assert seen == [0]


def logged_by(server: Any) -> list[tuple[str, int, int]]:
    """What ``worker`` writes to its access log: request line, status and size."""
    lines: list[tuple[str, int, int]] = []

    class Log:
        enabled = True

        def add(self, *fields: Any) -> None:
            lines.append(fields[2:5])

        def flush(self) -> None:
            """Nothing is kept."""

    server.loop.watched, server.loop.access = True, Log()
    return lines


def test_a_request_that_the_end_of_its_worker_cuts_off_is_logged(worker: StartWorker, app: Slow) -> None:
    """At once, and once: its call does not end."""
    server = worker(app)
    lines = logged_by(server)
    client = server.client(SLOW)

    def during(_environ: dict[str, Any]) -> None:
        with server.loop.loop_lock:
            server.httpd.close_now()
        assert lines == [("GET /slow HTTP/1.1", 500, 0)]

    app.during = during
    server.until_answered(client)
    assert len(lines) == 1


def test_a_504_is_logged_with_its_request(worker: StartWorker, app: Slow) -> None:
    """At once, and once: its call may end after the worker, or never."""
    server = worker(app)
    lines = logged_by(server)
    slow = server.client(SLOW)

    def during(_environ: dict[str, Any]) -> None:
        with server.loop.loop_lock:
            assert server.httpd.expire(0, server.row.busy().since)
            (connection,) = server.loop.connections
            connection.expire()
        assert b" 504 " in read(slow, 13)
        assert len(lines) == 1

    app.during = during
    server.turn(2)
    page = server.until_answered(slow).removesuffix(b"<closed>").partition(b"\r\n\r\n")[2]
    assert lines == [("GET /slow HTTP/1.1", 504, len(page))]


# Blocking handlers and hooks


class Blocking(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()


def test_a_blocking_handlers_client_that_was_turned_down_is_let_go(worker: StartWorker) -> None:
    """It need not close: the 503 lingers for some seconds, and then the connection is closed."""
    server = worker(handler=Blocking, queue_timeout=5)
    client = server.client(GET)
    call_all, server.loop._call_all = server.loop._call_all, lambda: None
    server.turn(2)
    server.clock.now += 6
    server.loop._call_all = call_all
    assert b" 503 " in server.until_answered(client, 3)
    server.turn(2)  # its request is dropped
    server.pass_time(6)
    assert not server.loop.connections


class Waiting(WSGIRequestHandler):
    timeout = 0.1  # seconds of one read

    def handle(self) -> None:
        super().handle()


def test_empty_lines_are_no_head_that_a_blocking_handler_is_called_for(worker: StartWorker) -> None:
    """The thread would wait for the request behind them, which may never come; header_timeout ends them instead."""
    server = worker(handler=Waiting, header_timeout=15)
    idle, late = server.client(b"\r\n\r\n"), server.client(b"\r\n\r\n")
    server.turn(3)
    assert len(server.loop.connections) == 2
    late.sendall(GET)
    assert b" 200 " in server.until_answered(late)
    server.pass_time(16)
    assert not server.loop.connections
    assert server.until_answered(idle, 3) in (b"<closed>", b"<reset>")


class FailingLog(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        raise ValueError("a hook's fault")


class FailingStream(WSGIRequestHandler):
    def get_stderr(self) -> Any:
        return self

    def write(self, _text: str) -> None:
        raise ValueError("a hook's fault")


def raising(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    raise LookupError("the application's fault")


def broken_get_app() -> Any:
    raise ValueError("a hook's fault")


@pytest.mark.parametrize("where", ["get_app", "get_stderr", "log_request"])
def test_a_hook_that_raises_leaves_nothing_in_the_spool_and_nobody_busy(
    worker: StartWorker, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    """Else max_spool is used up some day, and every upload is a 503; and the master kills who seems to be in a call."""
    handler = {"log_request": FailingLog, "get_stderr": FailingStream}.get(where, WSGIRequestHandler)
    server = worker(raising, handler=handler)
    if where == "get_app":
        server.httpd.get_app, server.loop.hooks.get_app = broken_get_app, True
    size = 200_000
    server.until_answered(server.client(GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: %d\r\n\r\n" % size))
    (connection,) = server.loop.connections
    client = server._clients[0]
    client.setblocking(True)
    client.sendall(b"x" * size)
    client.setblocking(False)
    server.turn(5)
    assert connection not in server.loop.connections
    assert "a hook's fault" in capfd.readouterr().err
    assert server.loop.spool.used == 0
    assert server.row.busy() is None
