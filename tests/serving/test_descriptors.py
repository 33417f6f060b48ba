"""A worker that finds no descriptor, or no memory, for one more connection, with the extension and without it."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from forkserver.ipc.scoreboard import STARTING, STATE
from forkserver.linux.sockets import syn_filter
from forkserver.server.connection import plain_exchange
from forkserver.server.loop.descriptor_reserve import RETRY_SECONDS
from harness import BOUND
from harness.worker import StartTwoWorkers, StartWorker, Worker, hello

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_PATH = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True, params=[pytest.param("C", marks=pytest.mark.extension), "python"])
def _accepted_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(plain_exchange, "load", lambda: None)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_want_of_descriptors_pauses_accepting_and_nothing_else(worker: StartWorker, number: int) -> None:
    """Without the pause the listener stays readable and the worker spins."""
    server = worker()
    kept = server.client(POST)
    server.turn(2)
    listener = Refusing(server, number)
    newcomer = server.client(GET)
    server.turn(2)
    assert server.loop.poller.poll(0) == []
    kept.sendall(b"x")
    assert server.until_answered(kept, 3).endswith(b"POST / 1")
    listener.most = 0
    server.pass_time(1.5)
    assert server.until_answered(newcomer).endswith(b"GET / 0")


class Refusing:
    """A listener of ``server`` whose accept(2) fails with ``number``, as often as it is told to."""

    def __init__(self, server: Worker, number: int) -> None:
        (listener,) = server.loop.acceptor.listeners
        self._real: Any = listener.sock
        self._number = number
        self.refused = 0
        self.most = sys.maxsize
        unsafe: Any = listener
        unsafe.sock = self
        if server.loop.plain is not None:
            server.loop.plain = cast("Any", RefusingExtension(server.loop.plain, self))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def refuse(self) -> None:
        if self.refused < self.most:
            self.refused += 1
            raise OSError(self._number, os.strerror(self._number))

    def _accept(self) -> Any:
        self.refuse()
        return self._real._accept()


class RefusingExtension:
    """The extension, whose accept fails as that of ``listener``."""

    def __init__(self, real: Any, listener: Refusing) -> None:
        self._real, self._listener = real, listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def accept(self, *arguments: Any) -> Any:
        self._listener.refuse()
        return self._real.accept(*arguments)


def idle_clients(server: Any, count: int) -> list[socket.socket]:
    """Clients that were served and wait for their next request."""
    idle = [server.client(GET) for _ in range(count)]
    for client in idle:
        assert b" 200 " in server.until_answered(client, 3)
    return idle


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_the_machine_has_run_short_of_costs_one_idle_client_a_second(worker: StartWorker, number: int) -> None:
    """What one of ours had, another process may have taken before we get it: then closing more gains nothing."""
    server = worker()
    idle_clients(server, 10)
    Refusing(server, number)
    server.client(GET)
    server.turn(5)
    assert len(server.loop.connections) == 9
    server.pass_time(0.5)
    server.loop.acceptor.start()  # as when a connection closes
    server.turn(5)
    assert len(server.loop.connections) == 9
    server.pass_time(1.1)
    server.turn(5)
    assert len(server.loop.connections) == 8


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_the_machine_has_run_short_of_costs_no_request(worker: StartWorker, number: int) -> None:
    """A client that waits for its answer is not closed for a gain that is uncertain."""
    server = worker()
    slow = [server.client(POST) for _ in range(3)]
    server.turn(5)
    server.pass_time(5)
    Refusing(server, number)
    server.client(GET)
    server.turn(5)
    assert len(server.loop.connections) == 3
    for client in slow:
        client.sendall(b"x")
        assert server.until_answered(client, 3).endswith(b"POST / 1")


def test_each_client_takes_the_place_of_one_idle_connection_while_that_helps(worker: StartWorker) -> None:
    """Where the machine gives us what we have let go, the next client gets a place, too, without a pause."""
    server = worker()
    idle_clients(server, 5)
    listener = Refusing(server, errno.ENFILE)
    for _ in range(3):
        listener.most = listener.refused + 1
        newcomer = server.client(GET)
        assert b" 200 " in server.until_answered(newcomer, 3)
    assert len(server.loop.connections) == 5


def test_without_a_free_descriptor_each_client_takes_the_place_of_one(worker: StartWorker) -> None:
    server = worker()
    idle_clients(server, 10)
    newcomers = [server.client(GET) for _ in range(2)]
    server.loop.acceptor.reserve.crowded_from = sys.maxsize
    with limit_of_files(lowest_free()):
        for client in newcomers:
            assert b" 200 " in server.until_answered(client, 5)
    assert len(server.loop.connections) == 10


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_free_descriptor_nothing_is_closed_for_a_client_that_a_sibling_has(
    worker: StartWorker, number: int
) -> None:
    """The kernel looks for a descriptor before it looks whether a client waits (accept(2))."""
    server = worker()
    idle_clients(server, 10)
    listener = Refusing(server, number)
    assert server.loop.acceptor.take(server.loop.acceptor.listeners[0]) is None
    assert listener.refused
    assert len(server.loop.connections) == 10
    assert server.loop.acceptor.accepting


@contextmanager
def limit_of_files(soft: int) -> Iterator[None]:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def lowest_free() -> int:
    number = os.open("/dev/null", os.O_RDONLY)
    os.close(number)
    return number


def test_without_a_free_descriptor_idle_connections_make_room(worker: StartWorker) -> None:
    """At once, not when one of them ends by itself."""
    server = worker()
    idle = [server.client(GET) for _ in range(10)]
    for client in idle:
        assert b" 200 " in server.until_answered(client, 3)
    newcomer = server.client(GET)
    with limit_of_files(lowest_free()):
        assert b" 200 " in server.until_answered(newcomer, 5)
    assert server.until_answered(idle[0], 3) == b"<closed>"
    assert server.until_answered(idle[-1], 3) == b""


def test_without_a_free_descriptor_a_handed_on_connection_is_taken(two_workers: StartTwoWorkers) -> None:
    server, other = two_workers()
    idle = [server.client(GET) for _ in range(3)]
    for client in idle:
        assert b" 200 " in server.until_answered(client, 3)
    moved = other.client(GET)
    assert b" 200 " in other.until_answered(moved, 3)
    (connection,) = other.loop.connections
    assert other.loop.balancer.give(connection, b"")
    with limit_of_files(lowest_free()):
        server.turn(3)
    moved.sendall(GET)
    assert b" 200 " in server.until_answered(moved, 3)
    assert server.until_answered(idle[0], 3) == b"<closed>"


def test_connections_leave_the_last_descriptors_to_the_application(worker: StartWorker) -> None:
    """Its own open() must not be what fails first."""
    server = worker()
    first = server.client(GET)
    assert b" 200 " in server.until_answered(first, 3)
    server.loop.acceptor.reserve.crowded_from = lowest_free()
    second = server.client(GET)
    assert b" 200 " in server.until_answered(second, 3)
    assert server.until_answered(first, 3) == b"<closed>"


def test_connections_that_have_taken_the_last_descriptors_give_them_back(worker: StartWorker) -> None:
    """A crowd may come faster than any of it can be closed; the application is to find descriptors afterwards."""
    server = worker()
    idle_clients(server, 10)
    newcomers = [server.client(GET) for _ in range(4)]
    limit = lowest_free()
    server.loop.acceptor.reserve.crowded_from = limit - 3
    with limit_of_files(limit):
        for client in newcomers:
            assert b" 200 " in server.until_answered(client, 5)
        free = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    for number in free:
        os.close(number)


def test_a_crowd_that_says_nothing_leaves_the_last_descriptors_to_the_application(worker: StartWorker) -> None:
    """None of it may be closed yet, so what comes after it waits in the kernel's queue."""
    server = worker()
    crowd = [server.client() for _ in range(12)]
    limit = lowest_free() + 8
    server.loop.acceptor.reserve.crowded_from = limit - 3
    with limit_of_files(limit):
        server.turn(20)
        free = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    for number in free:
        os.close(number)
    assert len(server.loop.connections) < len(crowd)
    late = server.client(GET)
    server.pass_time(0.3)
    assert b" 200 " in server.until_answered(late)


def take_some(count: int) -> int:
    """How many descriptors the application finds where it wants ``count``."""
    taken: list[int] = []
    try:
        while len(taken) < count:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return len(taken)
    finally:
        for number in taken:
            os.close(number)
    return count


def test_a_crowd_whose_requests_all_wait_leaves_the_last_descriptors_to_the_application(worker: StartWorker) -> None:
    """None of it may be closed, so what comes after it waits in the kernel's queue until one has its answer."""
    answers = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        answers.wait(BOUND)
        return hello(environ, start_response)

    server = worker(app, threads=2)
    crowd = [server.client(GET) for _ in range(12)]
    limit = lowest_free() + 8
    server.loop.acceptor.reserve.crowded_from = limit - 3
    with limit_of_files(limit):
        server.turn(20)
        assert take_some(2) == 2
        assert len(server.loop.connections) < len(crowd)
        assert server.loop.poller.poll(0) == [], "it does not spin"
        server.pass_time(RETRY_SECONDS)
        server.turn(3)
        assert take_some(2) == 2
        answers.set()
        for client in crowd:
            server.turn_until(lambda client=client: select.select([client], [], [], 0)[0])
            assert client.recv(1000).endswith(b"GET / 0")
            assert take_some(2) == 2


def test_a_worker_that_retires_leaves_a_crowd_to_its_siblings_where_its_descriptors_end(
    two_workers: StartTwoWorkers,
) -> None:
    """They serve in a moment: until then nothing can be handed on."""
    server, sibling = two_workers()
    sibling.row.words[STATE] = STARTING
    crowd = [server.client(GET) for _ in range(12)]
    limit = lowest_free() + 8
    server.loop.acceptor.reserve.crowded_from = limit - 3
    with server.listener.dup() as siblings:
        with limit_of_files(limit):
            server.httpd.retire(30, handoff=True)
            assert take_some(2) == 2
        taken = len(server.loop.connections)
        assert 0 < taken < len(crowd)
        for _ in crowd[taken:]:
            siblings.accept()[0].close()
    for client in crowd[:taken]:
        assert b" 200 " in server.until_answered(client)


def test_a_worker_that_retires_takes_all_of_a_queue_that_ends(two_workers: StartTwoWorkers) -> None:
    """A reload has given up the address: there are no siblings to which the rest could be left."""
    server, sibling = two_workers()
    sibling.row.words[STATE] = STARTING
    crowd = [server.client(GET) for _ in range(8)]
    limit = lowest_free() + 9
    server.loop.acceptor.reserve.crowded_from = limit - 3
    syn_filter.block_new_connections(server.listener)
    with limit_of_files(limit):
        server.httpd.retire(30, handoff=True)
    assert len(server.loop.connections) == len(crowd)


def test_what_siblings_hand_on_leaves_the_last_descriptors_to_the_application(two_workers: StartTwoWorkers) -> None:
    """At a reload all connections of a worker that retires come at once: those without a place wait in the queue."""
    other, server = two_workers()
    moved = idle_clients(other, 12)
    other.httpd.retire(30, handoff=True)
    _crowd = [server.client() for _ in range(4)]
    server.turn(2)
    limit = lowest_free() + 8
    server.loop.acceptor.reserve.crowded_from = limit - 3
    with limit_of_files(limit):
        for client in moved:
            client.sendall(GET)
        server.turn(20)
        free = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    for number in free:
        os.close(number)
    server.pass_time(0.3)
    for client in moved:
        assert b" 200 " in server.until_answered(client)


def test_want_of_descriptors_while_it_retires_does_not_make_a_worker_accept_again(
    two_workers: StartTwoWorkers,
) -> None:
    """What its siblings hand on is for those that stay."""
    server, _ = two_workers()
    kept = server.client(POST)
    server.turn(2)
    Refusing(server, errno.ENFILE)
    server.client(GET)
    server.loop.retire(30.0, handoff=True)
    server.pass_time(1.1)
    assert not server.loop.acceptor.accepting
    kept.sendall(b"x")
    assert server.until_answered(kept, 3).endswith(b"POST / 1")
