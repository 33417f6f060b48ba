"""Connections outlive workers: what one cannot or may not serve any more, another goes on with."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.http1.in_the_clear import HINT
from forkserver.ipc.scoreboard import DRAINING, STATE, WAITING
from harness import credentials
from harness.worker import Slow, StartTwoWorkers, wait_until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PEER = ("192.0.2.7", 4711)
SLOW = GET.replace(b"/ ", b"/slow ")
BIG = 8_000_000


def test_an_idle_connection_goes_to_a_sibling_when_its_worker_retires(two_workers: StartTwoWorkers) -> None:
    """A reload is nothing that a keep-alive client should notice."""
    first, second = two_workers()
    client = first.client(GET)
    assert b"200 OK" in first.until_answered(client, 3)
    first.httpd.retire(30, handoff=True)
    assert first.httpd.retired
    client.sendall(GET)
    answer = second.until_answered(client)
    assert b"200 OK" in answer
    assert b"Connection: close" not in answer


def test_half_a_head_goes_on_where_it_was(two_workers: StartTwoWorkers) -> None:
    """What was read must not be lost with the worker that read it."""
    first, second = two_workers()
    client = first.client(GET[:10])
    first.turn(2)
    first.httpd.retire(30, handoff=True)
    assert first.httpd.retired
    second.turn(2)
    client.sendall(GET[10:])
    assert b"200 OK" in second.until_answered(client)


def test_the_deadline_of_half_a_head_goes_with_it(two_workers: StartTwoWorkers) -> None:
    """A slow client must not gain time by a reload."""
    first, second = two_workers(header_timeout=10)
    client = first.client(GET[:10])
    first.turn(2)
    first.pass_time(6)
    first.httpd.retire(30, handoff=True)
    second.turn(2)
    second.pass_time(3)
    assert second.until_answered(client, 3) == b""
    second.pass_time(2)
    assert b" 408 " in second.until_answered(client)


def test_the_keep_alive_deadline_goes_with_an_idle_connection(two_workers: StartTwoWorkers) -> None:
    first, second = two_workers(keep_alive=10)
    client = first.client(GET)
    first.until_answered(client, 3)
    first.pass_time(6)
    first.httpd.retire(30, handoff=True)
    second.turn(2)
    second.pass_time(5)
    assert second.until_answered(client) == b"<closed>"


def test_a_connection_that_was_handed_on_has_its_whole_time_after_its_next_answer(
    two_workers: StartTwoWorkers,
) -> None:
    """A request in the last moment of the wait is answered, and the one behind it is not met by a close."""
    first, second = two_workers(keep_alive=10)
    client = first.client(GET)
    first.until_answered(client, 3)
    first.pass_time(9.5)
    first.httpd.retire(30, handoff=True)
    second.turn(2)
    for _ in range(2):
        client.sendall(GET)
        assert second.until_answered(client, 3).endswith(b"GET / 0")
        second.pass_time(5)


def test_an_answer_under_way_is_finished_before_the_connection_goes_on(two_workers: StartTwoWorkers) -> None:
    """Half an answer cannot be handed on."""
    first, second = two_workers(lambda _environ, start: (start("200 OK", []) and None) or [b"x" * 8_000_000])
    client = first.client(GET, receive_buffer=65536)
    first.turn(2)
    first.httpd.retire(30, handoff=True)
    assert not first.httpd.retired
    answer = first.until_answered(client, 5000)
    assert answer.endswith(b"x" * 100)
    assert first.httpd.retired
    client.sendall(GET)
    assert b"200 OK" in second.until_answered(client, 5)


def test_pipelined_requests_stay_in_order_over_a_hand_off(two_workers: StartTwoWorkers) -> None:
    """The first is answered here, the rest of what was read is answered there."""
    first, second = two_workers()
    client = first.client(GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 ") + GET.replace(b"/ ", b"/3 "))
    first.turn(1)
    first.httpd.retire(30, handoff=True)
    answer = first.until_answered(client, 5) + second.until_answered(client, 5)
    places = [answer.index(b"GET /%d" % number) for number in (1, 2, 3)]
    assert places == sorted(places)


def test_the_client_keeps_its_address(two_workers: StartTwoWorkers) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["REMOTE_PORT"].encode()]

    first, second = two_workers(app)
    client = first.client(GET)
    before = first.until_answered(client, 3)
    first.httpd.retire(30, handoff=True)
    client.sendall(GET)
    assert second.until_answered(client, 5)[-3:] == before[-3:]


def test_when_no_worker_takes_connections_clients_are_told_to_close(two_workers: StartTwoWorkers) -> None:
    """At a stop each worker leaves: a queue that no worker reads would swallow them."""
    first, _ = two_workers()
    client = first.client(GET)
    first.until_answered(client, 3)
    first.httpd.retire(30, handoff=False)
    client.sendall(GET)
    assert b"Connection: close" in first.until_answered(client)


def test_a_worker_that_retires_with_all_others_takes_back_what_is_in_the_queue(two_workers: StartTwoWorkers) -> None:
    """A stop may follow a reload at once: what is on its way then has no receiver but the workers that leave."""
    first, second = two_workers()
    client = first.client(GET)
    first.until_answered(client, 3)
    first.httpd.retire(30, handoff=True)
    second.httpd.retire(30, handoff=False)
    client.sendall(GET)
    assert b"Connection: close" in second.until_answered(client)


def test_the_answer_of_a_call_in_hand_ends_a_connection_that_no_sibling_can_have(
    two_workers: StartTwoWorkers,
) -> None:
    """As of TLS: a proxy that keeps the connection would send its next request as it is closed, and lose it."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        (connection,) = first.loop.connections
        connection.stays = True
        first.httpd.retire(30, handoff=True)
        start_response("200 OK", [])
        return [b"ok"]

    first, _ = two_workers(app)
    answer = first.until_answered(first.client(GET))
    assert b"Connection: close" in answer
    assert answer.endswith(b"ok<closed>")


class Blocking(WSGIRequestHandler):
    def handle(self) -> None:
        super().handle()


def test_what_is_taken_back_from_the_queue_speaks_tls_as_it_did(two_workers: StartTwoWorkers) -> None:
    """The listener that it came by is closed by then. Only a blocking handler's connections of TLS are handed on."""
    first, second = two_workers(handler=Blocking, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    client = first.client()
    first.turn(2)
    (connection,) = first.loop.connections
    assert first.loop.balancer.give(connection, b"")
    second.httpd.retire(30, handoff=False)
    client.sendall(GET)
    answer = second.until_answered(client)
    assert b" 400 " in answer
    assert HINT.encode() in answer


def begun_handshake() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A client that waits for the server's part of the handshake: what it gets goes in, what it says comes out."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = credentials.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, incoming, outgoing


@pytest.mark.parametrize("handoff", [True, False], ids=["reload", "stop"])
def test_a_handshake_under_way_is_not_idle(two_workers: StartTwoWorkers, tmp_path: Path, handoff: bool) -> None:
    """Its keys are here, so no sibling can go on with it; over a slow network it takes longer than the wait of an idle
    client, and the request comes with its end."""
    first, _ = two_workers(tls=credentials.server(tmp_path))
    tls, incoming, outgoing = begun_handshake()
    client = first.client(outgoing.read())
    first.turn(3)
    first.httpd.retire(30, handoff=handoff)
    first.pass_time(3)
    incoming.write(first.until_answered(client, 3))
    tls.do_handshake()
    tls.write(GET)
    client.sendall(outgoing.read())
    incoming.write(first.until_answered(client).removesuffix(b"<closed>"))
    assert b"200 OK" in tls.read()


def test_a_client_that_is_silent_after_its_handshake_is_idle(two_workers: StartTwoWorkers, tmp_path: Path) -> None:
    """Browsers open connections in advance: a retiring worker waits for them a moment only."""
    first, _ = two_workers(tls=credentials.server(tmp_path))
    tls, incoming, outgoing = begun_handshake()
    client = first.client(outgoing.read())
    first.turn(3)
    first.httpd.retire(30, handoff=True)
    incoming.write(first.until_answered(client, 3))
    tls.do_handshake()
    client.sendall(outgoing.read())
    first.turn(3)
    assert not first.httpd.retired
    first.pass_time(2)
    first.pass_time(2)
    assert first.httpd.retired


def test_what_does_not_fit_into_the_queue_follows_when_there_is_room(two_workers: StartTwoWorkers) -> None:
    """The kernel bounds the queue; the rest waits with its owner, and is served there meanwhile."""
    first, second = two_workers()
    first.loop.balancer._handoff._give.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least
    clients = []
    for _ in range(12):
        clients.append(first.client(GET))
        assert b"200 OK" in first.until_answered(clients[-1], 3)
    first.httpd.retire(30, handoff=True)
    held = {connection.peer for connection in first.loop.connections}
    assert 0 < len(held) < 12
    still_here = next(client for client in clients if client.getsockname() in held)
    still_here.sendall(GET)
    while not first.httpd.retired:
        first.turn()
        second.turn()
    for client in clients:
        if client is not still_here:
            client.sendall(GET)
        assert b"200 OK" in second.until_answered(client, 3)


def test_ready_requests_go_to_an_idle_sibling_before_a_slow_call(two_workers: StartTwoWorkers) -> None:
    """No request is to wait here while a worker is idle there."""
    first, second = two_workers()
    clients = [first.client(GET) for _ in range(2)]
    first.loop.balancer.note(1.0)
    while len(first.loop.calls) < 2:
        first.loop._handle(first.loop._wait(0.03))
    with first.loop.loop_lock.mutex:
        first.loop.calls.call_all()
    assert len(first.loop.connections) == 1
    answers = [first.until_answered(client, 2) + second.until_answered(client, 2) for client in clients]
    assert all(b"200 OK" in answer for answer in answers)


def test_a_body_goes_along_with_its_head(two_workers: StartTwoWorkers) -> None:
    """A request is handed on whole, or stays."""
    first, second = two_workers()
    client = first.client(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabcdef" + GET)
    while not first.loop.calls:
        first.loop._handle(first.loop._wait(0.03))
    first.loop.balancer.hand_off_waiting()
    assert not first.loop.connections
    answer = second.until_answered(client)
    assert b"POST /p 6" in answer
    assert b"GET / 0" in answer


def test_a_queue_that_the_application_has_shut_is_given_up_once(
    two_workers: StartTwoWorkers, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its end can be read again and again: each worker would do nothing else, and fill the log."""
    first, second = two_workers()
    shut = socket.socket(fileno=os.dup(first.loop.acceptor._handoff.fileno()))
    with shut:
        shut.shutdown(socket.SHUT_RDWR)
    for server in (first, second):
        server.turn(5)
        assert b"200 OK" in server.until_answered(server.client(GET))
    assert capfd.readouterr().err.count("the queue of connections between workers has ended") == 2


def retires(server: Any) -> Callable[[dict[str, Any]], None]:
    """What the background driver does in a call when the order to retire comes."""

    def retire(_environ: dict[str, Any]) -> None:
        with server.loop.loop_lock.mutex:
            server.httpd.retire(30, handoff=True)

    return retire


def events_in(server: Any, turns: int, descriptor: int) -> int:
    """In how many of so many turns ``descriptor`` was ready."""
    poll, seen = server.loop.poller.poll, []
    server.loop.poller.poll = lambda timeout, room: seen.append(poll(0, room)) or seen[-1]
    server.turn(turns)
    server.loop.poller.poll = poll
    return sum(descriptor in dict(events) for events in seen)


def test_a_stop_is_heard_by_a_worker_that_retires_and_drains(two_workers: StartTwoWorkers) -> None:
    """Reload, drain_delay, stop: no worker takes from the queue any more, so nothing may be put there."""
    first, second = two_workers(lambda _environ, start: (start("200 OK", []) and None) or [b"x" * BIG])
    client = first.client(GET, receive_buffer=65536)
    first.turn(2)
    first.httpd.retire(30, handoff=True)
    first.httpd.drain()
    second.httpd.retire(30, handoff=False)
    first.httpd.retire(30, handoff=False)
    assert first.until_answered(client, 5000).endswith(b"x" * 100)
    client.sendall(GET)
    assert b"Connection: close" in first.until_answered(client, 5)


def test_one_that_cannot_be_handed_on_keeps_no_other_and_does_not_spin(two_workers: StartTwoWorkers) -> None:
    """A head larger than a message stays; the queue has room all the while."""
    first, second = two_workers(limit_request_head=256 * 1024, limit_request_fields=1000)
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(80))
    large = first.client(GET[:-2] + fields)
    first.turn(10)
    other = first.client(GET[:10])
    first.turn(2)
    first.httpd.retire(30, handoff=True)
    assert events_in(first, 10, first.loop.balancer._handoff.outlet()) == 0
    assert len(first.loop.connections) == 1
    other.sendall(GET[10:])
    assert second.until_answered(other).endswith(b"GET / 0")
    large.sendall(b"\r\n")
    assert b"200 OK" in first.until_answered(large, 3)


def test_an_answered_connection_goes_on_with_its_whole_time(two_workers: StartTwoWorkers, app: Slow) -> None:
    """The deadline of the wait before its request is not that of the wait for the next one."""
    first, second = two_workers(app, keep_alive=10)
    client = first.client(GET)
    first.until_answered(client, 3)
    first.pass_time(9)
    app.during = retires(first)
    client.sendall(SLOW)
    assert first.until_answered(client, 4).endswith(b"slow")
    second.turn(2)
    second.pass_time(2)
    client.sendall(GET)
    assert second.until_answered(client, 4).endswith(b"quick")


def test_a_request_that_goes_on_behind_another_has_not_waited(two_workers: StartTwoWorkers, app: Slow) -> None:
    """It was not whole before: queue_timeout counts from its arrival."""
    first, second = two_workers(app, queue_timeout=5)
    app.during = retires(first)
    client = first.client(SLOW + GET)
    assert first.until_answered(client, 4).endswith(b"slow")
    assert second.until_answered(client, 4).endswith(b"quick")


def test_what_has_waited_is_not_counted_as_waiting(two_workers: StartTwoWorkers, app: Slow) -> None:
    """The line of a death names what was lost, and nothing besides."""
    first, second = two_workers(app)
    other = first.client(GET)
    first.until_answered(other, 3)
    second.row.words[STATE] = DRAINING  # no other worker takes it

    def during(_environ: dict[str, Any]) -> None:
        other.sendall(GET)
        wait_until(lambda: first.row.words[WAITING])

    app.during = during
    assert first.until_answered(first.client(SLOW)).endswith(b"slow")
    assert first.until_answered(other, 5).endswith(b"quick")
    assert first.row.words[WAITING] == 0
