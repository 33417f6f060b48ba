"""Bodies that stay in the kernel's receive queue until the application is called for them."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

from forkserver.linux.sockets.receive_queue import ReceiveQueue
from forkserver.server.buffers.body_buffer import BODY_MEMORY
from harness.worker import StartTwoWorkers, StartWorker

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


def send(server: Any, client: socket.socket, data: bytes) -> None:
    """Send all of ``data``, though it may stay unread; wait until the kernel has it on the other side."""
    client.setblocking(True)
    client.settimeout(10)
    client.sendall(data)
    client.setblocking(False)


def queue_of(server: Any) -> ReceiveQueue:
    (connection,) = server.loop.connections
    return ReceiveQueue(connection.sock)


def whole(server: Any, count: int) -> None:
    """Wait until ``count`` bytes stand in the queue of the only connection."""
    queue = queue_of(server)
    poll = select.poll()
    poll.register(queue._sock, select.POLLIN)
    while queue.count() < count:
        assert poll.poll(10_000), "nothing comes"


@pytest.mark.parametrize("begin", [0, 1, 5_000])
def test_a_large_body_is_the_one_that_was_sent(worker: StartWorker, begin: int) -> None:
    """In one piece or in two, what is read is what came, and it can be read again as a smaller one can."""
    app = Keeping()
    server = worker(app)
    client = server.client(HEAD + BODY[:begin])
    server.turn(2)
    send(server, client, BODY[begin:])
    assert server.until_answered(client).endswith(b"/p 300000")
    assert app.bodies == [BODY]


def test_a_body_stays_where_it_is_until_it_is_called_for(worker: StartWorker) -> None:
    """No thread wakes for a part of it, and memory is taken for one body at a time, not for all that are there."""
    server = worker(Keeping())
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY[:-1])
    whole(server, SIZE - 1)
    assert not select.select([server.loop.poller.epoll], [], [], 0)[0]
    client.sendall(BODY[-1:])
    assert server.until_answered(client).endswith(b"/p 300000")


def test_what_follows_a_body_is_the_next_request(worker: StartWorker) -> None:
    """The body's end is where its length says, also where it is unread yet."""
    app = Keeping()
    server = worker(app)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY + GET)
    answer = server.until_answered(client)
    assert b"/p 300000" in answer
    assert answer.endswith(b"/next 0")
    send(server, client, GET)  # the mark is down again: a short request is seen
    assert server.until_answered(client).endswith(b"/next 0")


def test_an_application_that_reads_nothing_leaves_nothing_behind(worker: StartWorker) -> None:
    """Bytes of one body must never be taken for the next request."""

    def deaf(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    server = worker(deaf)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY + GET)
    answer = server.until_answered(client)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.endswith(b"/next")


def test_a_client_that_leaves_in_a_large_body_is_told_so(worker: StartWorker) -> None:
    """Half a body is never handed to the application; the end wakes the worker that waits for more."""
    app = Keeping()
    server = worker(app)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY[:-1])
    client.shutdown(socket.SHUT_WR)
    assert server.until_answered(client).startswith(b"HTTP/1.1 400 ")
    assert app.bodies == []
    assert server.loop.context.spool.memory == server.loop.context.settings.body_memory


def test_a_large_body_that_stands_still_is_timed_out(worker: StartWorker) -> None:
    """The deadline counts from the last bytes; a silent client has no more time than with a small body."""
    server = worker(Keeping(), body_timeout=30)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY[:2000])
    whole(server, 2000)
    server.pass_time(31)
    assert server.loop.connections, "it has sent something that the worker has not looked at"
    server.pass_time(31)
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")
    assert server.loop.context.spool.memory == server.loop.context.settings.body_memory


def test_a_drip_into_a_large_body_is_no_progress(worker: StartWorker) -> None:
    server = worker(Keeping(), body_timeout=30)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY[:1000])
    whole(server, 1000)
    server.pass_time(31)
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_urgent_data_in_a_body_costs_its_client_only(worker: StartWorker) -> None:
    """The kernel takes the urgent byte out of the stream: such a body is never whole, and never handed over."""
    app = Keeping()
    server = worker(app)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY[:1000])
    client.send(b"!", socket.MSG_OOB)
    send(server, client, BODY[1001:])
    client.shutdown(socket.SHUT_WR)
    assert server.until_answered(client).startswith(b"HTTP/1.1 400 ")
    assert app.bodies == []
    assert server.until_answered(server.client(GET)).endswith(b"/next 0")


def test_without_memory_a_large_body_goes_to_the_spool(worker: StartWorker) -> None:
    """The bound holds for all bodies together; a client that finds it used up is served as well."""
    app = Keeping()
    server = worker(app, body_memory=0)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY[:-1])
    server.turn(3)
    assert server.loop.context.spool.used > BODY_MEMORY
    client.sendall(BODY[-1:])
    assert server.until_answered(client).endswith(b"/p 300000")
    assert app.bodies == [BODY]
    assert server.loop.context.spool.used == 0


def test_a_kept_stream_is_closed_with_its_request(worker: StartWorker) -> None:
    """What the bound lends again must not be held by an application that forgot it."""
    app = Keeping()
    server = worker(app)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY)
    assert server.until_answered(client).endswith(b"/p 300000")
    with pytest.raises(ValueError, match="closed"):
        app.streams[0].read()
    assert server.loop.context.spool.memory == server.loop.context.settings.body_memory


def test_a_request_with_an_unread_body_can_be_handed_on(two_workers: StartTwoWorkers) -> None:
    """The socket takes its queue along: what one worker has seen arrive, the other one reads."""
    app = Keeping()
    one, two = two_workers(app)
    client = one.client(HEAD + BODY[:100])
    one.turn(2)
    send(one, client, BODY[100:])
    whole(one, SIZE - 100)
    calls = one.loop.calls.waiting
    one.loop._handle(one.loop.poller.poll(1, 64))
    connection, data = calls.popleft()
    assert data == HEAD + BODY[:100]
    assert one.loop.balancer.give(connection, data or b"", connection.whole_at)
    assert two.until_answered(client).endswith(b"/p 300000")
    assert app.bodies == [BODY]
    assert one.loop.context.spool.memory == one.loop.context.settings.body_memory


def test_a_body_that_was_asked_for_is_not_asked_for_again_by_a_sibling(two_workers: StartTwoWorkers) -> None:
    """A client that takes each 100 for an invitation would send its body twice, the second time as its next request."""
    one, two = two_workers(Keeping())
    client = one.client(HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    one.turn(2)
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    send(one, client, BODY)
    whole(one, SIZE)
    one.loop._handle(one.loop.poller.poll(1, 64))
    connection, data = one.loop.calls.waiting.popleft()
    assert one.loop.balancer.give(connection, data or b"", connection.whole_at)
    assert two.until_answered(client).startswith(b"HTTP/1.1 200 ")


def test_a_late_answer_to_an_unread_body_is_not_lost_by_a_reset(worker: StartWorker) -> None:
    """Closing over unread bytes is a reset, and that may overtake the 503."""
    server = worker(Keeping(), queue_timeout=5)
    client = server.client(HEAD)
    server.turn(2)
    send(server, client, BODY)
    whole(server, SIZE)
    server.loop._handle(server.loop.poller.poll(1, 64))
    assert server.loop.calls
    server.clock.now += 6
    server.loop.timeouts.now = server.clock.now
    answer = server.until_answered(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert not answer.endswith(b"<reset>")
