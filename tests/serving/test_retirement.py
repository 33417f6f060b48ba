"""A worker that retires: nothing that was accepted or queued is lost."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from harness.worker import StartWorker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BIG = 8_000_000


def test_what_is_queued_is_answered(worker: StartWorker) -> None:
    """Connections that the kernel has completed are this worker's promise too."""
    server = worker()
    clients = [server.client(GET) for _ in range(5)]
    server.httpd.retire(30, handoff=False)
    for client in clients:
        answer = server.until_answered(client)
        assert b"200 OK" in answer
        assert b"Connection: close" in answer


def test_a_kept_connection_is_closed_with_its_next_answer(worker: StartWorker) -> None:
    """The client learns in time that it has to connect anew."""
    server = worker()
    client = server.client(GET)
    assert b"Connection: close" not in server.until_answered(client, 3)
    server.httpd.retire(30, handoff=False)
    assert not server.httpd.retired
    client.sendall(GET)
    answer = server.until_answered(client)
    assert b"200 OK" in answer
    assert b"Connection: close" in answer
    client.close()
    server.turn(2)
    assert server.httpd.retired


def test_the_answer_of_a_call_in_hand_closes_its_connection(worker: StartWorker) -> None:
    """A proxy that keeps the connection would send its next request as it is closed, and lose it."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        server.httpd.retire(30, handoff=False)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    server = worker(app)
    answer = server.until_answered(server.client(GET))
    assert b"200 OK" in answer
    assert b"Connection: close" in answer
    assert answer.endswith(b"<closed>")


def test_a_connection_that_stays_idle_is_closed_gently_after_a_while(worker: StartWorker) -> None:
    """A request may be on its way: the end is sent first, and a reset cannot meet an answer."""
    server = worker()
    client = server.client(GET)
    server.until_answered(client, 3)
    server.httpd.retire(30, handoff=False)
    server.turn()
    assert server.until_answered(client, 3) == b""
    server.pass_time(2.1)
    assert server.until_answered(client) == b"<closed>"
    client.close()
    server.turn(2)
    assert server.httpd.retired


def test_a_body_on_its_way_is_waited_for(worker: StartWorker) -> None:
    """A request that has begun is a request."""
    server = worker()
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    server.turn(2)
    server.httpd.retire(30, handoff=False)
    server.pass_time(5)
    client.sendall(b"def")
    assert b"POST / 6" in server.until_answered(client)


def test_grace_bounds_the_rest(worker: StartWorker) -> None:
    """A client that never ends must not keep a worker."""
    server = worker()
    server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\nabc")
    server.turn(2)
    server.httpd.retire(7, handoff=False)
    server.pass_time(6)
    assert not server.httpd.retired
    server.pass_time(2)
    assert server.httpd.retired


def long_answer(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """Without a length, and longer than a client takes that reads nothing."""
    start_response("200 OK", [])
    for _ in range(32):
        yield b"x" * 262144


@pytest.mark.parametrize("moment", ["grace", "quick stop", "end"])
def test_an_answer_that_is_cut_off_by_the_end_of_the_worker_ends_by_a_reset(worker: StartWorker, moment: str) -> None:
    """Its client, nginx perhaps, speaks HTTP/1.0: an orderly end would make it pass for the whole."""
    server = worker(long_answer)
    client = server.client(b"GET / HTTP/1.0\r\n\r\n", receive_buffer=4096)
    server.turn(3)
    if moment == "grace":
        server.httpd.retire(7, handoff=False)
        server.pass_time(8)
    elif moment == "quick stop":
        server.httpd.close_now()
    else:
        server.loop.retirement.close_all()
    assert server.until_answered(client).endswith(b"<reset>")


def test_an_answer_that_is_whole_ends_in_order_at_a_quick_stop(worker: StartWorker) -> None:
    server = worker()
    client = server.client(GET)
    server.turn(3)
    server.httpd.close_now()
    assert server.until_answered(client).endswith(b"GET / 0<closed>")


def test_a_retiring_worker_listens_no_more(worker: StartWorker) -> None:
    """The next server must be able to bind the address."""
    server = worker()
    server.httpd.retire(30, handoff=False)
    with pytest.raises(ConnectionRefusedError):
        server.client()


def test_a_quick_stop_drops_everything(worker: StartWorker) -> None:
    """INT and QUIT do not wait."""
    server = worker()
    server.client(GET[:10])
    server.turn(2)
    server.httpd.close_now()
    assert server.httpd.retired


def test_what_is_held_when_the_grace_is_over_is_named(worker: StartWorker, capfd: pytest.CaptureFixture[str]) -> None:
    """Without its query, which may hold a secret; and not a client that has asked nothing yet."""
    server = worker()
    server.client(b"POST /upload?token=secret HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\nabc")
    server.client(GET[:10])
    server.turn(4)
    server.httpd.retire(7, handoff=False)
    server.pass_time(8)
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "graceful_timeout" in line]
    assert "warning worker=1 gen=1" in said
    assert said.endswith("closing what is unfinished: POST /upload from 127.0.0.1 (its body has not come)")


def test_answers_that_are_not_taken_are_named_before_bodies_that_have_not_come(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    def large(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(1 << 24))])
        return [bytes(1 << 24)]

    server = worker(large)
    for _ in range(2):
        server.client(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\nabc")
    for number in range(5):
        server.client(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number, receive_buffer=4096)
    server.turn(10)
    server.httpd.retire(7, handoff=False)
    server.pass_time(8)
    said = capfd.readouterr().err
    assert said.count("from 127.0.0.1 (its answer is not taken)") == 5
    assert "; 2 more" in said


class Blocking(WSGIRequestHandler):
    def handle(self) -> None:
        super().handle()


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Blocking])
def test_a_call_that_outlasts_the_grace_is_named(
    worker: StartWorker, capfd: pytest.CaptureFixture[str], handler: type
) -> None:
    """The background driver sees to that, while the call goes on."""

    def slow(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        server.httpd.retire(7, handoff=False)
        server.clock.now += 8
        server.tend()
        start_response("200 OK", [])
        return []

    server = worker(slow, handler=handler)
    server.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    server.turn(4)
    said = capfd.readouterr().err
    assert "GET /slow from 127.0.0.1 (in the application for 0." in said


def test_an_answer_that_is_cut_by_a_quick_stop_is_no_fault(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client takes more in the turn in which the stop is heard."""
    server = worker(lambda _environ, start: (start("200 OK", []) and None) or [b"x" * BIG])
    server.client(GET, receive_buffer=4096)
    server.turn(2)
    (connection,) = server.loop.connections
    target = server.loop.poller.targets[connection.fd]
    server.httpd.close_now()
    server.loop.guard(connection, target, select.EPOLLOUT)
    assert capfd.readouterr().err == ""
    assert server.httpd.retired
