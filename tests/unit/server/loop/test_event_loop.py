"""The turn of the event loop, on socket pairs and by a fake clock: what is read, expired, and what a fault costs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.config import settings as table
from forkserver.ipc.scoreboard import OPEN, PARKED, Row
from forkserver.logs.error_log import ErrorLog
from forkserver.server.connection.states import READING
from forkserver.server.context import make_context
from forkserver.server.loop.event_loop import EventLoop
from forkserver.server.loop.listener import Listener
from harness import BOUND
from harness.fakes import FakeClock, FakeServer
from harness.worker import AccessLines, hello

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


class House:
    """An event loop without listeners, and clients that were introduced to it."""

    def __init__(self, worker: bool = True, **settings: Any) -> None:
        self.clock = FakeClock()
        self.server = FakeServer(hello, WSGIRequestHandler)
        self.row = Row(memoryview(bytearray(4096)), 0, 1)
        access: Any = AccessLines()
        log = ErrorLog("-", "info", "worker=1 gen=1")
        known = table.defaults(**settings)
        self.context = make_context(self.server, known, log, access, worker, row=self.row)
        self.loop = EventLoop(self.context, clock=self.clock)
        self.ends: list[socket.socket] = []

    def client(self, data: bytes = b"") -> socket.socket:
        """A client that has sent ``data``."""
        ours, client = socket.socketpair()
        self.ends += [ours, client]
        ours.setblocking(False)
        client.setblocking(False)
        client.sendall(data)
        self.loop.acceptor.introduce(ours, ("192.0.2.7", 4711), Listener(ours))
        return client

    def close(self) -> None:
        self.loop.close()
        for each in self.ends:
            each.close()


Make = Callable[..., House]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[House] = []

    def start(**settings: Any) -> House:
        made.append(House(**settings))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_turn_serves_what_is_whole(make: Make) -> None:
    house = make()
    client, late = house.client(GET), house.client()
    house.loop.turn(0)
    assert client.recv(1000).endswith(b"GET /path 0")
    late.sendall(GET)
    house.loop.turn(BOUND)
    assert late.recv(1000).endswith(b"GET /path 0")


def test_what_has_come_is_read_before_a_deadline_is_kept(make: Make) -> None:
    """The worker was late, not the client."""
    house = make(header_timeout=15.0)
    client, silent = house.client(GET[:10]), house.client(GET[:10])
    house.clock.now += 100
    client.sendall(GET[10:])
    house.loop.turn(0)
    assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert silent.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert house.loop.timeouts.late_seconds == 85.0


def test_clients_that_have_sent_much_have_their_share_of_a_turn(make: Make) -> None:
    house = make()
    clients = [house.client(GET * 3) for _ in range(20)]
    for _ in range(2):
        house.loop.turn(0)
    answers = [client.recv(10_000).count(b"HTTP/1.1 200 ") for client in clients]
    assert answers == [2] * 16 + [1] * 4


@pytest.mark.parametrize("error", [LookupError(), SystemExit(3)])
def test_a_fault_costs_a_worker_one_connection(make: Make, error: BaseException) -> None:
    house = make()
    client, other = house.client(), house.client(GET)
    (connection,) = [each for each in house.loop.connections if each.state is READING]

    def fail(_connection: object, _event: int) -> None:
        raise error

    house.loop.poller.watch_reading(connection, MethodType(fail, connection))
    client.sendall(GET)
    house.loop.turn(BOUND)
    assert connection not in house.loop.connections
    assert connection.sock.fileno() == -1
    assert other.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert house.server.faults == [connection.sock]


@pytest.mark.parametrize("error", [LookupError("on purpose"), SystemExit("on purpose")])
def test_handle_error_of_a_worker_ends_no_thread(
    make: Make, error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    """It may be the background driver's, or an application thread."""
    house = make()
    house.client()
    (connection,) = house.loop.connections

    def fail(*_asked: object) -> None:
        raise error

    house.server.handle_error = fail  # type: ignore[method-assign]
    house.loop.guard(connection, fail)
    assert not house.loop.connections
    assert "handle_error raised" in (said := capfd.readouterr().err)
    assert f"{type(error).__name__}: on purpose" in said


def test_what_ends_a_script_ends_it(make: Make) -> None:
    house = make(worker=False)
    house.client()
    (connection,) = house.loop.connections

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.loop.guard(connection, interrupt)
    assert not house.loop.connections


def test_a_fault_of_no_connection_is_logged(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    make().loop.handle_fault(None, LookupError("on purpose"))
    assert "a fault in the loop" in (said := capfd.readouterr().err)
    assert "on purpose" in said


def test_the_scoreboard_counts_open_connections(make: Make) -> None:
    house = make()
    house.loop.row = house.row
    client = house.client()
    assert house.row.words[OPEN] == 1
    client.close()
    house.loop.turn(BOUND)
    assert house.row.words[OPEN] == 0


def test_the_scoreboard_shows_how_many_connections_wait_for_their_next_request(make: Make) -> None:
    """A worker that sleeps shows those of now, not of the last close."""
    house = make()
    house.loop.row = house.row
    clients = [house.client(GET) for _ in range(2)]
    house.loop.turn(BOUND)
    house.loop.turn(0)
    assert house.row.words[PARKED] == 2
    clients.pop().close()
    house.loop.turn(BOUND)
    house.loop.turn(0)
    assert house.row.words[PARKED] == 1


def test_a_script_that_ends_answers_what_is_in_hand_and_closes_what_idles(make: Make) -> None:
    house = make(worker=False)
    asking, idle = house.client(GET), house.client()
    house.loop.finish()
    assert b"\r\nConnection: close\r\n" in asking.recv(1000)
    assert idle.recv(1000) == b""
    assert not house.loop.closing


def test_a_forked_child_leaves_connections_to_their_owner(make: Make) -> None:
    house = make()
    client = house.client(GET[:10])
    (connection,) = house.loop.connections
    house.loop.forget()
    assert house.loop.connections == set()
    assert connection.fd == -1
    assert house.loop.row is None
    client.close()
