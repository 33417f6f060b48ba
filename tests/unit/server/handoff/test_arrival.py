"""How a connection begins in a worker: as a new client's, or where a sibling has stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkserver.server.connection.states import CLOSED, LINGERING, READING, READY
from forkserver.server.handoff.arrival import begin, go_on
from forkserver.server.handoff.queue import HandedConnection
from forkserver.server.pressure import accept_delay
from forkserver.server.proxy.client_address import ProxiedAddress
from harness import credentials
from harness.fakes import FakeListener, FakeLoop

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01"
PEER = ("192.0.2.7", 4711)


class Siblings:
    """A balancer whose siblings take what they are given, where they serve."""

    def __init__(self, *, serve: bool = True, full: bool = False) -> None:
        self.serve, self.full = serve, full
        self.given: list[Any] = []

    def serves_sooner(self) -> bool:
        return self.serve

    def give(self, connection: Any, data: bytes) -> bool:
        if self.full:
            return False
        assert not data
        self.given.append(connection)
        connection.close()
        return True


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop(header_timeout=15.0, keep_alive=75.0)


def unread(loop: FakeLoop, sent: bytes = b"", listener: Any = None) -> Any:
    """A connection of a client that has ``sent`` something, of which nothing was read yet."""
    made = loop.connect(listener=listener)
    loop.poller.suspend(made)
    made.forget_deadline()
    made.sock.incoming += sent
    return made


def secure(folder: Path) -> FakeListener:
    listener = FakeListener()
    listener.tls = credentials.server(folder)
    return listener


def handed(deadline: float, data: bytes = b"", since: float = 0.0, peer: tuple[Any, ...] = PEER) -> HandedConnection:
    return HandedConnection(1, peer, deadline, since, data)


# New ones


def begun(connection: Any, siblings: Siblings | None) -> Any:
    balancer: Any = siblings
    begin(connection, balancer)
    return connection


def test_a_new_connection_is_read_at_once(loop: FakeLoop) -> None:
    asks, silent = begun(unread(loop, GET), None), begun(unread(loop), None)
    assert (asks.state, silent.state) == (READY, READING)
    assert silent.queue is loop.timeouts.heads
    assert silent in loop.poller.reading


@pytest.mark.parametrize("tls", [False, True])
def test_a_retiring_worker_hands_a_new_connection_on_unread(loop: FakeLoop, tmp_path: Path, tls: bool) -> None:
    """One of TLS could not be handed on later: with its first bytes its keys are made."""
    loop.retiring = True
    siblings = Siblings()
    connection = begun(unread(loop, GET, secure(tmp_path) if tls else None), siblings)
    assert siblings.given == [connection]
    assert connection.sock.incoming == GET


@pytest.mark.parametrize("siblings", [None, Siblings(serve=False), Siblings(full=True)])
def test_a_retiring_worker_serves_what_no_sibling_can_have(loop: FakeLoop, siblings: Siblings | None) -> None:
    loop.retiring = True
    assert begun(unread(loop, GET), siblings).state is READY


def test_a_worker_that_does_not_retire_keeps_its_connections(loop: FakeLoop) -> None:
    assert begun(unread(loop, GET), Siblings()).state is READY


# Those of siblings


def test_a_connection_goes_on_where_another_worker_has_stopped(loop: FakeLoop) -> None:
    idle, half, whole = (unread(loop) for _ in range(3))
    now = loop.clock.now
    go_on(idle, handed(now + 20))
    go_on(half, handed(now + 5, GET[:10]))
    go_on(whole, handed(now + 9, GET, now - 3))
    assert {each for each in (idle, half) if each in loop.poller.reading} == {idle, half}
    assert list(loop.submitted) == [(whole, GET, now - 3)], "it has waited elsewhere"
    loop.pass_time(6)
    assert half.state is LINGERING
    assert b"HTTP/1.1 408 " in half.sock.sent
    assert idle.state is READING
    loop.pass_time(15)
    assert idle.state is CLOSED


def test_a_client_that_a_proxy_has_named_keeps_that_name(loop: FakeLoop) -> None:
    connection = unread(loop)
    told = ProxiedAddress(("198.51.100.7", 9))
    go_on(connection, handed(loop.clock.now + 9, GET, peer=told))
    assert connection.peer is told
    loop.serve()
    assert loop.access[0][0] == "198.51.100.7"


def test_a_request_that_waited_between_workers_is_not_late(loop: FakeLoop) -> None:
    """All workers were in calls: its client has sent it in time."""
    connection = unread(loop, GET)
    go_on(connection, handed(loop.clock.now - 20))
    loop.pass_time(0)
    loop.serve()
    assert b"HTTP/1.1 200 OK" in connection.sock.sent


def test_a_request_that_waited_between_workers_counts_from_when_it_came(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``queue_timeout`` is the client's time, in whichever queue it waits."""
    monkeypatch.setattr(accept_delay, "waiting_seconds", lambda _descriptor: 3.0)
    connection = unread(loop, GET)
    go_on(connection, handed(loop.clock.now + 9))
    assert connection.backlog_seconds == 3.0


def test_a_handshake_whose_beginning_waited_between_workers_has_its_whole_time(loop: FakeLoop, tmp_path: Path) -> None:
    listener = secure(tmp_path)
    begins, silent = unread(loop, HALF_A_HELLO, listener), unread(loop, b"", listener)
    for each in (begins, silent):
        go_on(each, handed(loop.clock.now + 1))
    loop.pass_time(2)
    assert (begins.state, silent.state) == (READING, CLOSED)
    loop.pass_time(14)
    assert begins.state is CLOSED


def test_in_a_worker_that_leaves_too_a_silent_client_is_waited_for_a_moment_only(
    loop: FakeLoop, tmp_path: Path
) -> None:
    loop.retiring = True
    loop.timeouts.retire()
    connection = unread(loop, b"", secure(tmp_path))
    go_on(connection, handed(loop.clock.now + 15))
    assert connection.queue is loop.timeouts.parting
