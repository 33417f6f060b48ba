"""When a worker accepts, what it takes, and when it pauses: on fake listeners."""

from __future__ import annotations

import errno
import socket
from collections import deque
from typing import Any

import pytest

from forkserver.ipc.scoreboard import ACCEPTED
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.states import CLOSED, READING, READY
from forkserver.server.handoff.queue import DescriptorLostError, HandedConnection
from forkserver.server.loop.acceptor import Acceptor
from forkserver.server.loop.listener import Listener
from forkserver.server.loop.recycling import Recycling
from harness.fakes import FakeLoop, FakeServer, FakeSocket
from harness.late import LateError

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Listening(FakeSocket):
    """A listening socket with a queue of clients, or errors in their place."""

    def __init__(self, *clients: bytes | OSError) -> None:
        super().__init__()
        self.clients = deque(clients)
        self.peer: Any = ("192.0.2.7", 4711)

    def accept(self) -> tuple[Any, Any]:
        if not self.clients:
            raise BlockingIOError
        client = self.clients.popleft()
        if isinstance(client, OSError):
            raise client
        return FakeSocket(client), self.peer

    def getsockopt(self, *_option: int) -> int:
        raise OSError(errno.ENOPROTOOPT, "no such option")


class Queue:
    """The queue of connections that siblings hand on."""

    def __init__(self) -> None:
        self.handed: deque[Any] = deque()

    def fileno(self) -> int:
        return 99

    def take(self) -> Any:
        if not self.handed:
            return None
        found = self.handed.popleft()
        if isinstance(found, Exception):
            raise found
        return found


class Siblings:
    """A balancer's word of whether others serve."""

    def has_siblings(self) -> bool:
        return True


class House:
    """An acceptor in a loop of fakes, with one listener."""

    def __init__(self, *clients: bytes | OSError, handoff: bool = False, **settings: Any) -> None:
        self.loop = FakeLoop(**settings)
        loop: Any = self.loop
        loop.balancer = Siblings() if handoff else None
        loop.seconds_left = lambda: None
        self.queue = Queue()
        queue: Any = self.queue if handoff else None
        self.acceptor = Acceptor(loop, Connection, queue)
        self.acceptor.reserve.crowded_from = 1 << 30
        self.listening = Listening(*clients)
        self.listener = self.add(self.listening)

    def add(self, listening: Listening, number: int = 1, inherited: bool = False) -> Listener:
        sock: Any = listening
        made = Listener(sock, None, number, inherited)
        self.acceptor.listeners.append(made)
        return made

    @property
    def watched(self) -> set[int]:
        return set(self.loop.poller.targets)

    def accept(self) -> list[Any]:
        """The connections that an event of the listener brings."""
        before = set(self.loop.connections)
        self.loop.poller.targets[self.listening.fileno()](1)
        return [each for each in self.loop.connections if each not in before]


def test_it_listens_from_start_to_stop() -> None:
    house = House(handoff=True)
    for _ in range(2):
        house.acceptor.start()
        assert house.watched == {house.listening.fileno(), 99}
    for _ in range(2):
        house.acceptor.stop()
        assert house.watched == set()


def test_a_start_that_an_exception_breaks_off_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that comes late may come there: an application thread that closes a connection makes room."""
    house = House(handoff=True)
    house.acceptor.paused = True
    register = house.loop.poller.register

    def struck(fd: int, mask: int, target: Any) -> None:
        register(fd, mask, target)
        raise LateError

    monkeypatch.setattr(house.loop.poller, "register", struck)
    with pytest.raises(LateError):
        house.acceptor.start()
    assert (house.acceptor.accepting, house.acceptor.paused) == (False, True)
    monkeypatch.undo()
    house.acceptor.start()
    assert house.watched == {house.listening.fileno(), 99}
    assert (house.acceptor.accepting, house.acceptor.paused) == (True, False)


@pytest.mark.parametrize(
    ("before", "order", "after"),
    [(True, None, True), (False, None, False), (True, "stop", False), (False, "start", True), (True, "start", True)],
)
def test_nothing_is_accepted_while_it_is_held_and_orders_count_afterwards(
    before: bool, order: str | None, after: bool
) -> None:
    """The application is in a call, and a new client would wait for it."""
    house = House()
    if before:
        house.acceptor.start()
    house.acceptor.hold()
    if order is not None:
        getattr(house.acceptor, order)()
    assert house.watched == set()
    house.acceptor.let_go()
    assert bool(house.watched) is after


def test_a_lone_worker_takes_what_there_is_and_reads_it_at_once() -> None:
    house = House(GET, b"", GET)
    house.acceptor.start()
    assert len(house.accept()) == 3
    assert len(house.loop.submitted) == 2
    assert sorted(each.state.name for each in house.loop.connections) == ["READING", "READY", "READY"]
    (silent,) = [each for each in house.loop.connections if each.state is READING]
    assert silent.queue is house.loop.timeouts.heads
    assert silent in house.loop.poller.reading
    assert house.loop.row.words[ACCEPTED] == 3


def test_a_lone_worker_looks_for_no_more_than_there_was_the_last_time() -> None:
    """To find none costs half as much as to take one, and clients mostly come one by one."""
    house = House(GET, GET, GET)
    house.acceptor.start()
    house.acceptor.take_and_serve(house.listener)
    assert (house.listener.batch, len(house.loop.connections)) == (3, 3)
    house.listening.clients.append(GET)
    house.acceptor.take_and_serve(house.listener)
    assert house.listener.batch == 1
    house.listening.clients.extend([GET, GET])
    house.acceptor.take_and_serve(house.listener)
    assert len(house.listening.clients) == 1, "it is reported again in the next turn"


def test_workers_take_turns() -> None:
    house = House(GET, GET, handoff=True)
    house.acceptor.start()
    assert len(house.accept()) == 1
    assert house.loop.poller.anew == [house.listening.fileno()]


@pytest.mark.parametrize(
    ("peer", "seen"),
    [("", ("", 0)), (("::ffff:192.0.2.1", 9, 0, 0), ("192.0.2.1", 9)), (("2001:db8::1", 9, 0, 0),) * 2,
     (("192.0.2.1", 9),) * 2],
)  # fmt: skip
def test_a_client_has_the_address_that_handlers_expect(peer: Any, seen: tuple[Any, ...]) -> None:
    house = House(GET)
    house.listening.peer = peer
    connection = house.acceptor.take(house.listener)
    assert connection is not None
    assert connection.peer == seen


def test_at_worker_connections_it_pauses_until_one_may_be_closed() -> None:
    house = House(GET, worker_connections=0)  # poll(2) tells of a number that is no descriptor: a client seems to wait
    loop: Any = house.loop
    loop.evict = lambda count, shortage: 0
    loop.seconds_left = lambda: 0.25
    house.acceptor.start()
    assert house.accept() == []
    assert (house.acceptor.paused, house.acceptor.crowded, house.watched) == (True, True, set())
    assert loop.resumes_after == [0.25]
    assert loop.timeouts.park_seconds < 0, "a connection that comes to rest now is one to close"
    house.acceptor.start()
    assert not house.acceptor.crowded
    assert loop.timeouts.park_seconds >= 0
    loop.evict = lambda count, shortage: 1
    assert len(house.accept()) == 1


def test_a_connection_that_is_gone_before_accept_costs_nothing() -> None:
    house = House(OSError(errno.ECONNABORTED, "gone"), GET)
    house.acceptor.start()
    assert house.accept() == []
    assert len(house.accept()) == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
def test_accepting_that_is_denied_is_told_once_and_tried_again_later(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client stays in the queue, so without the pause the listener is readable at once, and the worker spins."""
    house = House(*[OSError(number, "denied")] * 3, GET)
    loop: Any = house.loop
    loop.evict = loop.evict_resting = lambda *_asked: 0
    for tries in range(3):
        house.acceptor.start()
        assert house.accept() == []
        assert (house.acceptor.paused, house.watched) == (True, set())
        assert loop.resumes_after == [1.0] * (tries + 1)
    house.acceptor.start()
    assert len(house.accept()) == 1
    told = [line for line in capfd.readouterr().err.splitlines() if "denies accept4(2)" in line]
    assert len(told) == 1
    assert f"cannot accept: [Errno {number}] denied: " in told[0]


def test_a_listener_that_was_closed_in_the_same_turn_is_left_alone() -> None:
    house = House(GET)
    house.acceptor.start()
    accept = house.loop.poller.targets[house.listening.fileno()]
    house.acceptor.drop()
    accept(1)
    assert house.loop.connections == set()
    assert house.acceptor.listeners == []


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOTSOCK, errno.EOPNOTSUPP])
def test_a_worker_whose_listener_the_application_has_closed_is_replaced(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """A stray close() of its number: epoll goes on to report the socket, and the worker would turn without end."""
    house = House(OSError(number, "not a listener"), GET)
    loop: Any = house.loop
    loop.recycling = Recycling(loop.context.settings)
    reasons: list[str] = []
    loop.recycling.on_due = reasons.append
    house.acceptor.start()
    fd = house.listening.fileno()
    assert house.accept() == []
    assert (house.acceptor.listeners, house.watched) == ([], set())
    assert not house.listening.closed, "the number may be another file's by now"
    assert reasons == ["its application has closed a listener"]
    assert f"has closed descriptor {fd}, which is a listener's" in capfd.readouterr().err


def test_a_client_that_verify_request_does_not_want_is_closed() -> None:
    class Server(FakeServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            return request.incoming == GET

    house = House(b"GET /other", GET, server_class=Server)
    house.acceptor.start()
    house.accept()
    assert [each.state for each in house.loop.connections] == [READY]
    assert [each.state for each in house.loop.left] == [CLOSED]


# Siblings


def handed(number: int = 1, data: bytes = GET) -> tuple[Any, HandedConnection]:
    return FakeSocket(), HandedConnection(number, ("198.51.100.1", 9), 2000.0, 990.0, data)


def adopt(house: House) -> None:
    house.loop.poller.targets[99](1)


def test_a_connection_of_a_sibling_goes_on_here() -> None:
    house = House(handoff=True)
    house.acceptor.start()
    house.queue.handed.append(handed())
    adopt(house)
    ((connection, data, since),) = house.loop.submitted
    assert (connection.peer, connection.listener, data, since) == (("198.51.100.1", 9), house.listener, GET, 990.0)
    assert house.loop.poller.anew == [99]


def test_with_an_unread_connection_of_a_sibling_its_listener_is_looked_at() -> None:
    """The sibling retires, and may have left clients in the queue of which it alone was told."""
    house = House(handoff=True)
    house.acceptor.start()
    house.queue.handed.append(handed(data=b""))
    adopt(house)
    assert house.loop.poller.anew == [99, house.listening.fileno()]


def test_a_message_without_its_connection_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    house = House(handoff=True)
    house.acceptor.start()
    house.queue.handed += [DescriptorLostError("no descriptor came"), handed()]
    for _ in range(2):
        adopt(house)
    assert "a connection that a sibling handed on is lost: no descriptor came" in capfd.readouterr().err
    assert len(house.loop.submitted) == 1


def test_a_queue_that_has_ended_is_given_up_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Its end can be read again and again."""
    house = House(handoff=True)
    house.acceptor.start()
    target = house.loop.poller.targets[99]
    house.queue.handed.append(EOFError("shut"))
    for _ in range(2):
        target(1)
    assert house.watched == {house.listening.fileno()}
    assert capfd.readouterr().err.count("the queue of connections between workers has ended") == 1


# The end


@pytest.mark.parametrize(("new_program", "left"), [(False, 0), (True, 2)])
def test_a_retiring_worker_takes_what_is_queued(new_program: bool, left: int) -> None:
    """A new program of the whole service has inherited listeners, and their queues."""
    house = House(GET, GET)
    inherited = Listening(GET, GET)
    house.add(inherited, 2, inherited=True)
    house.acceptor.start()
    house.acceptor.drain(new_program)
    assert (len(house.listening.clients), len(inherited.clients)) == (0, left)
    assert house.listening.closed
    assert inherited.closed
    assert house.watched == set()
    assert len(house.loop.submitted) == 4 - left


def test_one_listener_may_go_and_the_others_stay() -> None:
    house = House(GET)
    other = Listening()
    house.add(other, 2)
    house.acceptor.start()
    house.acceptor.forgo(1)
    assert house.watched == {other.fileno()}
    assert house.listening.closed
    assert len(house.loop.submitted) == 1


def test_a_forked_child_closes_its_copies_and_never_accepts() -> None:
    house = House(GET)
    house.acceptor.start()
    house.acceptor.forget()
    assert house.listening.closed
    house.acceptor.start()
    assert not house.acceptor.accepting


def test_a_unix_client_has_no_port() -> None:
    house = House(GET)
    house.listening.family = socket.AF_UNIX
    house.listening.peer = b""
    connection = house.acceptor.take(house.listener)
    assert connection is not None
    assert connection.peer == ("", 0)
