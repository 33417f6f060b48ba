"""How a worker leaves: what it hands on, what it ends, and what it cuts when the grace is over."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from forkserver.server.connection.states import UPGRADED
from forkserver.server.loop.retirement import Retirement
from harness.fakes import FakeLoop, FakeSocket

GET = b"GET /path?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n"


class Balancer:
    """Siblings that take what is handed on."""

    def __init__(self) -> None:
        self.reachable = True
        self.handed_off = 0

    def hand_off_idle(self) -> None:
        self.handed_off += 1


class House:
    """A retirement, its acceptor's orders, and a loop of fakes."""

    def __init__(self, siblings: bool = True) -> None:
        self.loop = FakeLoop()
        self.balancer = Balancer()
        loop: Any = self.loop
        loop.balancer = self.balancer if siblings else None
        self.siblings = siblings
        self.orders: list[str] = []
        acceptor: Any = self
        self.retirement = Retirement(loop, acceptor)

    def drain(self, new_program: bool) -> None:
        assert self.balancer.reachable is not (self.siblings and new_program), "what is taken goes where siblings are"
        self.orders.append("drain for a new program" if new_program else "drain")

    def adopt_all(self) -> None:
        self.orders.append("adopt")


def test_with_siblings_the_idle_connections_go_to_them() -> None:
    house = House()
    connection = house.loop.connect(GET)
    house.loop.serve()
    house.retirement.begin(30.0, handoff=True)
    assert (house.orders, house.balancer.handed_off) == (["drain"], 1)
    assert (house.loop.retiring, house.loop.closing) == (True, False)
    assert not house.retirement.complete
    connection.close()
    assert house.retirement.complete


@pytest.mark.parametrize("siblings", [True, False])
def test_without_a_hand_off_each_connection_ends_with_its_answer_or_soon(siblings: bool) -> None:
    house = House(siblings)
    idle, half, asks = house.loop.connect(GET), house.loop.connect(GET[:9]), None
    house.loop.serve()
    asks = house.loop.connect(GET)
    house.retirement.begin(30.0, handoff=not siblings)
    assert house.orders == ["drain for a new program"]
    assert house.loop.closing
    assert idle.queue is house.loop.timeouts.parting, "a request may be on its way"
    assert half.queue is house.loop.timeouts.heads
    house.loop.serve()
    assert b"\r\nConnection: close\r\n" in asks.sock.sent
    assert house.balancer.reachable is not siblings


def test_an_application_that_speaks_websocket_sees_the_end_of_its_client() -> None:
    house = House()
    connection = house.loop.connect(GET)
    connection.state = UPGRADED
    house.retirement.begin(30.0, handoff=True)
    assert connection.sock.shut == [socket.SHUT_RD]


def test_a_stop_may_follow_a_reload() -> None:
    """What is in the queue between workers has no receiver but those that leave."""
    house = House()
    house.loop.connect(GET)
    house.retirement.begin(30.0, handoff=True)
    for _ in range(2):
        house.retirement.begin(30.0, handoff=False)
    assert house.orders == ["drain", "adopt"]
    assert house.loop.closing
    assert not house.balancer.reachable


def test_what_is_unfinished_when_the_grace_is_over_is_named_and_cut(capfd: pytest.CaptureFixture[str]) -> None:
    house = House()
    connection = house.loop.connect(GET)
    house.retirement.begin(30.0, handoff=True)
    assert house.loop.timeouts.next_at <= house.retirement.end_at == 1030.0
    house.retirement.end_if_due(1029.0)
    assert house.loop.connections == {connection}
    house.retirement.end_if_due(1030.0)
    assert house.retirement.complete
    said = capfd.readouterr().err
    assert "graceful_timeout is over; closing what is unfinished: GET /path from 192.0.2.7" in said
    house.retirement.end_if_due(9999.0)
    assert not capfd.readouterr().err


def test_idle_connections_are_no_loss_to_be_told(capfd: pytest.CaptureFixture[str]) -> None:
    house = House()
    house.loop.connect(GET)
    house.loop.serve()
    house.retirement.begin(0.0, handoff=True)
    house.retirement.end_if_due(1000.0)
    assert not capfd.readouterr().err
    assert house.retirement.complete


def test_sockets_of_blocking_handlers_are_waited_for_and_cut_with_the_rest() -> None:
    """A thread of ThreadingMixIn may have one, and close it later."""
    house = House()
    first, second = FakeSocket(), FakeSocket()
    house.loop.handler_sockets = {first, second}
    house.retirement.begin(30.0, handoff=True)
    assert not house.retirement.complete
    first.close()
    assert not house.retirement.complete
    house.retirement.end_if_due(1030.0)
    assert second.closed
    assert house.retirement.complete


def test_a_worker_without_connections_may_leave_at_once() -> None:
    house = House()
    house.retirement.begin(30.0, handoff=True)
    assert house.loop.poller.woken == 1
    assert house.retirement.complete
