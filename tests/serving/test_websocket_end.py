"""How a WebSocket on one of the worker's threads lives, and how it ends."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from forkserver.ipc.scoreboard import OPEN
from forkserver.linux.sockets.resets import reset_at_close
from forkserver.server.connection.states import LINGERING
from forkserver.server.wsgi.websocket import UpgradedSocket
from harness import BOUND
from harness.websocket import (
    HANDSHAKE,
    SWITCHED,
    Environ,
    Site,
    Start,
    echo,
    is_bad_descriptor,
    open_websocket,
    receive,
    upgraded,
)
from harness.worker import StartTwoWorkers, StartWorker

GET = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_thread_that_is_left_behind_reads_an_end_and_not_another_clients_bytes(worker: StartWorker) -> None:
    """It waits in recv as the call ends; then the next client comes."""
    read: list[bytes] = []
    left: list[threading.Thread] = []

    def leave_behind(client: UpgradedSocket) -> None:
        left.append(threading.Thread(target=lambda: read.append(client.recv(4096))))
        left[0].start()

    server = worker(Site(leave_behind), threads=2)
    client = open_websocket(server)
    server.turn_until(lambda: left and [each.state for each in server.loop.connections] == [LINGERING])
    server.pass_time(3)
    assert receive(server, client, 1) == b""
    left[0].join(BOUND)
    assert read == [b""]
    assert receive(server, server.client(GET), 12) == b"HTTP/1.1 200"


def test_an_application_that_closes_the_socket_ends_the_connection_and_serves_on(worker: StartWorker) -> None:
    """simple-websocket's thread closes it while the application's own code may still be at work."""
    go_on = threading.Event()

    def during(client: UpgradedSocket) -> None:
        with client:
            assert client.fileno() >= 0
        assert client.fileno() == -1
        assert is_bad_descriptor(lambda: client.send(b"late"))
        assert go_on.wait(BOUND)

    server = worker(Site(during), threads=2)
    client = open_websocket(server)
    assert receive(server, client, 1) == b""
    (connection,) = upgraded(server)
    os.fstat(connection.fd)
    number = connection.fd
    go_on.set()
    client.close()
    server.turn_until(lambda: not server.loop.connections)
    assert is_bad_descriptor(lambda: os.fstat(number))


def test_a_farewell_that_crosses_the_end_is_not_answered_by_a_reset(worker: StartWorker) -> None:
    """A reset could destroy the last message before the client has read it: its close frame comes after our end."""
    server = worker(Site(lambda client: client.send(b"bye")), threads=2)
    client = server.client(HANDSHAKE)
    server.turn_until(lambda: [each.state for each in server.loop.connections] == [LINGERING])
    client.sendall(b"\x88\x80mask")
    server.turn(2)
    assert receive(server, client, 1000) == SWITCHED + b"bye"
    client.close()
    server.turn_until(lambda: not server.loop.connections)


def test_the_loop_does_not_wait_for_a_client_that_takes_leave_of_a_websocket(worker: StartWorker) -> None:
    """Its socket still blocks, and for want of room the loop looks whether something on it is unread."""
    server = worker(Site(lambda client: None), threads=2, worker_connections=1)
    client = open_websocket(server)
    server.turn_until(lambda: [each.state for each in server.loop.connections] == [LINGERING])
    (connection,) = server.loop.connections
    for look in (connection.has_more, connection.discard):
        looking = threading.Thread(target=look)
        looking.start()
        looking.join(BOUND)
        waits = looking.is_alive()
        if waits:
            client.shutdown(socket.SHUT_RDWR)
            looking.join()
        assert not waits
    assert receive(server, server.client(GET), 12) == b"HTTP/1.1 200", "it has made room"
    assert receive(server, client, 1) == b""


def test_it_counts_as_a_connection_and_as_a_websocket_on_the_scoreboard(worker: StartWorker) -> None:
    server = worker(Site(echo), threads=2)
    client = open_websocket(server)
    assert server.row.words[OPEN] == 1
    calls = [busy for thread in (0, 1) if (busy := server.row.busy(thread))]
    assert [(busy.line, busy.websocket) for busy in calls] == [("GET /ws", True)]
    server.pass_time(10_000)
    client.sendall(b"still there")
    assert receive(server, client, 11) == b"still there", "no deadline is its own"
    client.close()
    server.turn_until(lambda: not server.row.busy(0) and not server.row.busy(1))


def test_a_client_that_vanishes_is_noticed(worker: StartWorker) -> None:
    """Nothing else would end the call: tcp(7) on TCP_USER_TIMEOUT and keep-alive."""
    server = worker(Site(echo), threads=2, write_timeout=40)
    open_websocket(server)
    (connection,) = upgraded(server)
    assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 40_000
    assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
    server.loop.retirement.close_all()


@pytest.mark.parametrize("handoff", [True, False])
def test_when_the_worker_retires_the_application_sees_the_end_of_its_client(
    two_workers: StartTwoWorkers, handoff: bool
) -> None:
    """It may say goodbye, and the client finds a new worker; the connection is never handed on."""

    def during(client: UpgradedSocket) -> None:
        echo(client)
        client.send(b"bye")

    server, sibling = two_workers(Site(during), threads=2)
    client = open_websocket(server)
    server.httpd.retire(30, handoff=handoff)
    assert receive(server, client, 4) == b"bye"
    client.close()
    server.turn_until(lambda: server.httpd.retired)
    sibling.turn()
    assert not sibling.loop.connections


def test_a_websocket_that_begins_while_the_worker_retires_ends_soon(worker: StartWorker) -> None:
    """The request was accepted before; the client comes again and finds the next worker."""
    called, take = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        called.set()
        assert take.wait(BOUND)
        return Site(echo)(environ, start_response)

    server = worker(app, threads=2)
    client = server.client(HANDSHAKE)
    server.turn_until(called.is_set)
    server.httpd.retire(30, handoff=False)
    take.set()
    assert receive(server, client, 1000) == SWITCHED


def test_one_that_outlives_graceful_timeout_is_named_and_closed(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """Although the application does not care for the end of what its client sends."""
    ended = threading.Event()

    def during(client: UpgradedSocket) -> None:
        assert ended.wait(BOUND)
        with pytest.raises(OSError, match=r"descriptor|pipe"):
            client.send(b"late")

    server = worker(Site(during), threads=2)
    client = open_websocket(server)
    server.httpd.retire(30, handoff=False)
    server.turn()
    assert not server.httpd.retired
    server.pass_time(31)
    assert server.httpd.retired
    assert "graceful_timeout is over; closing what is unfinished: GET " in (said := capfd.readouterr().err)
    assert "(a WebSocket for " in said
    assert receive(server, client, 1) == b""
    ended.set()


def test_a_client_that_goes_ends_the_call(worker: StartWorker) -> None:
    server = worker(Site(echo), threads=2)
    client = open_websocket(server)
    reset_at_close(client)
    client.close()
    server.turn_until(lambda: not server.loop.connections)
    assert server.row.busy(0) is server.row.busy(1) is None
