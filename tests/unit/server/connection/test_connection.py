"""A connection from bytes to a whole request and on to the next: on a fake socket, by a fake clock."""

from __future__ import annotations

import select
from typing import Any

import pytest

from forkserver.server.connection.connection import CONTINUE
from forkserver.server.connection.states import BODY, CLOSED, LINGERING, READING, READY
from harness.fakes import FakeLoop

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /path HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def status_of(connection: Any) -> int:
    """The status of the last answer."""
    return int(bytes(connection.sock.sent).rpartition(b"HTTP/1.1 ")[2][:3])


# Reading


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_request_is_submitted_when_its_head_is_whole(loop: FakeLoop, step: int) -> None:
    connection = loop.connect()
    for at in range(0, len(GET), step):
        assert connection.state is READING
        loop.send(connection, GET[at : at + step])
    assert connection.state is READY
    assert list(loop.submitted) == [(connection, GET, 1000.0)]


def test_an_answer_is_sent_and_the_connection_waits_for_its_next_request(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    loop.serve()
    assert bytes(connection.sock.sent).endswith(b"GET /path 0")
    assert connection.state is READING
    assert connection.queue is loop.timeouts.idle
    assert loop.row.busy() is None


def test_requests_in_one_packet_are_served_in_turns(loop: FakeLoop) -> None:
    """A client with many of them waits like all others."""
    connection = loop.connect(GET.replace(b"/path", b"/1") + GET.replace(b"/path", b"/2") + GET[:10])
    loop.serve()
    assert bytes(connection.sock.sent).count(b"200 OK") == 1
    loop.resume()
    loop.serve()
    assert bytes(connection.sock.sent).count(b"200 OK") == 2
    loop.resume()
    assert connection.queue is loop.timeouts.heads, "half a head has little time"
    loop.send(connection, GET[10:])
    loop.serve()
    sent = bytes(connection.sock.sent)
    assert [sent.index(b"GET /" + path) for path in (b"1", b"2", b"path")] == sorted(
        sent.index(b"GET /" + path) for path in (b"1", b"2", b"path")
    )


@pytest.mark.parametrize("how", ["ended", "failed"])
@pytest.mark.parametrize("begun", [b"", GET[:10]])
def test_a_client_that_goes_before_its_request_is_closed(loop: FakeLoop, how: str, begun: bytes) -> None:
    """Half a head cannot be answered."""
    connection = loop.connect(begun)
    setattr(connection.sock, how, True)
    loop.send(connection, b"")
    assert connection.state is CLOSED
    assert connection.sock.closed
    assert loop.left == [connection]
    assert not connection.sock.sent


def test_what_is_no_request_is_refused_and_the_rest_is_dropped(loop: FakeLoop) -> None:
    connection = loop.connect(b"nonsense\r\n\r\n")
    assert status_of(connection) == 400
    assert connection.state is LINGERING
    loop.send(connection, GET)
    assert not loop.submitted
    connection.sock.ended = True
    loop.send(connection, b"")
    assert connection.state is CLOSED


def test_a_client_that_has_gone_while_its_request_waits_is_not_served(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    loop.poller.watch_reading(connection)
    connection.readable(select.EPOLLIN)
    assert connection.state is READY, "its next request is looked at after this one"
    assert connection not in loop.poller.reading
    connection.readable(select.EPOLLIN | select.EPOLLHUP)
    assert connection.state is CLOSED


# Bodies


def test_a_body_that_comes_with_its_head_is_whole_at_once(loop: FakeLoop) -> None:
    connection = loop.connect(POST % 4 + b"body" + GET)
    assert connection.state is READY
    loop.serve()
    assert b"POST /path 4" in connection.sock.sent
    loop.resume()
    loop.serve()
    assert bytes(connection.sock.sent).endswith(b"GET /path 0")


def test_a_body_is_collected_before_the_application_is_called(loop: FakeLoop) -> None:
    connection = loop.connect(POST % 10)
    assert connection.state is BODY
    for piece in (b"12345", b"6789"):
        loop.send(connection, piece)
        assert not loop.submitted
    loop.send(connection, b"0" + GET)
    assert loop.submitted[0][1] == POST % 10 + b"1234567890" + GET, "what a sibling would have to read"
    loop.serve()
    assert b"POST /path 10" in connection.sock.sent
    assert connection.queued, "the next request has its turn"


def test_a_client_that_asks_whether_to_send_its_body_is_told_so_once(loop: FakeLoop) -> None:
    connection = loop.connect((POST % 4)[:-2] + b"Expect: 100-continue\r\n\r\n")
    assert bytes(connection.sock.sent) == CONTINUE
    loop.send(connection, b"bo")
    loop.send(connection, b"dy")
    loop.serve()
    assert bytes(connection.sock.sent).count(CONTINUE) == 1
    assert status_of(connection) == 200


def test_many_small_chunks_are_collected_over_several_turns(loop: FakeLoop) -> None:
    head = (POST % 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    connection = loop.connect(head + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
    turns = 0
    while not loop.submitted:
        loop.resume()
        turns += 1
    assert turns > 1
    loop.serve()
    assert b"POST /path 1000" in connection.sock.sent


@pytest.mark.parametrize(
    ("length", "settings", "room", "status"), [(50, {"max_body": 10}, None, 413), (50, {}, "the disk is full", 503)]
)
def test_a_body_that_cannot_be_kept_is_refused_before_it_is_asked_for(
    length: int, settings: dict[str, Any], room: str | None, status: int
) -> None:
    loop = FakeLoop(**settings)
    loop.no_spool_room = room
    connection = loop.connect((POST % length)[:-2] + b"Expect: 100-continue\r\n\r\n")
    assert status_of(connection) == status
    assert CONTINUE not in connection.sock.sent
    assert connection.state is LINGERING
    assert connection.upload is None


def test_a_body_that_ends_early_is_refused(loop: FakeLoop) -> None:
    connection = loop.connect(POST % 10 + b"12345")
    connection.sock.ended = True
    loop.send(connection, b"")
    assert status_of(connection) == 400


# Deadlines


def test_a_head_that_trickles_is_refused_at_its_deadline() -> None:
    loop = FakeLoop(header_timeout=15.0)
    connection = loop.connect(GET[:5])
    loop.pass_time(10)
    loop.send(connection, GET[5:9])
    loop.pass_time(6)
    assert status_of(connection) == 408
    assert loop.timeouts.discarding.first() is None, "a client that was too slow gets no further time"


def test_a_client_that_says_nothing_is_closed_without_a_word() -> None:
    loop = FakeLoop(header_timeout=15.0)
    connection = loop.connect()
    loop.pass_time(15.1)
    assert connection.state is CLOSED
    assert not connection.sock.sent


def test_an_idle_connection_is_closed_after_keep_alive_and_not_before() -> None:
    loop = FakeLoop(keep_alive=75.0)
    connection = loop.connect(GET)
    loop.serve()
    for _ in range(3):
        loop.pass_time(60)
        loop.send(connection, GET)
        loop.serve()
    assert bytes(connection.sock.sent).count(b"200 OK") == 4
    loop.pass_time(77)
    assert connection.state is CLOSED


@pytest.mark.parametrize(("sent", "status"), [(b"x", 408), (b"x" * 2000, None)], ids=["drip", "progress"])
def test_a_body_must_make_progress(sent: bytes, status: int | None) -> None:
    loop = FakeLoop(body_timeout=30.0)
    connection = loop.connect(POST % 30_000)
    for _ in range(20):
        loop.pass_time(4)
        if connection.state is BODY:
            loop.send(connection, sent)
    assert (status_of(connection) if connection.sock.sent else None) == status


def test_a_request_that_waits_for_the_application_has_no_deadline(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    loop.pass_time(10_000)
    assert connection.state is READY
    loop.serve()
    assert status_of(connection) == 200


def test_what_has_waited_too_long_is_answered_503(loop: FakeLoop) -> None:
    connection = loop.connect(GET)
    connection.turn_down()
    assert status_of(connection) == 503
    assert b"Retry-After: 1\r\n" in connection.sock.sent
    assert connection.state is LINGERING


# Between workers


def test_a_retiring_workers_idle_connection_goes_to_a_sibling_or_parts(loop: FakeLoop) -> None:
    """A request may cross the close on its way; it must not be answered by a reset."""
    goes, stays = loop.connect(GET), loop.connect(GET)
    loop.serve()
    loop.retiring = True
    loop.takes_handed_on = True
    goes.overdue()
    loop.takes_handed_on = False
    stays.overdue()
    assert loop.handed_on == [goes]
    assert stays.state is LINGERING
    assert stays.sock.shut
    loop.pass_time(0.6)
    assert stays.state is CLOSED


# Evicted


def test_an_evicted_client_is_told_why_where_it_has_begun_a_request(loop: FakeLoop) -> None:
    half, body, idle = loop.connect(GET[:9]), loop.connect(POST % 10), loop.connect()
    for each in (half, body, idle):
        each.evict("connections")
        assert each.state is CLOSED
    assert [status_of(each) for each in (half, body)] == [408, 408]
    assert not idle.sock.sent


def test_a_connection_parts_unless_its_request_is_under_way(loop: FakeLoop) -> None:
    idle, asks, more = loop.connect(), loop.connect(GET), loop.connect(GET + GET)
    loop.submitted.popleft()
    loop.serve()
    for each in (idle, asks, more):
        each.part()
    assert [each.state for each in (idle, asks, more)] == [CLOSED, READY, READING]
