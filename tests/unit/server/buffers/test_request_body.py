"""A request body on its way: fed in pieces, left in the kernel's queue, or lost."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forkserver.errors import ProtocolError
from forkserver.server.buffers.body_buffer import BODY_MEMORY
from forkserver.server.buffers.receive_rate import ReceiveRate
from forkserver.server.buffers.request_body import BufferedBody, StreamedBody
from forkserver.server.buffers.spool import Spool
from harness import BOUND

HEAD = b"POST / HTTP/1.1\r\n\r\n"
SIZE = 3 * BODY_MEMORY
DATA = os.urandom(SIZE)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path), 100 * SIZE, memory=4 * SIZE)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The worker's end of a TCP connection, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            yield accepted, client


def body_of(spool: Spool, length: int | None, max_body: int = 10 * SIZE) -> StreamedBody:
    """A body of ``length`` bytes, or in chunks."""
    head: Any = SimpleNamespace(chunked=length is None, length=length)
    return StreamedBody(head, HEAD, spool, max_body, ReceiveRate(0.0))


def text_of(body: StreamedBody) -> bytes:
    assert body.done
    assert body.stream is not None
    return body.stream.read()


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_body_is_whole_with_its_last_byte_and_what_follows_is_the_rest(spool: Spool, step: int) -> None:
    body, sent = body_of(spool, 1000), DATA[:1000] + b"GET /next"
    for at in range(0, 1000, step):
        assert not body.done
        body.feed(sent[at : at + step] if at + step < 1000 else sent[at:])
    assert (text_of(body), body.rest, body.size) == (DATA[:1000], b"GET /next", 1000)
    body.close()


def test_chunks_are_taken_by_their_share_of_a_turn(spool: Spool) -> None:
    """Many small ones leave something for another turn, in which nothing new is fed."""
    body = body_of(spool, None)
    body.feed(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\nrest")
    turns = 0
    while body.more:
        assert not body.done
        turns += 1
        body.feed(b"")
    assert turns > 2
    assert (text_of(body), body.rest) == (b"x" * 1000, b"rest")
    body.close()


def test_a_body_beyond_max_body_is_refused(spool: Spool) -> None:
    body = body_of(spool, None, max_body=10)
    with pytest.raises(ProtocolError) as caught:
        body.feed(b"b\r\n" + bytes(11))
    assert caught.value.status == 413
    body.close()


def test_a_body_with_memory_needs_no_room_in_the_spool(spool: Spool) -> None:
    body = body_of(spool, SIZE)
    assert body.has_memory
    spool.max_bytes = 0
    assert body.shortage(SIZE) is None
    other = body_of(spool, None)
    assert not other.has_memory
    assert "max_spool" in (other.shortage(SIZE) or "")
    assert other.shortage(-1) is None, "its length is not known"
    for each in (body, other):
        each.close()
    assert spool.memory == 4 * SIZE


@pytest.mark.parametrize(("length", "fed", "seen"), [(10, 10, True), (BODY_MEMORY + 1, BODY_MEMORY + 1, False)])
def test_a_sibling_gets_what_was_read_where_that_is_at_hand(spool: Spool, length: int, fed: int, seen: bool) -> None:
    spool.memory = 0  # so that the larger goes to a file
    body = body_of(spool, length)
    body.feed(DATA[:fed] + b"rest")
    assert body.as_sent() == (HEAD + DATA[:fed] + b"rest" if seen else None)
    body.close()


def test_what_came_in_chunks_is_not_sent_on(spool: Spool) -> None:
    body = body_of(spool, None)
    body.feed(b"1\r\nx\r\n0\r\n\r\n")
    assert body.as_sent() is None
    body.close()


def resting(spool: Spool, pair: Pair) -> StreamedBody:
    """A body of SIZE bytes that may rest in the kernel's queue."""
    body = body_of(spool, SIZE)
    body.rest_in(pair[0])
    return body


def test_a_body_that_rests_wakes_no_thread_before_it_is_whole(spool: Spool, pair: Pair) -> None:
    ours, client = pair
    body = resting(spool, pair)
    client.sendall(DATA[:-1])
    assert not select.select([ours], [], [], 0.01)[0]
    assert not body.arrived()
    client.sendall(DATA[-1:] + b"rest")
    assert select.select([ours], [], [], BOUND)[0]
    assert body.arrived()
    assert body.unread
    body.fetch()
    assert (text_of(body), body.unread) == (DATA, False)
    assert ours.recv(100) == b"rest", "it is the next request's"
    body.close()


def test_what_was_fed_before_counts(spool: Spool, pair: Pair) -> None:
    body = resting(spool, pair)
    body.feed(DATA[:1000])
    body.wait()
    pair[1].sendall(DATA[1000:])
    assert select.select([pair[0]], [], [], BOUND)[0]
    assert body.arrived()
    body.fetch()
    assert text_of(body) == DATA
    body.close()


def test_its_progress_is_that_of_the_queue(spool: Spool, pair: Pair) -> None:
    body = resting(spool, pair)
    body.look(5.0)
    assert body.progress.moved_at == 0.0
    pair[1].sendall(DATA[:5000])
    while body.progress.received < 5000:
        body.look(5.0)
    assert 0.0 < body.progress.moved_at <= 5.0
    body.close()


@pytest.mark.parametrize("lost", [0, SIZE - 1])
def test_a_body_that_is_not_there_any_more_is_refused(spool: Spool, pair: Pair, lost: int) -> None:
    """The application has no business with the socket, but it has the number."""
    body = resting(spool, pair)
    pair[1].sendall(DATA)
    assert select.select([pair[0]], [], [], BOUND)[0]
    assert body.arrived()
    while len(pair[0].recv(SIZE - lost, socket.MSG_PEEK)) < SIZE - lost:
        pass
    pair[0].recv(SIZE - lost)
    with pytest.raises(ProtocolError) as caught:
        body.fetch()
    assert caught.value.status == 400
    body.close()


@pytest.mark.parametrize(("how", "left"), [("drop", b"rest"), ("close", DATA + b"rest")])
def test_a_body_that_is_not_wanted_is_read_before_an_answer_and_left_to_a_sibling(
    spool: Spool, pair: Pair, how: str, left: bytes
) -> None:
    """Left unread it would make a reset of the close; a sibling is to read it."""
    body = resting(spool, pair)
    pair[1].sendall(DATA + b"rest")
    assert select.select([pair[0]], [], [], BOUND)[0]
    assert body.arrived()
    getattr(body, how)()
    pair[0].settimeout(BOUND)
    assert pair[0].recv(len(left), socket.MSG_WAITALL) == left
    assert spool.memory == 4 * SIZE
    pair[1].sendall(b"x")
    assert select.select([pair[0]], [], [], BOUND)[0], "one byte is reported again"


def test_a_body_that_came_with_its_head_is_at_hand() -> None:
    body = BufferedBody(b"body")
    assert (body.size, body.stream.read(), body.stream.read(), body.unread) == (4, b"body", b"body", False)
    body.fetch()
    body.drop()
    body.close()
