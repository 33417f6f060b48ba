"""Deadlines, bounds, and what is left of a worker that runs out of something."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forkserver.linux.sockets.resets import reset_at_close
from harness.worker import Clock, StartTwoWorkers, StartWorker

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_PATH = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_head_that_does_not_come_in_time_is_refused(worker: StartWorker) -> None:
    """Slow loris: bytes that trickle do not push the head's deadline."""
    server = worker(header_timeout=15.0)
    client = server.client(b"GET / HT")
    server.turn(2)
    server.pass_time(10)
    client.sendall(b"TP/1.1\r\n")
    server.turn()
    server.pass_time(6)
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_says_nothing_is_closed_without_a_word(worker: StartWorker) -> None:
    """There is no request to answer."""
    server = worker(header_timeout=15.0)
    client = server.client()
    server.turn(2)
    server.pass_time(16)
    assert server.until_answered(client) == b"<closed>"


def test_an_idle_connection_is_closed_after_keep_alive(worker: StartWorker) -> None:
    """And not before; a connection in use is not idle."""
    server = worker(keep_alive=75.0)
    client = server.client(GET)
    server.until_answered(client, 3)
    for _ in range(4):
        server.pass_time(60)
        client.sendall(GET)
        assert b"200 OK" in server.until_answered(client, 3)
    server.pass_time(77)
    assert server.until_answered(client) == b"<closed>"


def test_a_request_that_came_during_a_long_call_is_served_and_not_judged(worker: StartWorker, clock: Clock) -> None:
    """After a stall, read first, then judge."""
    delays = [100.0, 0.0]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        clock.now += delays.pop(0)
        start_response("200 OK", [])
        return [b"late"]

    server = worker(app)
    waiting = server.client()
    server.turn(2)
    first = server.client(GET)
    waiting.sendall(GET)
    assert server.until_answered(first, 3).endswith(b"late")
    assert server.until_answered(waiting, 3).endswith(b"late")


def test_a_body_without_progress_is_refused(worker: StartWorker) -> None:
    """A drip below the floor is no progress either."""
    server = worker(body_timeout=30.0)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
    server.turn(2)
    for _ in range(3):
        server.pass_time(9)
        client.sendall(b"x")
        server.turn()
    server.pass_time(9)
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_progresses_may_take_its_time(worker: StartWorker) -> None:
    """body_timeout counts progress, not the whole."""
    server = worker(body_timeout=30.0)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
    server.turn(2)
    for _ in range(10):
        server.pass_time(20)
        client.sendall(b"x" * 2000)
        server.turn()
    assert server.until_answered(client).endswith(b"POST / 20000")


def test_a_client_that_takes_nothing_is_reset(worker: StartWorker) -> None:
    """write_timeout counts progress; an answer that nobody reads does not stay."""
    server = worker(lambda environ, start: (start("200 OK", []), [b"x" * 8_000_000])[1], write_timeout=60.0)
    client = server.client(GET, receive_buffer=4096)
    server.turn(3)
    server.pass_time(61)
    server.turn()
    assert server.until_answered(client).endswith(b"<reset>")
    assert not server.loop.connections


def test_a_body_larger_than_max_body_is_refused_before_it_is_read(worker: StartWorker) -> None:
    """413, and the client reads it although it is still sending."""
    server = worker(max_body=1000)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n", b"x" * 50_000)
    answer = server.until_answered(client, 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    client.close()
    server.turn(2)
    assert not server.loop.connections


def test_a_full_spool_is_503_and_not_a_crash(worker: StartWorker) -> None:
    """A body that cannot be kept is refused; the next small one is served."""
    server = worker(max_body=100_000, max_spool=100_000, body_memory=0)
    server.loop.context.spool.take(50_000)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n", b"x" * 90_000)
    assert server.until_answered(client, 5).startswith(b"HTTP/1.1 503 ")
    assert server.until_answered(server.client(GET), 5).endswith(b"GET / 0")


def test_the_longest_idle_connection_makes_room_for_a_new_one(worker: StartWorker) -> None:
    """worker_connections is a bound, not a wall against newcomers."""
    server = worker(worker_connections=2)
    first, second = server.client(GET), server.client(GET)
    for client in (first, second):
        assert server.until_answered(client, 3).endswith(b"GET / 0")
    third = server.client(GET)
    assert b"GET / 0" in server.until_answered(third, 3)
    assert server.until_answered(first, 3) == b"<closed>"
    assert server.until_answered(second, 3) == b""


def test_accepting_pauses_where_no_connection_is_idle_and_resumes_when_one_closes(worker: StartWorker) -> None:
    """Who does not fit waits in the kernel's queue, and the worker does not spin."""
    server = worker(worker_connections=1)
    busy = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    server.turn(2)
    waiting = server.client(GET)
    server.turn(3)
    assert server.loop.poller.poll(0) == []
    busy.close()
    assert server.until_answered(waiting).endswith(b"GET / 0")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_want_of_descriptors_pauses_accepting_and_nothing_else(worker: StartWorker, number: int) -> None:
    """Without the pause the listener stays readable and the worker spins."""
    server = worker()
    kept = server.client(POST)
    server.turn(2)
    listener = server.loop.acceptor.listeners[0]

    class Empty:
        fileno = listener.sock.fileno

        def _accept(self) -> Any:
            raise OSError(number, "no more")

    real, listener.sock = listener.sock, Empty()
    newcomer = server.client(GET)
    server.turn(2)
    assert server.loop.poller.poll(0) == []
    kept.sendall(b"x")
    assert server.until_answered(kept, 3).endswith(b"POST / 1")
    listener.sock = real
    server.pass_time(1.5)
    assert server.until_answered(newcomer).endswith(b"GET / 0")


class Refusing:
    """A listener whose accept(2) fails with ``number``, as often as it is told to."""

    def __init__(self, listener: Any, number: int) -> None:
        self._real, self._number = listener.sock, number
        self.refused = 0
        self.most = sys.maxsize
        listener.sock = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def _accept(self) -> Any:
        if self.refused < self.most:
            self.refused += 1
            raise OSError(self._number, os.strerror(self._number))
        return self._real._accept()


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
    Refusing(server.loop.acceptor.listeners[0], number)
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
    Refusing(server.loop.acceptor.listeners[0], number)
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
    listener = Refusing(server.loop.acceptor.listeners[0], errno.ENFILE)
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
    listener = server.loop.acceptor.listeners[0]
    Refusing(listener, number)
    assert server.loop.acceptor.take(listener) is None
    assert len(server.loop.connections) == 10
    assert server.loop.acceptor.accepting


def test_a_connection_that_is_gone_before_accept_costs_nothing(worker: StartWorker) -> None:
    """ECONNABORTED and its like are the client's."""
    server = worker()
    client = server.client()
    reset_at_close(client)
    client.close()
    server.turn(3)
    assert not server.loop.connections
    assert server.until_answered(server.client(GET)).endswith(b"GET / 0")


def test_the_deadline_of_an_answer_counts_from_the_end_of_the_call(worker: StartWorker, clock: Clock) -> None:
    """A call longer than write_timeout must not doom its own answer."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        clock.now += 100
        start_response("200 OK", [])
        return [b"x" * 4_000_000]

    server = worker(app, write_timeout=60.0)
    client = server.client(GET, receive_buffer=4096)
    server.turn(3)
    server.pass_time(30)
    assert len(server.until_answered(client, 5000).partition(b"\r\n\r\n")[2]) == 4_000_000


def test_a_crowd_that_asks_nothing_does_not_drive_out_who_was_served(worker: StartWorker) -> None:
    """A thousand connections that say nothing, or handshakes that hang, cost their sender nothing either."""
    server = worker(worker_connections=3)
    served = server.client(GET)
    assert b" 200 " in server.until_answered(served, 3)
    silent = [server.client() for _ in range(2)]
    server.turn(3)
    assert len(server.loop.connections) == 3
    server.pass_time(1)
    newcomer = server.client(GET)
    assert b" 200 " in server.until_answered(newcomer, 3)
    served.sendall(GET)
    assert b" 200 " in server.until_answered(served, 3)
    assert silent[0].recv(1) == b""


def test_a_body_below_body_min_rate_is_refused_once_the_grace_is_over(worker: StartWorker, capfd: Any) -> None:
    """1 kB each half minute is progress, and would hold a connection for days."""
    server = worker(body_timeout=8.0, body_min_rate=240)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    server.turn(2)
    seconds = 0
    while server.loop.connections and seconds < 30:
        client.sendall(b"x" * 150)
        server.turn()
        server.clock.now += 1
        server.turn()
        seconds += 1
        if len(server.loop.timeouts.bodies) == 0:
            break
    assert 8 < seconds < 24
    assert server.until_answered(client).startswith(b"HTTP/1.1 408 ")
    assert "slower than body_min_rate, 240 bytes a second" in capfd.readouterr().err


def test_a_body_of_a_phone_on_a_2g_network_passes(worker: StartWorker) -> None:
    """1 kB a second with a stall of 20 s now and then."""
    server = worker()
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    server.turn(2)
    for second in range(100):
        if second % 50 < 30:
            client.sendall(b"x" * 1000)
        server.turn()
        server.clock.now += 1
    assert server.until_answered(client).endswith(b"POST / 60000")


def test_the_framing_of_chunks_counts_as_bytes_on_the_wire(worker: StartWorker) -> None:
    """A client that sends a byte a chunk sends six."""
    server = worker(body_timeout=8.0, body_min_rate=100)
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    server.turn(2)
    for _ in range(30):
        client.sendall(b"1\r\nx\r\n" * 30)
        server.turn()
        server.clock.now += 1
    client.sendall(b"0\r\n\r\n")
    assert server.until_answered(client).endswith(b"POST / 900")


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


def test_a_listener_that_was_closed_in_the_same_turn_is_left_alone(worker: StartWorker) -> None:
    """Its event was polled before the order to retire, or to forgo it, was read."""
    server = worker(worker_connections=1)
    assert b" 200 " in server.until_answered(server.client(GET), 3)
    accept = server.loop.poller.targets[server.listener.fileno()]
    server.loop.acceptor.drop()
    accept(select.EPOLLIN)


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


def test_an_idle_connection_ends_two_seconds_after_a_stop(worker: StartWorker) -> None:
    """As docs/workers.md says, whether or not its client closes, too."""
    server = worker()
    idle = server.client(GET)
    assert b" 200 " in server.until_answered(idle, 3)
    server.httpd.retire(30.0, False)
    server.pass_time(1.4)
    assert not server.httpd.retired
    server.pass_time(0.2)
    assert server.until_answered(idle, 3) == b"<closed>"
    server.pass_time(0.5)
    assert server.httpd.retired


def test_want_of_descriptors_while_it_retires_does_not_make_a_worker_accept_again(
    two_workers: StartTwoWorkers,
) -> None:
    """What its siblings hand on is for those that stay."""
    server, _ = two_workers()
    kept = server.client(POST)
    server.turn(2)
    Refusing(server.loop.acceptor.listeners[0], errno.ENFILE)
    server.client(GET)
    server.loop.retire(30.0, handoff=True)
    server.pass_time(1.1)
    assert not server.loop.acceptor.accepting
    kept.sendall(b"x")
    assert server.until_answered(kept, 3).endswith(b"POST / 1")


def test_a_listener_that_the_application_has_shut_is_given_up_once(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """It reports its end again and again: the worker would do nothing else, and say nothing."""
    server = worker()
    client = server.client(GET)
    assert b"200 OK" in server.until_answered(client, 3)
    with socket.socket(fileno=os.dup(server.listener.fileno())) as shut:
        shut.shutdown(socket.SHUT_RDWR)
    server.turn(5)
    server.loop.acceptor.forgo(1)  # by a reload, which listens there again
    client.sendall(GET)
    assert b"200 OK" in server.until_answered(client, 3)
    host, port = server.address
    assert capfd.readouterr().err.count(f"the listener {host}:{port} was shut down, by the application") == 1


@pytest.mark.parametrize(("how", "told"), [(socket.SHUT_RDWR, 1), (socket.SHUT_RD, 0)])
def test_a_unix_listener_that_was_shut_is_given_up_when_its_queue_is_empty(
    worker: StartWorker, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: int, told: int
) -> None:
    """It stays readable and has no connection to give. By halves the master shuts it, which is about to close it."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{tmp_path}/socket")
    listening.listen()
    listening.setblocking(False)
    server = worker(listener=listening)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/socket")
        client.sendall(GET)
        listening.shutdown(how)
        client.setblocking(False)
        assert b"200 OK" in server.until_answered(client)
        server.turn(5)
        assert server.loop.acceptor.listeners == []
        client.sendall(GET)
        assert b"200 OK" in server.until_answered(client)
    assert capfd.readouterr().err.count("was shut down, by the application") == told


def test_bytes_that_came_during_a_slow_call_are_read_before_they_are_judged(worker: StartWorker, clock: Clock) -> None:
    """The worker was late, not the client."""
    half = b"POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab"
    unfinished: Any = None

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            clock.now += 40
            unfinished.sendall(b"cd")
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    server = worker(app, body_timeout=30.0)
    unfinished = server.client(half)
    server.turn(2)
    slow = server.client(GET_PATH % b"slow")
    assert server.until_answered(slow, 1).endswith(b"/slow")
    assert server.until_answered(unfinished, 3).endswith(b"/half")


def test_deadlines_hold_under_load(worker: StartWorker, clock: Clock) -> None:
    """A hundred busy connections fill every batch; a slow head is judged all the same."""
    server = worker(header_timeout=1.0)
    busy = [server.client() for _ in range(100)]
    slow = server.client(b"GET / HT")
    server.turn_until(lambda: len(server.loop.connections) == 101)
    clock.now += 1.5
    for client in busy:
        client.sendall(GET_PATH % b"busy")
    server.turn()
    assert server.until_answered(slow, 1).startswith(b"HTTP/1.1 408 ")
    assert all(server.until_answered(client, 1).endswith(b"GET /busy 0") for client in busy)


def test_short_keep_alive_is_kept_too(worker: StartWorker) -> None:
    """The order of deadlines may be coarse, but not as coarse as the deadline."""
    server = worker(keep_alive=1.0)
    client = server.client(GET_PATH % b"")
    server.until_answered(client, 3)
    for _ in range(5):
        server.pass_time(0.85)
        client.sendall(GET_PATH % b"")
        assert server.until_answered(client, 3).endswith(b"GET / 0")
