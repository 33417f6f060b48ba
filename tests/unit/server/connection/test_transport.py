"""What a socket takes at once, what is kept, and how long a call waits for its client: on a fake socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.buffers.send_buffer import SEND_MEMORY
from forkserver.server.connection.transport import JOIN_BYTES, WAIT_SECONDS, Transport
from forkserver.server.wsgi.response_sink import ClientGoneError
from harness.fakes import FakeLoop, FakeSocket
from harness.late import LateError

BLOCK = os.urandom(SEND_MEMORY)
MADE: list[Transport] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """A connection closes what it keeps."""
    yield
    while MADE:
        if out := MADE.pop().out:
            out.close()


class Owner:
    """The connection: it notes what it is told, and ends a wait when ``patience`` is used up."""

    peer = ("192.0.2.7", 4711)
    thread = 0
    stays = False

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self.noted: list[str] = []
        self.patience = 3.0

    def kept(self) -> None:
        self.noted.append("kept")

    def waiting(self, waits: bool) -> None:
        self.noted.append("waits" if waits else "goes on")

    def check_progress(self, size: int) -> None:
        if self._loop.clock.now >= 1000 + self.patience:
            raise ClientGoneError

    def note_received(self, count: int) -> None:
        raise AssertionError("a plain socket's bytes are counted by the connection")


class House:
    """A transport on a fake socket whose client takes ``room`` bytes; the spool holds ``spool``."""

    def __init__(self, room: int = 1 << 30, spool: int = 0) -> None:
        self.loop = FakeLoop(max_spool=spool, max_body=0)
        self.sock = FakeSocket(room=room)
        self.owner = Owner(self.loop)
        fake: Any = self.sock
        self.transport = Transport(self.loop, fake, self.owner)
        MADE.append(self.transport)

    @property
    def sent(self) -> bytes:
        return bytes(self.sock.sent)

    def take(self, count: int) -> bool:
        """The client takes ``count`` bytes more; whether any were sent."""
        self.sock.room = count
        return self.transport.flush()


def gone(send: Callable[[], object]) -> int:
    """How many bytes were neither sent nor kept when the client had gone."""
    with pytest.raises(ClientGoneError) as caught:
        send()
    return caught.value.unsent


# What goes at once


@pytest.mark.parametrize("size", [0, 1, JOIN_BYTES, JOIN_BYTES + 1])
def test_head_and_body_go_in_one_call(size: int) -> None:
    house = House()
    house.transport.send(b"head", BLOCK[:size])
    assert (house.sent, house.sock.sends) == (b"head" + BLOCK[:size], 1)
    assert not house.transport.out
    assert house.owner.noted == []


@pytest.mark.parametrize("room", [0, 2, 4, 100, JOIN_BYTES + 100])
def test_what_does_not_go_is_kept_in_its_order(room: int) -> None:
    house = House(room)
    body = BLOCK[: 2 * JOIN_BYTES]
    house.transport.send(b"head", body)
    assert len(house.sent) == room
    assert set(house.owner.noted) == {"kept"}
    house.transport.send(b"next", b"")
    assert house.take(1 << 30)
    assert house.sent == b"head" + body + b"next"
    assert not house.transport.out


def test_what_is_kept_goes_before_what_comes() -> None:
    made = House(room=0)
    made.transport.send(b"first")
    made.sock.room = 1 << 30
    made.transport.send(b"second", b" third")
    assert made.sent == b"firstsecond third"


@pytest.mark.parametrize("kept", [b"", b"kept"])
@pytest.mark.parametrize("size", [0, 10, JOIN_BYTES + 1])
def test_a_client_that_has_gone_is_told_with_what_is_lost(kept: bytes, size: int) -> None:
    house = House(room=0 if kept else 1 << 30)
    if kept:
        house.transport.send(kept)
    house.sock.failed = True
    assert gone(lambda: house.transport.send(b"head", BLOCK[:size])) == 4 + size


# Back-pressure


def test_a_call_waits_while_nothing_more_can_be_kept() -> None:
    """The master sees that it waits, and the loop has the lock meanwhile."""
    house = House(room=0)
    house.loop.row.begin(b"GET /")
    seen = []

    def wait(fd: int, seconds: float) -> bool:
        busy = house.loop.row.busy()
        assert busy is not None
        seen.append((fd, seconds, busy.awaits_client))
        house.sock.room = 1 << 30
        return True

    house.loop.wait_writable = wait  # type: ignore[method-assign]
    for _ in range(2):
        house.transport.send(BLOCK)
    assert seen == [(house.sock.fileno(), WAIT_SECONDS, True)]
    assert "waits" in house.owner.noted
    assert house.owner.noted.count("waits") == house.owner.noted.count("goes on")
    busy = house.loop.row.busy()
    assert busy is not None
    assert not busy.awaits_client
    while house.transport.out:
        house.transport.flush()
    assert house.sent == BLOCK * 2


def test_a_time_limit_that_comes_when_the_lock_was_given_up_finds_it_taken_again() -> None:
    house = House(room=0)
    lock = house.loop.loop_lock
    release = lock.release

    def struck() -> None:
        release()
        raise LateError

    house.transport.send(BLOCK)
    lock.release = struck
    with pytest.raises(LateError):
        house.transport.send(BLOCK)
    release()


def test_the_wait_ends_where_the_connection_says_so() -> None:
    house = House(room=0)
    house.transport.send(BLOCK)
    assert gone(lambda: house.transport.send(BLOCK, b"body")) == SEND_MEMORY + 4
    assert house.loop.clock.now == 1000 + house.owner.patience


def test_the_wait_ends_where_the_connection_was_cut_off_meanwhile() -> None:
    house = House(room=0)
    house.transport.send(BLOCK)

    def cut(_fd: int, _seconds: float) -> bool:
        house.transport.close()
        return True

    house.loop.wait_writable = cut  # type: ignore[method-assign]
    assert gone(lambda: house.transport.send(BLOCK)) == SEND_MEMORY
    assert gone(lambda: house.transport.send(BLOCK)) == SEND_MEMORY, "and so it stays"


def test_a_block_larger_than_what_can_be_kept_goes_as_the_client_takes_it() -> None:
    """Nothing of it can be kept until most of it was taken."""
    house = House(room=0)
    house.owner.patience = 1e9

    def takes(_fd: int, _seconds: float) -> bool:
        house.sock.room = 300_000
        return True

    house.loop.wait_writable = takes  # type: ignore[method-assign]
    house.transport.send(BLOCK * 4)
    while house.transport.out:
        house.take(1 << 30)
    assert house.sent == BLOCK * 4
    assert house.transport.pace is not None
    assert house.transport.pace.sent == 4 * SEND_MEMORY


# Files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(BLOCK)
    return made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, client = socket.socketpair()
    ours.setblocking(False)
    client.setblocking(False)
    yield ours, client
    ours.close()
    client.close()


def test_a_file_is_sent_by_the_kernel_although_it_is_closed_meanwhile(
    path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop = FakeLoop()
    transport, closed = Transport(loop, pair[0], Owner(loop)), []
    with path.open("rb") as file:
        transport.send_file(b"head", file, 1000, SEND_MEMORY - 1000, lambda: closed.append(True))
    got = bytearray()
    while transport.out:
        assert not closed
        got += pair[1].recv(1 << 20)
        transport.flush()
    while len(got) < SEND_MEMORY - 996:
        got += pair[1].recv(1 << 20)
    assert bytes(got) == b"head" + BLOCK[1000:]
    assert closed == [True]


def test_a_file_that_became_shorter_ends_the_connection(path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """Content-Length has announced more, and there is nothing to be sent in its place."""
    loop = FakeLoop()
    transport, closed = Transport(loop, pair[0], Owner(loop)), []
    with path.open("rb") as file:
        transport.send_file(b"head", file, 0, SEND_MEMORY, lambda: closed.append(True))
    os.truncate(path, 0)
    assert len(pair[1].recv(1 << 20)) > 4
    with pytest.raises(ClientGoneError) as caught:
        transport.flush()
    assert isinstance(caught.value.__cause__, EOFError)
    assert transport.out is not None
    transport.out.close()
    assert closed == [True]


def test_a_file_that_the_kernel_cannot_send_is_read() -> None:
    """As where no descriptor is free for a copy of it."""
    house, closed = House(), []

    class Reading:
        def __init__(self) -> None:
            self.left = 5

        def fileno(self) -> int:
            raise OSError

        def read(self, size: int) -> bytes:
            self.left -= (given := min(size, self.left))
            return b"x" * given

    file: Any = Reading()
    house.transport.send_file(b"head", file, 0, 3, lambda: closed.append(True))
    assert (house.sent, closed) == (b"headxxx", [True])
    with pytest.raises(ClientGoneError) as caught:
        house.transport.send_file(b"head", file, 0, 10, lambda: closed.append(True))
    assert (house.sent, caught.value.unsent, len(closed)) == (b"headxxxheadxx", 8, 2)


def test_an_empty_file_is_closed_and_its_head_sent(path: Path) -> None:
    house, closed = House(), []
    with path.open("rb") as file:
        house.transport.send_file(b"head", file, 0, 0, lambda: closed.append(True))
    assert (house.sent, closed) == (b"head", [True])
