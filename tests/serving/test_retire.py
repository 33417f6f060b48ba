"""A worker that retires: nothing that was accepted or queued is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver import WSGIRequestHandler

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_what_is_queued_is_answered(serve: Callable[..., Any]) -> None:
    """Connections that the kernel has completed are this worker's promise too."""
    worker = serve()
    clients = [worker.client(GET) for _ in range(5)]
    worker.httpd.retire(30, handoff=False)
    for client in clients:
        answer = worker.until_answered(client)
        assert b"200 OK" in answer
        assert b"Connection: close" in answer


def test_a_kept_connection_is_closed_with_its_next_answer(serve: Callable[..., Any]) -> None:
    """The client learns in time that it has to connect anew."""
    worker = serve()
    client = worker.client(GET)
    assert b"Connection: close" not in worker.until_answered(client, 3)
    worker.httpd.retire(30, handoff=False)
    assert not worker.httpd.retired
    client.sendall(GET)
    answer = worker.until_answered(client)
    assert b"200 OK" in answer
    assert b"Connection: close" in answer
    client.close()
    worker.turn(2)
    assert worker.httpd.retired


def test_the_answer_of_a_call_in_hand_closes_its_connection(serve: Callable[..., Any]) -> None:
    """A proxy that keeps the connection would send its next request as it is closed, and lose it."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        worker.httpd.retire(30, handoff=False)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    worker = serve(app)
    answer = worker.until_answered(worker.client(GET))
    assert b"200 OK" in answer
    assert b"Connection: close" in answer
    assert answer.endswith(b"<closed>")


def test_a_connection_that_stays_idle_is_closed_gently_after_a_while(serve: Callable[..., Any]) -> None:
    """A request may be on its way: the end is sent first, and a reset cannot meet an answer."""
    worker = serve()
    client = worker.client(GET)
    worker.until_answered(client, 3)
    worker.httpd.retire(30, handoff=False)
    worker.turn()
    assert worker.until_answered(client, 3) == b""
    worker.pass_time(2.1)
    assert worker.until_answered(client) == b"<closed>"
    client.close()
    worker.turn(2)
    assert worker.httpd.retired


def test_a_body_on_its_way_is_waited_for(serve: Callable[..., Any]) -> None:
    """A request that has begun is a request."""
    worker = serve()
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    worker.turn(2)
    worker.httpd.retire(30, handoff=False)
    worker.pass_time(5)
    client.sendall(b"def")
    assert b"POST / 6" in worker.until_answered(client)


def test_grace_bounds_the_rest(serve: Callable[..., Any]) -> None:
    """A client that never ends must not keep a worker."""
    worker = serve()
    worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\nabc")
    worker.turn(2)
    worker.httpd.retire(7, handoff=False)
    worker.pass_time(6)
    assert not worker.httpd.retired
    worker.pass_time(2)
    assert worker.httpd.retired


def long_answer(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """Without a length, and longer than a client takes that reads nothing."""
    start_response("200 OK", [])
    for _ in range(32):
        yield b"x" * 262144


@pytest.mark.parametrize("moment", ["grace", "quick stop", "end"])
def test_an_answer_that_is_cut_off_by_the_end_of_the_worker_ends_by_a_reset(
    serve: Callable[..., Any], moment: str
) -> None:
    """Its client, nginx perhaps, speaks HTTP/1.0: an orderly end would make it pass for the whole."""
    worker = serve(long_answer)
    client = worker.client(b"GET / HTTP/1.0\r\n\r\n", receive_buffer=4096)
    worker.turn(3)
    if moment == "grace":
        worker.httpd.retire(7, handoff=False)
        worker.pass_time(8)
    elif moment == "quick stop":
        worker.httpd.close_now()
    else:
        worker.loop.close_all()
    assert worker.until_answered(client).endswith(b"<reset>")


def test_an_answer_that_is_whole_ends_in_order_at_a_quick_stop(serve: Callable[..., Any]) -> None:
    worker = serve()
    client = worker.client(GET)
    worker.turn(3)
    worker.httpd.close_now()
    assert worker.until_answered(client).endswith(b"GET / 0<closed>")


def test_a_retiring_worker_listens_no_more(serve: Callable[..., Any]) -> None:
    """The next server must be able to bind the address."""
    worker = serve()
    worker.httpd.retire(30, handoff=False)
    with pytest.raises(ConnectionRefusedError):
        worker.client()


def test_a_quick_stop_drops_everything(serve: Callable[..., Any]) -> None:
    """INT and QUIT do not wait."""
    worker = serve()
    worker.client(GET[:10])
    worker.turn(2)
    worker.httpd.close_now()
    assert worker.httpd.retired


def test_what_is_held_when_the_grace_is_over_is_named(
    serve: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Without its query, which may hold a secret; and not who has asked nothing yet."""
    worker = serve()
    worker.client(b"POST /upload?token=secret HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\nabc")
    worker.client(GET[:10])
    worker.turn(4)
    worker.httpd.retire(7, handoff=False)
    worker.pass_time(8)
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "graceful_timeout" in line]
    assert "warning worker=1 gen=1" in said
    assert said.endswith("what is still held is closed: POST /upload from 127.0.0.1 (its body has not come)")


def test_answers_that_are_not_taken_are_named_before_bodies_that_have_not_come(
    serve: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    def large(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(1 << 24))])
        return [bytes(1 << 24)]

    worker = serve(large)
    for _ in range(2):
        worker.client(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\nabc")
    for number in range(5):
        worker.client(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number, receive_buffer=4096)
    worker.turn(10)
    worker.httpd.retire(7, handoff=False)
    worker.pass_time(8)
    said = capfd.readouterr().err
    assert said.count("from 127.0.0.1 (its answer is not taken)") == 5
    assert "; 2 more" in said


class Blocking(WSGIRequestHandler):
    def handle(self) -> None:
        super().handle()


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Blocking])
def test_a_call_that_outlasts_the_grace_is_named(
    serve: Callable[..., Any], capfd: pytest.CaptureFixture[str], handler: type
) -> None:
    """The steward sees to that, while the call goes on."""

    def slow(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        worker.httpd.retire(7, handoff=False)
        worker.clock.now += 8
        worker.tend()
        start_response("200 OK", [])
        return []

    worker = serve(slow, handler=handler)
    worker.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    worker.turn(4)
    said = capfd.readouterr().err
    assert "GET /slow from 127.0.0.1 (in the application for 0." in said
