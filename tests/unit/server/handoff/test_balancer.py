"""Which requests and connections go to siblings, and which stay."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from forkserver.config import settings as table
from forkserver.ipc.scoreboard import SERVING, STARTING, STATE, WAITING, Scoreboard
from forkserver.server.connection.states import CALLING, CLOSED, READING, READY, ConnectionState
from forkserver.server.connection.timeout_queue import TimeoutQueue
from forkserver.server.connection.timeouts import Timeouts
from forkserver.server.handoff.balancer import RETRY_SECONDS, Balancer
from forkserver.server.handoff.queue import HandedConnection
from harness.fakes import FakeClock, FakePoller

OUTLET = 77
BOARD = Scoreboard(4)


class Queue:
    """The queue between workers, with room for ``room`` connections."""

    def __init__(self) -> None:
        self.room = 100
        self.given: list[tuple[Any, HandedConnection]] = []
        self.tried = 0
        self.too_big: set[Any] = set()
        self.closed = False

    def give(self, sock: Any, handed: HandedConnection) -> bool:
        self.tried += 1
        if not self.room or sock in self.too_big:
            return False
        self.room -= 1
        self.given.append((sock, handed))
        return True

    def full(self) -> bool:
        return not self.room

    def outlet(self) -> int:
        return OUTLET

    def close(self) -> None:
        self.closed = True

    @property
    def socks(self) -> list[Any]:
        return [sock for sock, _ in self.given]


class Waiting:
    """A connection, by the name ``sock``, which waits for a request or for the application."""

    read_mask = 1
    can_move = True
    queued = False

    class listener:
        number = 3

    def __init__(self, sock: str, state: ConnectionState, buffer: bytes = b"") -> None:
        self.sock, self.state, self.buffer = sock, state, buffer
        self.peer = ("192.0.2.7", 4711)
        self.interest = 1
        self.whole_at = 0.0
        self.queue: TimeoutQueue[Any] | None = None
        self.timeouts: Timeouts | None = None

    @property
    def begun(self) -> bool:
        return bool(self.buffer)

    def readable(self, event: int = 0) -> None:
        raise AssertionError("nothing has come")

    def wait_in(self, queue: TimeoutQueue[Any]) -> None:
        assert self.timeouts is not None
        if self.queue is not None:
            self.queue.discard(self)
        self.queue = queue
        self.timeouts.put(queue, self)

    def close(self) -> None:
        self.state = CLOSED
        if self.queue is not None:
            self.queue.discard(self)


class House:
    """A balancer between fakes, in a worker with one idle sibling and one busy one."""

    def __init__(self) -> None:
        self.clock, self.poller, self.queue = FakeClock(), FakePoller(), Queue()
        self.timeouts = Timeouts(table.defaults(header_timeout=10.0, keep_alive=75.0), self.clock)
        self.waiting: deque[Any] = deque()
        for row in BOARD:
            row.clear()
        for row in list(BOARD)[:3]:
            row.words[STATE] = SERVING
        BOARD[2].begin(b"GET /busy")
        BOARD.serving = 3
        queue: Any = self.queue
        self.balancer = Balancer(self.poller, self.timeouts, self.waiting, BOARD, queue, BOARD[0])

    def request(self, sock: str, data: bytes | None = b"GET", state: ConnectionState = READY) -> Waiting:
        """A request that waits for the application since now."""
        made = Waiting(sock, state)
        made.whole_at = self.clock.now
        self.waiting.append((made, data))
        return made

    def connection(self, sock: str, buffer: bytes = b"") -> Waiting:
        """A connection that waits for its next request, or for the rest of ``buffer``."""
        made = Waiting(sock, READING, buffer)
        made.timeouts = self.timeouts
        made.wait_in(self.timeouts.heads if buffer else self.timeouts.idle)
        self.poller.watch_reading(made)
        return made

    @property
    def stayed(self) -> list[str]:
        return [connection.sock for connection, _ in self.waiting]


@pytest.fixture
def house() -> Iterator[House]:
    yield House()
    for row in BOARD:
        row.clear()


def give(house: House, connection: Waiting, data: bytes = b"", since: float = 0.0) -> bool:
    moved: Any = connection
    return house.balancer.give(moved, data, since)


# Requests


def test_each_idle_sibling_gets_one_request_the_oldest_first(house: House) -> None:
    for name in "abc":
        house.request(name)
    house.balancer.hand_off_waiting()
    assert (house.queue.socks, house.stayed) == (["a"], ["b", "c"])
    assert house.balancer.idle() == 1, "the scoreboard shows what siblings say, and this one has not taken it yet"


def test_only_a_sibling_that_serves_takes_what_is_handed_on(house: House) -> None:
    """Not one that starts or drains, nor this worker, which may be the only one that the master counts."""
    assert house.balancer.others_serve()
    for row in list(BOARD)[1:3]:
        row.words[STATE] = STARTING
    assert not house.balancer.others_serve()


def test_where_none_serves_and_all_threads_here_hang_one_that_starts_is_sooner(house: House) -> None:
    for row in list(BOARD)[1:3]:
        row.words[STATE] = STARTING
    assert not house.balancer.serves_sooner()
    BOARD[0].begin(b"GET /hang")
    assert house.balancer.serves_sooner()


def test_a_request_stays_while_no_sibling_is_idle(house: House) -> None:
    BOARD[1].begin(b"GET /busy")
    house.request("a")
    house.balancer.hand_off_waiting()
    assert (house.queue.socks, house.stayed) == ([], ["a"])
    assert house.balancer.idle() == 0


def test_during_a_slow_call_all_go_to_whoever_is_free_first(house: House) -> None:
    """Also where no sibling is idle: the next one that is takes the oldest."""
    BOARD[1].begin(b"GET /busy")
    for name in "abc":
        house.request(name)
    assert house.balancer.hand_off_all()
    assert (house.queue.socks, house.stayed) == (["a", "b", "c"], [])


def test_they_stay_where_no_sibling_serves(house: House) -> None:
    for row in list(BOARD)[1:]:
        row.words[STATE] = STARTING
    house.request("a")
    assert not house.balancer.hand_off_all()
    assert (house.queue.socks, house.stayed) == ([], ["a"])
    assert BOARD[0].words[WAITING] == 1


def test_a_request_that_cannot_go_stays_in_its_place(house: House) -> None:
    """What was read of it is gone, or it does not fit into the queue: the next goes instead."""
    house.request("gone", None)
    house.request("large")
    house.request("small")
    house.request("next")
    house.queue.too_big = {"large"}
    house.balancer.hand_off_waiting()
    assert (house.queue.socks, house.stayed) == (["small"], ["gone", "large", "next"])


def test_a_full_queue_is_tried_once_however_many_wait(house: House) -> None:
    """It is looked at again every few milliseconds: a try for each would cost the call that they wait for."""
    for name in "abcdef":
        house.request(name)
    house.queue.room = 2
    assert not house.balancer.hand_off_all()
    assert (house.queue.socks, house.stayed) == (["a", "b"], ["c", "d", "e", "f"])
    assert house.queue.tried == 3
    assert BOARD[0].words[WAITING] == 4


def test_a_connection_that_has_gone_meanwhile_waits_no_more(house: House) -> None:
    house.request("gone", state=CLOSED)
    house.request("a")
    house.balancer.hand_off_waiting()
    assert (house.queue.socks, house.stayed) == (["a"], [])


def test_a_request_goes_on_with_its_bytes_and_since_when_it_is_whole(house: House) -> None:
    request = house.request("a", b"GET / HTTP/1.1\r\n\r\n")
    house.balancer.hand_off_waiting()
    assert house.queue.given == [
        ("a", HandedConnection(3, request.peer, house.clock.now + 10, house.clock.now, b"GET / HTTP/1.1\r\n\r\n"))
    ]
    assert request.state is CLOSED, "the worker's own copy"


def test_the_request_that_is_served_next_is_not_handed_on(house: House) -> None:
    for name in "ab":
        house.request(name)
    house.balancer.hand_off_others()
    assert (house.queue.socks, house.stayed) == (["b"], ["a"])


def test_with_threads_a_request_goes_when_it_has_waited_and_none_of_them_is_free(house: House) -> None:
    house.request("a")
    BOARD[0].begin(b"GET /busy")
    house.balancer.hand_off_late()
    assert house.stayed == ["a"], "it has not waited"
    house.timeouts.now += 2 * RETRY_SECONDS
    BOARD[0].end()
    house.balancer.hand_off_late()
    assert house.stayed == ["a"], "a thread of this worker is about to take it"
    BOARD[0].begin(b"GET /busy")
    house.balancer.hand_off_late()
    assert house.queue.socks == ["a"]


def test_calls_are_slow_by_their_average(house: House) -> None:
    """One long call among many short ones says nothing of the next."""
    assert not house.balancer.slow
    house.balancer.note(1.0)
    assert house.balancer.slow
    for _ in range(100):
        house.balancer.note(0.0001)
    assert not house.balancer.slow


def test_the_scoreboard_shows_how_many_wait(house: House) -> None:
    """The line of a death names what was lost, and nothing besides."""
    BOARD[1].begin(b"GET /busy")
    for name in "abc":
        house.request(name)
    house.balancer.hand_off_waiting()
    assert BOARD[0].words[WAITING] == 3
    house.waiting.popleft()
    house.balancer.show_fewer()
    assert BOARD[0].words[WAITING] == 2
    house.waiting.clear()
    house.balancer.note(0.1)
    assert BOARD[0].words[WAITING] == 0


def test_a_forked_child_writes_nothing_into_the_workers_row(house: House) -> None:
    house.balancer.forget()
    assert house.queue.closed
    house.request("a", None)
    house.balancer.hand_off_waiting()
    assert BOARD[0].words[WAITING] == 0


# Connections


def test_what_cannot_move_stays_watched(house: House) -> None:
    """It has an answer that is not out, or speaks TLS."""
    connection = house.connection("a")
    connection.can_move = False
    assert not give(house, connection)
    connection.can_move = True
    house.balancer.reachable = False
    assert not give(house, connection), "the siblings leave"
    assert connection in house.poller.reading


def test_what_finds_the_queue_full_is_watched_again(house: House) -> None:
    connection, called = house.connection("a"), house.connection("b")
    called.state = CALLING
    house.queue.room = 0
    assert not give(house, connection)
    assert not give(house, called)
    assert connection in house.poller.reading
    assert called not in house.poller.reading, "its thread has it"


def test_a_connection_keeps_its_deadline(house: House) -> None:
    """A slow client must not gain time by a reload."""
    idle, begun = house.connection("idle"), house.connection("begun", b"GET")
    house.timeouts.now = house.clock.now = house.clock.now + 5
    assert give(house, idle)
    assert give(house, begun, b"GET")
    assert [handed.deadline - house.clock.now for _, handed in house.queue.given] == [70, 5]


def test_a_retiring_worker_passes_on_all_that_wait_for_a_request(house: House) -> None:
    for name in ("idle", "called", "later"):
        house.connection(name)
    house.connection("begun", b"GET")
    called, later = list(house.timeouts.idle)[1:]
    called.state, later.queued = CALLING, True
    house.balancer.hand_off_idle()
    assert house.queue.socks == ["idle", "begun"]
    assert {called.state, later.state} == {CALLING, READING}


def test_what_does_not_fit_follows_when_there_is_room(house: House) -> None:
    """The kernel bounds the queue; the rest waits with its owner, and ends soon where no room comes."""
    for name in "abcd":
        house.connection(name)
    house.queue.room = 1
    house.balancer.hand_off_idle()
    house.balancer.hand_off_idle()
    assert house.queue.socks == ["a"]
    assert [each.sock for each in house.timeouts.parting] == ["b", "c"]
    for room in (2, 10):
        house.queue.room = room
        house.poller.targets[OUTLET](4)
    assert sorted(house.queue.socks) == ["a", "b", "c", "d"]
    assert not house.poller.targets, "its event would be reported again and again"


def test_what_waits_for_room_stays_when_the_siblings_leave_too(house: House) -> None:
    """A stop that follows a reload: no process takes from the queue any more."""
    house.connection("a")
    house.queue.room = 0
    house.balancer.hand_off_idle()
    house.balancer.reachable, house.queue.room = False, 10
    house.poller.targets[OUTLET](4)
    assert not house.queue.given
    assert not house.poller.targets


def test_one_that_cannot_go_keeps_no_other_and_is_not_waited_for(house: House) -> None:
    """A head that is larger than a message: the queue has room all the while."""
    house.connection("large", b"GET")
    house.connection("small", b"GET")
    house.queue.too_big = {"large"}
    house.balancer.hand_off_idle()
    assert house.queue.socks == ["small"]
    assert not house.poller.targets


def test_one_worker_has_no_siblings(house: House) -> None:
    assert house.balancer.has_siblings()
    BOARD.serving = 1
    assert not house.balancer.has_siblings()
