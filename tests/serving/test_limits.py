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

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_head_that_does_not_come_in_time_is_refused(serve: Callable[..., Any]) -> None:
    """Slow loris: bytes that trickle do not push the head's deadline."""
    worker = serve(header_timeout=15.0)
    client = worker.client(b"GET / HT")
    worker.turn(2)
    worker.pass_time(10)
    client.sendall(b"TP/1.1\r\n")
    worker.turn()
    worker.pass_time(6)
    assert worker.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_says_nothing_is_closed_without_a_word(serve: Callable[..., Any]) -> None:
    """There is no request to answer."""
    worker = serve(header_timeout=15.0)
    client = worker.client()
    worker.turn(2)
    worker.pass_time(16)
    assert worker.until_answered(client) == b"<closed>"


def test_an_idle_connection_is_closed_after_keep_alive(serve: Callable[..., Any]) -> None:
    """And not before; a connection in use is not idle."""
    worker = serve(keep_alive=75.0)
    client = worker.client(GET)
    worker.until_answered(client, 3)
    for _ in range(4):
        worker.pass_time(60)
        client.sendall(GET)
        assert b"200 OK" in worker.until_answered(client, 3)
    worker.pass_time(77)
    assert worker.until_answered(client) == b"<closed>"


def test_a_request_that_came_during_a_long_call_is_served_and_not_judged(serve: Callable[..., Any], clock: Any) -> None:
    """After a stall, read first, then judge."""
    delays = [100.0, 0.0]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        clock.now += delays.pop(0)
        start_response("200 OK", [])
        return [b"late"]

    worker = serve(app)
    waiting = worker.client()
    worker.turn(2)
    first = worker.client(GET)
    waiting.sendall(GET)
    assert worker.until_answered(first, 3).endswith(b"late")
    assert worker.until_answered(waiting, 3).endswith(b"late")


def test_a_body_without_progress_is_refused(serve: Callable[..., Any]) -> None:
    """A drip below the floor is no progress either."""
    worker = serve(body_timeout=30.0)
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
    worker.turn(2)
    for _ in range(3):
        worker.pass_time(9)
        client.sendall(b"x")
        worker.turn()
    worker.pass_time(9)
    assert worker.until_answered(client).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_progresses_may_take_its_time(serve: Callable[..., Any]) -> None:
    """body_timeout counts progress, not the whole."""
    worker = serve(body_timeout=30.0)
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
    worker.turn(2)
    for _ in range(10):
        worker.pass_time(20)
        client.sendall(b"x" * 2000)
        worker.turn()
    assert worker.until_answered(client).endswith(b"POST / 20000")


def test_a_client_that_takes_nothing_is_reset(serve: Callable[..., Any]) -> None:
    """write_timeout counts progress; an answer that nobody reads does not stay."""
    worker = serve(lambda environ, start: (start("200 OK", []), [b"x" * 8_000_000])[1], write_timeout=60.0)
    client = worker.client(GET, receive_buffer=4096)
    worker.turn(3)
    worker.pass_time(61)
    worker.turn()
    assert worker.until_answered(client).endswith(b"<reset>")
    assert not worker.loop.connections


def test_a_body_larger_than_max_body_is_refused_before_it_is_read(serve: Callable[..., Any]) -> None:
    """413, and the client reads it although it is still sending."""
    worker = serve(max_body=1000)
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n", b"x" * 50_000)
    answer = worker.until_answered(client, 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    client.close()
    worker.turn(2)
    assert not worker.loop.connections


def test_a_full_spool_is_503_and_not_a_crash(serve: Callable[..., Any]) -> None:
    """A body that cannot be kept is refused; the next small one is served."""
    worker = serve(max_body=100_000, max_spool=100_000, body_memory=0)
    worker.loop.spool.take(50_000)
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n", b"x" * 90_000)
    assert worker.until_answered(client, 5).startswith(b"HTTP/1.1 503 ")
    assert worker.until_answered(worker.client(GET), 5).endswith(b"GET / 0")


def test_the_longest_idle_connection_makes_room_for_a_new_one(serve: Callable[..., Any]) -> None:
    """worker_connections is a bound, not a wall against newcomers."""
    worker = serve(worker_connections=2)
    first, second = worker.client(GET), worker.client(GET)
    for client in (first, second):
        assert worker.until_answered(client, 3).endswith(b"GET / 0")
    third = worker.client(GET)
    assert b"GET / 0" in worker.until_answered(third, 3)
    assert worker.until_answered(first, 3) == b"<closed>"
    assert worker.until_answered(second, 3) == b""


def test_accepting_pauses_where_no_connection_is_idle_and_resumes_when_one_closes(serve: Callable[..., Any]) -> None:
    """Who does not fit waits in the kernel's queue, and the worker does not spin."""
    worker = serve(worker_connections=1)
    busy = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    worker.turn(2)
    waiting = worker.client(GET)
    worker.turn(3)
    assert worker.loop._poll(0) == []
    busy.close()
    assert worker.until_answered(waiting).endswith(b"GET / 0")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_want_of_descriptors_pauses_accepting_and_nothing_else(serve: Callable[..., Any], number: int) -> None:
    """Without the pause the listener stays readable and the worker spins."""
    worker = serve()
    kept = worker.client(POST)
    worker.turn(2)
    listener = worker.loop.acceptor.listeners[0]

    class Empty:
        fileno = listener.sock.fileno

        def _accept(self) -> Any:
            raise OSError(number, "no more")

    real, listener.sock = listener.sock, Empty()
    newcomer = worker.client(GET)
    worker.turn(2)
    assert worker.loop._poll(0) == []
    kept.sendall(b"x")
    assert worker.until_answered(kept, 3).endswith(b"POST / 1")
    listener.sock = real
    worker.pass_time(1.5)
    assert worker.until_answered(newcomer).endswith(b"GET / 0")


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


def idle_clients(worker: Any, count: int) -> list[socket.socket]:
    """Clients that were served and wait for their next request."""
    idle = [worker.client(GET) for _ in range(count)]
    for client in idle:
        assert b" 200 " in worker.until_answered(client, 3)
    return idle


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_the_machine_has_run_short_of_costs_one_idle_client_a_second(
    serve: Callable[..., Any], number: int
) -> None:
    """What one of ours had, another process may have taken before we get it: then closing more gains nothing."""
    worker = serve()
    idle_clients(worker, 10)
    Refusing(worker.loop.acceptor.listeners[0], number)
    worker.client(GET)
    worker.turn(5)
    assert len(worker.loop.connections) == 9
    worker.pass_time(0.5)
    worker.loop.acceptor.start()  # as when a connection closes
    worker.turn(5)
    assert len(worker.loop.connections) == 9
    worker.pass_time(1.1)
    worker.turn(5)
    assert len(worker.loop.connections) == 8


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_the_machine_has_run_short_of_costs_no_request(serve: Callable[..., Any], number: int) -> None:
    """A client that waits for its answer is not closed for a gain that is uncertain."""
    worker = serve()
    slow = [worker.client(POST) for _ in range(3)]
    worker.turn(5)
    worker.pass_time(5)
    Refusing(worker.loop.acceptor.listeners[0], number)
    worker.client(GET)
    worker.turn(5)
    assert len(worker.loop.connections) == 3
    for client in slow:
        client.sendall(b"x")
        assert worker.until_answered(client, 3).endswith(b"POST / 1")


def test_each_client_takes_the_place_of_one_idle_connection_while_that_helps(serve: Callable[..., Any]) -> None:
    """Where the machine gives us what we have let go, the next client gets a place, too, without a pause."""
    worker = serve()
    idle_clients(worker, 5)
    listener = Refusing(worker.loop.acceptor.listeners[0], errno.ENFILE)
    for _ in range(3):
        listener.most = listener.refused + 1
        newcomer = worker.client(GET)
        assert b" 200 " in worker.until_answered(newcomer, 3)
    assert len(worker.loop.connections) == 5


def test_without_a_free_descriptor_each_client_takes_the_place_of_one(serve: Callable[..., Any]) -> None:
    worker = serve()
    idle_clients(worker, 10)
    newcomers = [worker.client(GET) for _ in range(2)]
    worker.loop.acceptor._crowded_from = sys.maxsize
    with limit_of_files(lowest_free()):
        for client in newcomers:
            assert b" 200 " in worker.until_answered(client, 5)
    assert len(worker.loop.connections) == 10


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_free_descriptor_nothing_is_closed_for_a_client_that_a_sibling_has(
    serve: Callable[..., Any], number: int
) -> None:
    """The kernel looks for a descriptor before it looks whether a client waits (accept(2))."""
    worker = serve()
    idle_clients(worker, 10)
    listener = worker.loop.acceptor.listeners[0]
    Refusing(listener, number)
    assert worker.loop.acceptor.take(listener) is None
    assert len(worker.loop.connections) == 10
    assert worker.loop.acceptor.accepting


def test_a_connection_that_is_gone_before_accept_costs_nothing(serve: Callable[..., Any]) -> None:
    """ECONNABORTED and its like are the client's."""
    worker = serve()
    client = worker.client()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    worker.turn(3)
    assert not worker.loop.connections
    assert worker.until_answered(worker.client(GET)).endswith(b"GET / 0")


def test_the_deadline_of_an_answer_counts_from_the_end_of_the_call(serve: Callable[..., Any], clock: Any) -> None:
    """A call longer than write_timeout must not doom its own answer."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        clock.now += 100
        start_response("200 OK", [])
        return [b"x" * 4_000_000]

    worker = serve(app, write_timeout=60.0)
    client = worker.client(GET, receive_buffer=4096)
    worker.turn(3)
    worker.pass_time(30)
    assert len(worker.until_answered(client, 5000).partition(b"\r\n\r\n")[2]) == 4_000_000


def test_a_crowd_that_asks_nothing_does_not_drive_out_who_was_served(serve: Callable[..., Any]) -> None:
    """A thousand connections that say nothing, or handshakes that hang, cost their sender nothing either."""
    worker = serve(worker_connections=3)
    served = worker.client(GET)
    assert b" 200 " in worker.until_answered(served, 3)
    silent = [worker.client() for _ in range(2)]
    worker.turn(3)
    assert len(worker.loop.connections) == 3
    worker.pass_time(1)
    newcomer = worker.client(GET)
    assert b" 200 " in worker.until_answered(newcomer, 3)
    served.sendall(GET)
    assert b" 200 " in worker.until_answered(served, 3)
    assert silent[0].recv(1) == b""


def test_a_body_below_body_min_rate_is_refused_once_the_grace_is_over(serve: Callable[..., Any], capfd: Any) -> None:
    """1 kB each half minute is progress, and would hold a connection for days."""
    worker = serve(body_timeout=8.0, body_min_rate=240)
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    worker.turn(2)
    seconds = 0
    while worker.loop.connections and seconds < 30:
        client.sendall(b"x" * 150)
        worker.turn()
        worker.clock.now += 1
        worker.turn()
        seconds += 1
        if len(worker.loop.bodies) == 0:
            break
    assert 8 < seconds < 24
    assert worker.until_answered(client).startswith(b"HTTP/1.1 408 ")
    assert "slower than body_min_rate, 240 bytes a second" in capfd.readouterr().err


def test_a_body_of_a_phone_on_a_2g_network_passes(serve: Callable[..., Any]) -> None:
    """1 kB a second with a stall of 20 s now and then."""
    worker = serve()
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    worker.turn(2)
    for second in range(100):
        if second % 50 < 30:
            client.sendall(b"x" * 1000)
        worker.turn()
        worker.clock.now += 1
    assert worker.until_answered(client).endswith(b"POST / 60000")


def test_the_framing_of_chunks_counts_as_bytes_on_the_wire(serve: Callable[..., Any]) -> None:
    """A client that sends a byte a chunk sends six."""
    worker = serve(body_timeout=8.0, body_min_rate=100)
    client = worker.client(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    worker.turn(2)
    for _ in range(30):
        client.sendall(b"1\r\nx\r\n" * 30)
        worker.turn()
        worker.clock.now += 1
    client.sendall(b"0\r\n\r\n")
    assert worker.until_answered(client).endswith(b"POST / 900")


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


def test_without_a_free_descriptor_idle_connections_make_room(serve: Callable[..., Any]) -> None:
    """At once, not when one of them ends by itself."""
    worker = serve()
    idle = [worker.client(GET) for _ in range(10)]
    for client in idle:
        assert b" 200 " in worker.until_answered(client, 3)
    newcomer = worker.client(GET)
    with limit_of_files(lowest_free()):
        assert b" 200 " in worker.until_answered(newcomer, 5)
    assert worker.until_answered(idle[0], 3) == b"<closed>"
    assert worker.until_answered(idle[-1], 3) == b""


def test_a_listener_that_was_closed_in_the_same_turn_is_left_alone(serve: Callable[..., Any]) -> None:
    """Its event was polled before the order to retire, or to forgo it, was read."""
    worker = serve(worker_connections=1)
    assert b" 200 " in worker.until_answered(worker.client(GET), 3)
    accept = worker.loop._targets[worker.listener.fileno()]
    worker.loop.acceptor.drop()
    accept(select.EPOLLIN)


def test_without_a_free_descriptor_a_handed_on_connection_is_taken(serve_two: Callable[..., Any]) -> None:
    worker, other = serve_two()
    idle = [worker.client(GET) for _ in range(3)]
    for client in idle:
        assert b" 200 " in worker.until_answered(client, 3)
    moved = other.client(GET)
    assert b" 200 " in other.until_answered(moved, 3)
    (connection,) = other.loop.connections
    assert other.loop.balancer.give(connection, b"")
    with limit_of_files(lowest_free()):
        worker.turn(3)
    moved.sendall(GET)
    assert b" 200 " in worker.until_answered(moved, 3)
    assert worker.until_answered(idle[0], 3) == b"<closed>"


def test_connections_leave_the_last_descriptors_to_the_application(serve: Callable[..., Any]) -> None:
    """Its own open() must not be what fails first."""
    worker = serve()
    first = worker.client(GET)
    assert b" 200 " in worker.until_answered(first, 3)
    worker.loop.acceptor._crowded_from = lowest_free()
    second = worker.client(GET)
    assert b" 200 " in worker.until_answered(second, 3)
    assert worker.until_answered(first, 3) == b"<closed>"


def test_connections_that_have_taken_the_last_descriptors_give_them_back(serve: Callable[..., Any]) -> None:
    """A crowd may come faster than any of it can be closed; the application is to find descriptors afterwards."""
    worker = serve()
    idle_clients(worker, 10)
    newcomers = [worker.client(GET) for _ in range(4)]
    limit = lowest_free()
    worker.loop.acceptor._crowded_from = limit - 3
    with limit_of_files(limit):
        for client in newcomers:
            assert b" 200 " in worker.until_answered(client, 5)
        free = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    for number in free:
        os.close(number)


def test_an_idle_connection_ends_two_seconds_after_a_stop(serve: Callable[..., Any]) -> None:
    """As docs/workers.md says, whether or not its client closes, too."""
    worker = serve()
    idle = worker.client(GET)
    assert b" 200 " in worker.until_answered(idle, 3)
    worker.httpd.retire(30.0, False)
    worker.pass_time(1.4)
    assert not worker.httpd.retired
    worker.pass_time(0.2)
    assert worker.until_answered(idle, 3) == b"<closed>"
    worker.pass_time(0.5)
    assert worker.httpd.retired


def test_want_of_descriptors_while_it_retires_does_not_make_a_worker_accept_again(
    serve_two: Callable[..., Any],
) -> None:
    """What its siblings hand on is for those that stay."""
    worker, _ = serve_two()
    kept = worker.client(POST)
    worker.turn(2)
    Refusing(worker.loop.acceptor.listeners[0], errno.ENFILE)
    worker.client(GET)
    worker.loop.retire(30.0, handoff=True)
    worker.pass_time(1.1)
    assert not worker.loop.acceptor.accepting
    kept.sendall(b"x")
    assert worker.until_answered(kept, 3).endswith(b"POST / 1")


def test_a_listener_that_the_application_has_shut_is_given_up_once(
    serve: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """It reports its end again and again: the worker would do nothing else, and say nothing."""
    worker = serve()
    client = worker.client(GET)
    assert b"200 OK" in worker.until_answered(client, 3)
    with socket.socket(fileno=os.dup(worker.listener.fileno())) as shut:
        shut.shutdown(socket.SHUT_RDWR)
    worker.turn(5)
    worker.loop.acceptor.forgo(1)  # by a reload, which listens there again
    client.sendall(GET)
    assert b"200 OK" in worker.until_answered(client, 3)
    host, port = worker.address
    assert capfd.readouterr().err.count(f"the listener {host}:{port} was shut down, by the application") == 1


@pytest.mark.parametrize(("how", "told"), [(socket.SHUT_RDWR, 1), (socket.SHUT_RD, 0)])
def test_a_unix_listener_that_was_shut_is_given_up_when_its_queue_is_empty(
    serve: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], how: int, told: int
) -> None:
    """It stays readable and has no connection to give. By halves the master shuts it, which is about to close it."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{tmp_path}/socket")
    listening.listen()
    listening.setblocking(False)
    worker = serve(listener=listening)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/socket")
        client.sendall(GET)
        listening.shutdown(how)
        client.setblocking(False)
        assert b"200 OK" in worker.until_answered(client)
        worker.turn(5)
        assert worker.loop.acceptor.listeners == []
        client.sendall(GET)
        assert b"200 OK" in worker.until_answered(client)
    assert capfd.readouterr().err.count("was shut down, by the application") == told
