"""An answer that its client takes more slowly than the application makes it: on a fake socket, by a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver.server.connection.states import CLOSED, DRAINING, READING
from harness.fakes import FakeLoop

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"
SIZE = 600_000  # stays in memory


def large(_environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(SIZE))])
    return [b"x" * SIZE]


def asked(app: Any = large, room: int = 1000, **settings: Any) -> tuple[FakeLoop, Any]:
    """A loop, and a connection whose client takes ``room`` bytes of its answer."""
    loop = FakeLoop(app, **settings)
    connection = loop.connect(GET, room)
    loop.serve()
    return loop, connection


def take(loop: FakeLoop, connection: Any, count: int) -> None:
    """The client takes ``count`` bytes more."""
    connection.sock.room = count
    assert connection in loop.poller.writing
    connection.writable(4)


def test_what_the_client_does_not_take_is_sent_as_it_does() -> None:
    loop, connection = asked()
    assert connection.state is DRAINING
    assert len(connection.sock.sent) == 1000
    for _ in range(10):
        if connection.state is DRAINING:
            take(loop, connection, 100_000)
    assert bytes(connection.sock.sent).partition(b"\r\n\r\n")[2] == b"x" * SIZE
    assert connection.state is READING
    assert connection.queue is loop.timeouts.idle
    loop.send(connection, GET)
    assert loop.submitted, "and its next request is read"


def test_nothing_is_read_while_an_answer_is_out() -> None:
    loop, connection = asked()
    loop.send(connection, GET)
    assert not loop.submitted
    assert connection.sock.incoming == GET


def test_an_answer_is_logged_when_it_is_out() -> None:
    loop, connection = asked()
    assert loop.access == []
    take(loop, connection, 2 * SIZE)
    assert [line[2:5] for line in loop.access] == [("GET /path HTTP/1.1", 200, SIZE)]


def test_a_client_that_goes_is_logged_with_what_it_has_taken() -> None:
    loop, connection = asked(room=100_000)
    connection.sock.failed = True
    connection.writable(4)
    assert connection.state is CLOSED
    ((*_, sent, _referer, _agent),) = loop.access
    head = bytes(connection.sock.sent).index(b"\r\n\r\n") + 4
    assert sent == 100_000 - head
    assert loop.context.spool.answer_memory == FakeLoop().context.spool.answer_memory


def test_a_client_that_takes_nothing_for_write_timeout_is_cut_off() -> None:
    loop, connection = asked(write_timeout=60.0)
    loop.pass_time(59)
    assert connection.state is DRAINING
    loop.pass_time(2)
    assert connection.state is CLOSED


def test_each_bit_of_progress_has_its_write_timeout_and_a_drip_is_none() -> None:
    loop, connection = asked(write_timeout=60.0)
    for _ in range(5):
        loop.pass_time(40)
        take(loop, connection, 20_000)
    assert connection.state is DRAINING
    for _ in range(5):
        loop.pass_time(20)
        if connection.state is DRAINING:
            take(loop, connection, 100)
    assert connection.state is CLOSED


def test_an_answer_waits_among_those_that_are_taken_as_fast() -> None:
    """So the slowest are at hand where room is wanted, and the deadline stays what write_timeout says."""
    loop, connection = asked(write_timeout=60.0)
    answers = loop.timeouts.answers
    assert connection.queue is answers.fresh
    loop.pass_time(2)
    assert connection.queue is answers.queue(0.0)
    take(loop, connection, 50_000)
    loop.pass_time(8)
    assert connection.queue is answers.queue(2 * 50_000 / 10)
    loop.pass_time(50)
    assert connection.state is DRAINING, "it has taken something since"
    loop.pass_time(3)
    assert connection.state is CLOSED


def test_a_stream_that_goes_on_does_not_put_off_the_deadline_of_a_client_that_takes_nothing() -> None:
    def app(_environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(8):
            yield b"x" * 1000
            loop.pass_time(10)
            states.append(connection.state)

    states: list[Any] = []
    loop = FakeLoop(app, write_timeout=60.0)
    connection = loop.connect(GET, 100)
    loop.serve()
    assert states.index(CLOSED) == 5


def test_what_was_yielded_goes_out_while_the_application_works_on() -> None:
    """PEP 3333: a block is not kept back until the next one."""
    taken: list[int] = []

    def app(_environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", str(2 * SIZE))])
        yield b"x" * SIZE
        (connection,) = loop.connections
        take(loop, connection, 2 * SIZE)
        taken.append(len(connection.sock.sent))
        assert connection not in loop.poller.writing, "there is nothing to send now"
        assert connection.queue is None
        yield b"y" * SIZE

    loop = FakeLoop(app)
    connection = loop.connect(GET, 1000)
    loop.serve()
    assert taken[0] > SIZE
    assert bytes(connection.sock.sent).endswith(b"y")
    assert connection.state is READING


def test_a_client_of_http_1_0_is_let_go_when_it_has_all() -> None:
    loop = FakeLoop(large)
    connection = loop.connect(GET.replace(b"1.1", b"1.0"), 1000)
    loop.serve()
    take(loop, connection, 2 * SIZE)
    assert connection.state is CLOSED


def test_an_answer_that_breaks_off_is_not_drained(capfd: pytest.CaptureFixture[str]) -> None:
    """The end must not look like one that is meant."""

    def app(_environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x" * SIZE
        raise LookupError("the application's fault")

    _, connection = asked(app)
    assert connection.state is CLOSED
    assert "the application's fault" in capfd.readouterr().err
