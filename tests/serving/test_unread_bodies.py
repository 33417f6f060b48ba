"""Bodies that stay in the kernel's receive queue until the application is called for them."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver.linux.sockets.receive_queue import ReceiveQueue
from forkserver.server.buffers.send_buffer import BODY_MEMORY

SIZE = 300_000
BODY = os.urandom(SIZE)
HEAD = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE
GET = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


class Keeping:
    """An application that keeps the bodies it reads, by pieces and from the start again."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.streams: list[Any] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        stream = environ["wsgi.input"]
        pieces = [*iter(lambda: stream.read(10_000), b"")]
        stream.seek(0)
        again = stream.read()
        assert b"".join(pieces) == again
        self.bodies.append(again)
        self.streams.append(stream)
        start_response("200 OK", [])
        return [b"%s %d" % (environ["PATH_INFO"].encode(), len(again))]


def send(worker: Any, client: socket.socket, data: bytes) -> None:
    """Send all of ``data``, though nobody may read it; wait until the kernel has it on the other side."""
    client.setblocking(True)
    client.settimeout(10)
    client.sendall(data)
    client.setblocking(False)


def queue_of(worker: Any) -> ReceiveQueue:
    (connection,) = worker.loop.connections
    return ReceiveQueue(connection.sock)


def whole(worker: Any, count: int) -> None:
    """Wait until ``count`` bytes stand in the queue of the only connection."""
    queue = queue_of(worker)
    poll = select.poll()
    poll.register(queue._sock, select.POLLIN)
    while queue.count() < count:
        assert poll.poll(10_000), "nothing comes"


@pytest.mark.parametrize("begin", [0, 1, 5_000])
def test_a_large_body_is_the_one_that_was_sent(serve: Callable[..., Any], begin: int) -> None:
    """In one piece or in two, what is read is what came, and it can be read again as a smaller one can."""
    app = Keeping()
    worker = serve(app)
    client = worker.client(HEAD + BODY[:begin])
    worker.turn(2)
    send(worker, client, BODY[begin:])
    assert worker.until_answered(client).endswith(b"/p 300000")
    assert app.bodies == [BODY]


def test_a_body_stays_where_it_is_until_it_is_called_for(serve: Callable[..., Any]) -> None:
    """Nobody wakes for a part of it, and memory is taken for one body at a time, not for all that are there."""
    worker = serve(Keeping())
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY[:-1])
    whole(worker, SIZE - 1)
    assert not select.select([worker.loop._epoll], [], [], 0)[0]
    client.sendall(BODY[-1:])
    assert worker.until_answered(client).endswith(b"/p 300000")


def test_what_follows_a_body_is_the_next_request(serve: Callable[..., Any]) -> None:
    """The body's end is where its length says, also where nobody has read it yet."""
    app = Keeping()
    worker = serve(app)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY + GET)
    answer = worker.until_answered(client)
    assert b"/p 300000" in answer
    assert answer.endswith(b"/next 0")
    send(worker, client, GET)  # the mark is down again: a short request is seen
    assert worker.until_answered(client).endswith(b"/next 0")


def test_an_application_that_reads_nothing_leaves_nothing_behind(serve: Callable[..., Any]) -> None:
    """Bytes of one body must never be taken for the next request."""

    def deaf(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    worker = serve(deaf)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY + GET)
    answer = worker.until_answered(client)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.endswith(b"/next")


def test_a_client_that_leaves_in_a_large_body_is_told_so(serve: Callable[..., Any]) -> None:
    """Half a body is never handed to the application; the end wakes whoever waits for more."""
    app = Keeping()
    worker = serve(app)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY[:-1])
    client.shutdown(socket.SHUT_WR)
    assert worker.until_answered(client).startswith(b"HTTP/1.1 400 ")
    assert app.bodies == []
    assert worker.loop.spool.memory == worker.loop.settings.body_memory


def test_a_large_body_that_stands_still_is_timed_out(serve: Callable[..., Any]) -> None:
    """The deadline counts from the last bytes; who sends nothing more has no more time than with a small body."""
    worker = serve(Keeping(), body_timeout=30)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY[:2000])
    whole(worker, 2000)
    worker.pass_time(31)
    assert worker.loop.connections, "it has sent something that nobody has looked at"
    worker.pass_time(31)
    assert worker.until_answered(client).startswith(b"HTTP/1.1 408 ")
    assert worker.loop.spool.memory == worker.loop.settings.body_memory


def test_a_drip_into_a_large_body_is_no_progress(serve: Callable[..., Any]) -> None:
    worker = serve(Keeping(), body_timeout=30)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY[:1000])
    whole(worker, 1000)
    worker.pass_time(31)
    assert worker.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_urgent_data_in_a_body_costs_its_client_only(serve: Callable[..., Any]) -> None:
    """The kernel takes the urgent byte out of the stream: such a body is never whole, and never handed over."""
    app = Keeping()
    worker = serve(app)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY[:1000])
    client.send(b"!", socket.MSG_OOB)
    send(worker, client, BODY[1001:])
    client.shutdown(socket.SHUT_WR)
    assert worker.until_answered(client).startswith(b"HTTP/1.1 400 ")
    assert app.bodies == []
    assert worker.until_answered(worker.client(GET)).endswith(b"/next 0")


def test_without_memory_a_large_body_goes_to_the_spool(serve: Callable[..., Any]) -> None:
    """The bound holds for all bodies together; who finds it used up is served as well."""
    app = Keeping()
    worker = serve(app, body_memory=0)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY[:-1])
    worker.turn(3)
    assert worker.loop.spool.used > BODY_MEMORY
    client.sendall(BODY[-1:])
    assert worker.until_answered(client).endswith(b"/p 300000")
    assert app.bodies == [BODY]
    assert worker.loop.spool.used == 0


def test_a_kept_stream_is_closed_with_its_request(serve: Callable[..., Any]) -> None:
    """What the bound lends again must not be held by an application that forgot it."""
    app = Keeping()
    worker = serve(app)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY)
    assert worker.until_answered(client).endswith(b"/p 300000")
    with pytest.raises(ValueError, match="closed"):
        app.streams[0].read()
    assert worker.loop.spool.memory == worker.loop.settings.body_memory


def test_a_request_with_an_unread_body_can_be_handed_on(serve_two: Callable[..., Any]) -> None:
    """The socket takes its queue along: what one worker has seen arrive, the other one reads."""
    app = Keeping()
    one, two = serve_two(app)
    client = one.client(HEAD + BODY[:100])
    one.turn(2)
    send(one, client, BODY[100:])
    whole(one, SIZE - 100)
    calls = one.loop.calls
    one.loop._deal(one.loop._poll(1, 64))
    connection, data, since = calls.popleft()
    assert data == HEAD + BODY[:100]
    assert one.loop.balancer.give(connection, data, since)
    assert two.until_answered(client).endswith(b"/p 300000")
    assert app.bodies == [BODY]
    assert one.loop.spool.memory == one.loop.settings.body_memory


def test_a_body_that_was_asked_for_is_not_asked_for_again_by_a_sibling(serve_two: Callable[..., Any]) -> None:
    """A client that takes each 100 for an invitation would send its body twice, the second time as its next request."""
    one, two = serve_two(Keeping())
    client = one.client(HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    one.turn(2)
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    send(one, client, BODY)
    whole(one, SIZE)
    one.loop._deal(one.loop._poll(1, 64))
    connection, data, since = one.loop.calls.popleft()
    assert one.loop.balancer.give(connection, data, since)
    assert two.until_answered(client).startswith(b"HTTP/1.1 200 ")


def test_a_late_answer_to_an_unread_body_is_not_lost_by_a_reset(serve: Callable[..., Any]) -> None:
    """Closing over unread bytes is a reset, and that may overtake the 503."""
    worker = serve(Keeping(), queue_timeout=5)
    client = worker.client(HEAD)
    worker.turn(2)
    send(worker, client, BODY)
    whole(worker, SIZE)
    worker.loop._deal(worker.loop._poll(1, 64))
    assert worker.loop.calls
    worker.clock.now += 6
    worker.loop.now = worker.clock.now
    answer = worker.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert not answer.endswith(b"<reset>")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted


def test_a_mark_that_the_kernel_does_not_grant_is_taken_in_steps(pair: tuple[socket.socket, socket.socket]) -> None:
    """Else whoever waits for all of a body waits for more than its queue can hold."""
    _, accepted = pair
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)  # the kernel widens it no further then
    queue = ReceiveQueue(accepted)
    queue.wait_for(10_000_000)
    assert queue.mark <= 16 * 1024


def test_who_sent_something_just_now_is_not_idle(pair: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = pair
    client.sendall(b"x" * 10)
    select.select([accepted], [], [], 10)
    queue = ReceiveQueue(accepted)
    assert queue.count() == 10
    assert queue.idle_seconds() < 10
