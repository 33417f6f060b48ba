"""A worker's turn: requests in, answers out, several clients at once."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from forkserver.server.loop.listener import client_address
from harness.worker import StartWorker

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_request_that_comes_byte_by_byte_is_served(worker: StartWorker) -> None:
    """Slow lines split anywhere."""
    server = worker()
    client = server.client()
    for byte in GET % b"slow":
        client.send(bytes([byte]))
        server.turn(2)
    assert server.until_answered(client).endswith(b"GET /slow 0")


def test_pipelined_requests_are_answered_in_their_order(worker: StartWorker) -> None:
    """RFC 9112 section 9.3.2: answers come in the order of the requests."""
    server = worker()
    client = server.client(b"".join(GET % str(number).encode() for number in range(20)))
    answers = server.until_answered(client)
    assert [answers.find(b"GET /%d 0" % number) for number in range(20)] == sorted(
        answers.find(b"GET /%d 0" % number) for number in range(20)
    )
    assert answers.count(b"HTTP/1.1 200 OK") == 20


def test_pipelined_requests_before_the_end_of_a_connection_are_all_answered(worker: StartWorker) -> None:
    """A client that shuts its writing side still wants its answers."""
    server = worker()
    client = server.client(GET % b"one" + GET % b"two" + GET % b"three")
    client.shutdown(1)
    assert server.until_answered(client).count(b"200 OK") == 3


def test_a_pipelining_client_does_not_keep_others_waiting(worker: StartWorker) -> None:
    """One request of a connection a turn: depth of a pipeline is no way to the front of the queue."""
    server = worker()
    greedy = server.client(b"".join([GET % b"more"] * 50))
    server.turn()
    modest = server.client(GET % b"modest")
    server.turn(3)
    assert modest.recv(4096).endswith(b"/modest 0")
    assert server.until_answered(greedy, 100).count(b"200 OK") == 50


def test_a_body_is_whole_before_the_application_is_called(worker: StartWorker) -> None:
    """An upload over a slow line costs no application time."""
    server = worker()
    client = server.client(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    server.turn(3)
    assert server.row.words[4] == 0
    client.sendall(b"67890")
    assert server.until_answered(client).endswith(b"POST /up 10")


def test_a_chunked_body_reaches_the_application_decoded_with_its_length(worker: StartWorker) -> None:
    """Applications read CONTENT_LENGTH bytes; no trace of the coding may reach one that passes requests on."""
    seen = {}

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.update(environ, body=environ["wsgi.input"].read())
        start_response("204 No Content", [])
        return []

    server = worker(app)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = server.client(head + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n" + GET % b"next")
    assert server.until_answered(client).count(b"204 No Content") == 2
    client = server.client(head + b"3\r\nabc\r\n0\r\n\r\n")
    server.until_answered(client)
    assert seen["body"] == b"abc"
    assert seen["CONTENT_LENGTH"] == "3"
    assert "HTTP_TRANSFER_ENCODING" not in seen


def test_a_body_that_ends_early_is_refused_and_never_served(worker: StartWorker) -> None:
    """Half a body is not a request."""
    server = worker()
    client = server.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    client.shutdown(1)
    assert server.until_answered(client).startswith(b"HTTP/1.1 400 ")
    assert server.row.words[4] == 0


def test_a_client_that_asks_before_it_sends_is_told_to_continue(worker: StartWorker) -> None:
    """RFC 9110 section 10.1.1: curl waits a second for this with large bodies."""
    server = worker()
    client = server.client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert server.until_answered(client, 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"ok")
    assert server.until_answered(client).endswith(b"PUT / 2")


def test_http_10_is_closed_unless_it_asks_to_be_kept(worker: StartWorker) -> None:
    """RFC 9112 section 9.3."""
    server = worker()
    for connection in (b"", b"Connection: close\r\n"):  # the latter is nginx's way
        answer = server.until_answered(server.client(b"GET / HTTP/1.0\r\n" + connection + b"\r\n"))
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"<closed>")
    kept = server.client(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = server.until_answered(kept)
    assert b"Connection: keep-alive\r\n" in answer
    assert answer.endswith(b"GET / 0")


def test_an_answer_that_is_not_taken_does_not_keep_others_waiting(worker: StartWorker) -> None:
    """The rest is drained by the loop; the application's thread is free."""
    large = bytes(range(256)) * 4096 * 8

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [large if environ["PATH_INFO"] == "/large" else b"small"]

    server = worker(app)
    lazy = server.client(GET % b"large", receive_buffer=65536)
    server.turn(3)
    assert server.until_answered(server.client(GET % b"small"), 5).endswith(b"small")
    assert server.until_answered(lazy, 20_000 // 4).partition(b"\r\n\r\n")[2] == large


def test_an_answer_larger_than_memory_goes_through_the_spool_unchanged(worker: StartWorker) -> None:
    """Memory, then disk: in order, every byte once."""
    blocks = [bytes([number]) * 100_000 for number in range(50)]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "5000000")])
        return iter(blocks)

    server = worker(app)
    client = server.client(GET % b"", receive_buffer=4096)
    server.turn(2)
    assert server.loop.context.spool.used > 0
    assert server.until_answered(client, 5000).partition(b"\r\n\r\n")[2] == b"".join(blocks)
    assert server.loop.context.spool.used == 0


def test_an_application_that_raises_costs_one_answer(worker: StartWorker) -> None:
    """500 without detail, and the worker goes on."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/bad":
            raise ValueError("secret")
        return hello(environ, start_response)

    def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"good"]

    server = worker(app)
    answer = server.until_answered(server.client(GET % b"bad"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert answer.endswith(b"<closed>")
    assert server.until_answered(server.client(GET % b"good")).endswith(b"good")


def test_an_application_that_fails_half_way_leaves_a_broken_answer(worker: StartWorker) -> None:
    """After the head the client can only be told by the connection: it must not take half for whole."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        yield b"half"
        raise ValueError

    server = worker(app)
    assert server.until_answered(server.client(GET % b"")).endswith(b"<reset>")
    assert server.until_answered(server.client(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"<reset>")


def test_a_client_that_vanishes_costs_nothing(worker: StartWorker) -> None:
    """A reset in the middle of an answer ends that answer."""
    closed = []

    class Body:
        def __iter__(self) -> Any:
            return iter([b"x" * 1_000_000] * 20)

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        return Body()

    server = worker(app)
    client = server.client(GET % b"", receive_buffer=4096)
    client.close()
    server.turn(5)
    assert closed == [True]
    assert not server.loop.connections


def test_a_changed_application_and_base_environ_show_on_a_kept_connection(worker: StartWorker) -> None:
    """The connection's memory of its last header block must not outlive what it was made from."""
    server = worker(lambda environ, start: (start("200 OK", []), [environ.get("COLOUR", "none").encode()])[1])
    client = server.client(GET % b"")
    assert server.until_answered(client, 3).endswith(b"none")
    server.httpd.base_environ["COLOUR"] = "red"
    client.sendall(GET % b"")
    assert server.until_answered(client, 3).endswith(b"red")
    server.httpd.set_app(lambda environ, start: (start("200 OK", []), [b"another"])[1])
    client.sendall(GET % b"")
    assert server.until_answered(client, 3).endswith(b"another")


def test_the_server_field_is_the_settings(worker: StartWorker) -> None:
    """Operators decide what strangers learn; empty is nothing at all."""
    server = worker(server_header="shop")
    assert b"\r\nServer: shop\r\n" in server.until_answered(server.client(GET % b""), 3)
    assert b"\r\nServer: shop\r\n" in server.until_answered(server.client(b"bad\r\n\r\n"), 3)
    server = worker(server_header="")
    assert b"Server" not in server.until_answered(server.client(GET % b""), 3)


def test_a_name_with_an_underscore_is_dropped_or_refused(worker: StartWorker) -> None:
    """X_User and X-User are one key of the environ: a client that sends the former would forge the latter."""
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return [b"fine"]

    request = b"GET / HTTP/1.1\r\nHost: a\r\nX_User: forged\r\nX-Own: mine\r\n\r\n"
    server = worker(app)
    assert server.until_answered(server.client(request), 3).endswith(b"fine")
    assert "HTTP_X_USER" not in seen
    assert seen["HTTP_X_OWN"] == "mine"
    server = worker(app, header_map="refuse")
    assert server.until_answered(server.client(request), 3).startswith(b"HTTP/1.1 400 ")


def test_an_ipv4_client_of_an_ipv6_socket_has_its_own_address(worker: StartWorker) -> None:
    """Logs, lists of addresses and applications know 127.0.0.1, and not ::ffff:127.0.0.1."""
    seen: list[tuple[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append((environ["REMOTE_ADDR"], environ["REMOTE_PORT"]))
        start_response("204 No Content", [])
        return []

    server = worker(app, listener=socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    client = server.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"204" in server.until_answered(client)
    assert seen == [("127.0.0.1", str(client.getsockname()[1]))]
    assert client_address(("::ffff:0:1", 5, 0, 0)) == ("::ffff:0:1", 5, 0, 0)


def test_a_pipelined_request_wakes_the_driver_that_is_about_to_sleep(worker: StartWorker) -> None:
    """An application thread leaves it just after the driver has looked whether there is something."""
    server = worker(threads=2)

    class Late(deque[Any]):
        def __bool__(self) -> bool:
            found = len(self) > 0
            other = threading.Thread(target=server.loop.resume_later, args=(SimpleNamespace(resume=list),))
            other.start()
            other.join()
            return found

    server.loop.ready = Late()
    poll, waits = server.loop.poller.poll, []
    server.loop.poller.poll = lambda _timeout, room: waits.append(poll(0, room)) or waits[-1]
    server.loop.turn()
    assert server.loop.poller.wakeup.fileno() in dict(waits[0])
