"""Deadlines of heads, bodies, answers and idle connections; what has come is read before they expire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.worker import Clock, StartWorker

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_PATH = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_head_that_does_not_come_in_time_is_refused(worker: StartWorker) -> None:
    """Slow loris: bytes that trickle do not push the head's deadline."""
    server = worker(header_timeout=15.0)
    client = server.client(b"GET / HT")
    server.turn(2)
    server.pass_time(10)
    client.sendall(b"TP/1.1\r\n")
    server.turn()
    server.pass_time(6)
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_says_nothing_is_closed_without_a_word(worker: StartWorker) -> None:
    """There is no request to answer."""
    server = worker(header_timeout=15.0)
    client = server.client()
    server.turn(2)
    server.pass_time(16)
    assert server.until_answered(client) == b"<closed>"


def test_an_idle_connection_is_closed_after_keep_alive(worker: StartWorker) -> None:
    """And not before; a connection in use is not idle."""
    server = worker(keep_alive=75.0)
    client = server.client(GET)
    server.until_answered(client, 3)
    for _ in range(4):
        server.pass_time(60)
        client.sendall(GET)
        assert b"200 OK" in server.until_answered(client, 3)
    server.pass_time(77)
    assert server.until_answered(client) == b"<closed>"


def test_a_request_that_came_during_a_long_call_is_served_and_not_judged(worker: StartWorker, clock: Clock) -> None:
    """After a stall, read first, then judge."""
    delays = [100.0, 0.0]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        clock.now += delays.pop(0)
        start_response("200 OK", [])
        return [b"late"]

    server = worker(app)
    waiting = server.client()
    server.turn(2)
    first = server.client(GET)
    waiting.sendall(GET)
    assert server.until_answered(first, 3).endswith(b"late")
    assert server.until_answered(waiting, 3).endswith(b"late")


def test_a_body_without_progress_is_refused(worker: StartWorker) -> None:
    """A drip below the floor is no progress either."""
    server = worker(body_timeout=30.0)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
    server.turn(2)
    for _ in range(3):
        server.pass_time(9)
        client.sendall(b"x")
        server.turn()
    server.pass_time(9)
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_progresses_may_take_its_time(worker: StartWorker) -> None:
    """body_timeout counts progress, not the whole."""
    server = worker(body_timeout=30.0)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
    server.turn(2)
    for _ in range(10):
        server.pass_time(20)
        client.sendall(b"x" * 2000)
        server.turn()
    assert server.until_answered(client).endswith(b"POST / 20000")


def test_a_client_that_takes_nothing_is_reset(worker: StartWorker) -> None:
    """write_timeout counts progress; an answer that no client reads does not stay."""
    server = worker(lambda environ, start: (start("200 OK", []), [b"x" * 8_000_000])[1], write_timeout=60.0)
    client = server.client(GET, receive_buffer=4096)
    server.turn(3)
    server.pass_time(61)
    server.turn()
    assert server.until_answered(client).endswith(b"<reset>")
    assert not server.loop.connections


def test_the_deadline_of_an_answer_counts_from_the_end_of_the_call(worker: StartWorker, clock: Clock) -> None:
    """A call longer than write_timeout must not doom its own answer."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        clock.now += 100
        start_response("200 OK", [])
        return [b"x" * 4_000_000]

    server = worker(app, write_timeout=60.0)
    client = server.client(GET, receive_buffer=4096)
    server.turn(3)
    server.pass_time(30)
    assert len(server.until_answered(client, 5000).partition(b"\r\n\r\n")[2]) == 4_000_000


def test_a_body_below_body_min_rate_is_refused_once_the_grace_is_over(worker: StartWorker, capfd: Any) -> None:
    """1 kB each half minute is progress, and would hold a connection for days."""
    server = worker(body_timeout=8.0, body_min_rate=240)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    server.turn(2)
    seconds = 0
    while server.loop.connections and seconds < 30:
        client.sendall(b"x" * 150)
        server.turn()
        server.clock.now += 1
        server.turn()
        seconds += 1
        if len(server.loop.timeouts.bodies) == 0:
            break
    assert 8 < seconds < 24
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")
    assert "slower than body_min_rate, 240 bytes a second" in capfd.readouterr().err


def test_a_body_of_a_phone_on_a_2g_network_passes(worker: StartWorker) -> None:
    """1 kB a second with a stall of 20 s now and then."""
    server = worker()
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    server.turn(2)
    for second in range(100):
        if second % 50 < 30:
            client.sendall(b"x" * 1000)
        server.turn()
        server.clock.now += 1
    assert server.until_answered(client).endswith(b"POST / 60000")


def test_the_framing_of_chunks_counts_as_bytes_on_the_wire(worker: StartWorker) -> None:
    """A client that sends a byte a chunk sends six."""
    server = worker(body_timeout=8.0, body_min_rate=100)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    server.turn(2)
    for _ in range(30):
        client.sendall(b"1\r\nx\r\n" * 30)
        server.turn()
        server.clock.now += 1
    client.sendall(b"0\r\n\r\n")
    assert server.until_answered(client).endswith(b"POST / 900")


def test_an_idle_connection_ends_two_seconds_after_a_stop(worker: StartWorker) -> None:
    """As docs/workers.md says, whether or not its client closes, too."""
    server = worker()
    idle = server.client(GET)
    assert b" 200 " in server.until_answered(idle, 3)
    server.httpd.retire(30.0, False)
    server.pass_time(1.4)
    assert not server.httpd.retired
    server.pass_time(0.2)
    assert server.until_answered(idle, 3) == b"<closed>"
    server.pass_time(0.5)
    assert server.httpd.retired


def test_bytes_that_came_during_a_slow_call_are_read_before_they_are_judged(worker: StartWorker, clock: Clock) -> None:
    """The worker was late, not the client."""
    half = b"POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab"
    unfinished: Any = None

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            clock.now += 40
            unfinished.sendall(b"cd")
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    server = worker(app, body_timeout=30.0)
    unfinished = server.client(half)
    server.turn(2)
    slow = server.client(GET_PATH % b"slow")
    assert server.until_answered(slow, 1).endswith(b"/slow")
    assert server.until_answered(unfinished, 3).endswith(b"/half")


def test_deadlines_hold_under_load(worker: StartWorker, clock: Clock) -> None:
    """A hundred busy connections fill every batch; a slow head is judged all the same."""
    server = worker(header_timeout=1.0)
    busy = [server.client() for _ in range(100)]
    slow = server.client(b"GET / HT")
    server.turn_until(lambda: len(server.loop.connections) == 101)
    clock.now += 1.5
    for client in busy:
        client.sendall(GET_PATH % b"busy")
    server.turn()
    assert server.until_answered(slow, 1).startswith(b"HTTP/1.1 408 ")
    assert all(server.until_answered(client, 1).endswith(b"GET /busy 0") for client in busy)


def test_short_keep_alive_is_kept_too(worker: StartWorker) -> None:
    """The order of deadlines may be coarse, but not as coarse as the deadline."""
    server = worker(keep_alive=1.0)
    client = server.client(GET_PATH % b"")
    server.until_answered(client, 3)
    for _ in range(5):
        server.pass_time(0.85)
        client.sendall(GET_PATH % b"")
        assert server.until_answered(client, 3).endswith(b"GET / 0")
