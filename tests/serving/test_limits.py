"""Bounds of connections, bodies and the spool, and listeners that are lost."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

import pytest

from forkserver.linux.sockets.resets import reset_at_close
from harness.worker import StartWorker

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_PATH = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


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
    """A client that does not fit waits in the kernel's queue, and the worker does not spin."""
    server = worker(worker_connections=1)
    busy = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    server.turn(2)
    waiting = server.client(GET)
    server.turn(3)
    assert server.loop.poller.poll(0) == []
    busy.close()
    assert server.until_answered(waiting).endswith(b"GET / 0")


def test_a_connection_that_is_gone_before_accept_costs_nothing(worker: StartWorker) -> None:
    """ECONNABORTED and its like are the client's."""
    server = worker()
    client = server.client()
    reset_at_close(client)
    client.close()
    server.turn(3)
    assert not server.loop.connections
    assert server.until_answered(server.client(GET)).endswith(b"GET / 0")


def test_a_crowd_that_asks_nothing_does_not_drive_out_a_client_that_was_served(worker: StartWorker) -> None:
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


def test_a_listener_that_was_closed_in_the_same_turn_is_left_alone(worker: StartWorker) -> None:
    """Its event was polled before the order to retire, or to forgo it, was read."""
    server = worker(worker_connections=1)
    assert b" 200 " in server.until_answered(server.client(GET), 3)
    accept = server.loop.poller.targets[server.listener.fileno()]
    server.loop.acceptor.drop()
    accept(select.EPOLLIN)


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
