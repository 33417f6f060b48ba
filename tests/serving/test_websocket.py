"""An application takes the client's socket: a WebSocket on one of the worker's threads."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forkserver.ipc.scoreboard import OPEN
from forkserver.server.connection.states import LINGERING, READING, UPGRADED
from forkserver.server.wsgi.websocket import ClientSocket, end_silence
from harness import BOUND, credentials
from harness.worker import StartTwoWorkers, StartWorker

HANDSHAKE = b"GET /ws?secret=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
GET = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
Start = Callable[..., Callable[[bytes], object]]
Environ = dict[str, Any]


class Site:
    """An application that gives the socket of each handshake to ``during``, and ends as such libraries do."""

    def __init__(self, during: Callable[[ClientSocket], object] | None = None) -> None:
        self.during = during
        self.environs: list[Environ] = []

    def __call__(self, environ: Environ, start_response: Start) -> list[bytes]:
        self.environs.append(environ)
        client: ClientSocket | None = environ.get("gunicorn.socket")
        if client is not None and self.during is not None:
            client.sendall(SWITCHED)
            self.during(client)
            raise StopIteration
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    @property
    def offered(self) -> ClientSocket:
        found: ClientSocket = self.environs[0]["gunicorn.socket"]
        return found


def echo(client: ClientSocket) -> None:
    while data := client.recv(4096):
        client.send(data)


def receive(server: Any, client: socket.socket, size: int) -> bytes:
    """``size`` bytes, or what comes before the end."""
    data = b""

    def came() -> bool:
        nonlocal data
        try:
            piece = client.recv(size - len(data))
        except BlockingIOError:
            return False
        data += piece
        return not piece or len(data) == size

    server.turn_until(came)
    return data


def is_longer(things: list[Any], than: int) -> bool:
    return len(things) > than


def upgraded(server: Any) -> list[Any]:
    return [each for each in server.loop.connections if each.state == UPGRADED]


def open_websocket(server: Any) -> socket.socket:
    """A client whose handshake was answered."""
    client: socket.socket = server.client(HANDSHAKE)
    assert receive(server, client, len(SWITCHED)) == SWITCHED
    return client


def is_bad_descriptor(use: Callable[[], object]) -> bool:
    with pytest.raises(OSError, match="descriptor") as caught:
        use()
    return caught.value.errno == errno.EBADF


# What is offered, and to whom


def test_an_application_speaks_on_the_socket_and_ends_by_stop_iteration(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    server = worker(Site(echo), threads=2)
    client = open_websocket(server)
    for message in (b"one", b"another"):
        client.sendall(message)
        assert receive(server, client, len(message)) == message
    client.shutdown(socket.SHUT_WR)
    assert receive(server, client, 1) == b""
    server.turn_until(lambda: not server.loop.connections)
    assert capfd.readouterr().err == "", "the end of such a call is no fault"


def test_the_access_log_has_status_101_and_what_was_sent(worker: StartWorker) -> None:
    server = worker(Site(echo), threads=2)
    lines = server.access_lines()
    client = open_websocket(server)
    client.sendall(b"four")
    receive(server, client, 4)
    client.close()
    server.turn_until(lambda: lines)
    assert lines[0][2:5] == ("GET /ws?secret=1 HTTP/1.1", 101, len(SWITCHED) + 4)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websockets\r\n\r\n",
    ],
)
def test_other_requests_are_offered_no_socket(worker: StartWorker, head: bytes) -> None:
    """RFC 6455 section 4.2.1 says what a handshake is; Upgrade: h2c is common, and means nothing to us."""
    site = Site(echo)
    server = worker(site, threads=2)
    assert b" 200 OK" in receive(server, server.client(head), 15)
    assert "gunicorn.socket" not in site.environs[0]


def test_a_handshake_on_a_connection_that_has_been_used_is_offered_a_socket(worker: StartWorker) -> None:
    """And the request after an identical header block is not, where the block says nothing of an upgrade."""
    site = Site(None)
    server = worker(site, threads=2)
    client = server.client()
    for head in (GET, GET, HANDSHAKE, GET, HANDSHAKE, HANDSHAKE):
        client.sendall(head)
        seen = len(site.environs)
        server.turn_until(partial(is_longer, site.environs, seen))
        server.turn_until(lambda: [each.state for each in server.loop.connections] == [READING])
    offered = ["gunicorn.socket" in environ for environ in site.environs]
    assert offered == [False, False, True, False, True, True]


def test_an_ordinary_answer_to_a_handshake_leaves_the_connection_as_it_is(worker: StartWorker) -> None:
    """The socket is taken by its first use; looking at it is none, and afterwards it leads nowhere."""
    site = Site(None)
    looked: list[Any] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        if "gunicorn.socket" in environ:
            offered = environ["gunicorn.socket"]
            looked.append((offered.family, offered.timeout, offered.getpeername(), offered.getsockname()))
            looked.append(offered.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
        return site(environ, start_response)

    server = worker(app, threads=2)
    client = server.client(HANDSHAKE)
    assert receive(server, client, 12) == b"HTTP/1.1 200"
    (connection,) = server.loop.connections
    server.turn_until(lambda: connection.state == READING)
    server.until_answered(client)
    client.sendall(GET)
    assert receive(server, client, 12) == b"HTTP/1.1 200"
    assert looked == [
        (socket.AF_INET, None, client.getsockname(), client.getpeername()),
        socket.SOCK_STREAM,
    ]
    offered = site.offered
    assert is_bad_descriptor(lambda: offered.sendall(b"to the next request's client"))
    assert is_bad_descriptor(lambda: offered.recv(1))
    assert is_bad_descriptor(offered.getpeername)
    assert offered.fileno() == -1
    offered.close()
    assert server.loop.connections == {connection}


def test_a_client_that_speaks_before_it_is_answered_is_refused(worker: StartWorker) -> None:
    """RFC 6455 section 4.1: it waits. A library that polls the socket would never see what was read already."""
    site = Site(echo)
    server = worker(site, threads=2)
    assert receive(server, server.client(HANDSHAKE + b"\x81\x80early"), 12) == b"HTTP/1.1 400"
    assert not site.environs


def no_socket(environ: Environ, start_response: Start) -> list[bytes]:
    """As simple-websocket."""
    if "gunicorn.socket" not in environ:
        raise RuntimeError("Cannot obtain socket from WSGI environment.")
    return hello(environ, start_response)


def hello(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def test_with_one_thread_there_is_no_socket_and_the_log_says_once_what_to_do(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    server = worker(no_socket)
    for _ in range(2):
        assert b" 500 " in server.until_answered(server.client(HANDSHAKE))
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "no socket for WebSocket" in line]
    assert ' "GET /ws": no socket for WebSocket: with one thread' in said, "without the query, which may hold secrets"
    assert "--threads N" in said


def test_strangers_do_not_make_the_log_speak_of_websocket(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """A handshake that the application answers as it answers everything says nothing of how many threads it needs."""
    server = worker(hello)
    assert b"hello" in server.until_answered(server.client(HANDSHAKE))
    assert capfd.readouterr().err == ""


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*credentials.write(tmp_path))
    return context


def test_in_tls_there_is_no_socket_and_the_log_says_what_to_do(
    worker: StartWorker, tls: ssl.SSLContext, capfd: pytest.CaptureFixture[str]
) -> None:
    """What passes over the socket only OpenSSL can read."""
    server = worker(no_socket, threads=2, tls=tls)
    plain = server.client()
    with credentials.client().wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False) as client:
        attempt(server, client.do_handshake)
        client.sendall(HANDSHAKE)
        assert b" 500 " in attempt(server, lambda: client.recv(4096))
    assert "end TLS at a proxy" in capfd.readouterr().err


def attempt(server: Any, do: Callable[[], Any]) -> Any:
    """What ``do`` gives, on a socket that does not block."""
    found: list[Any] = []

    def done() -> bool:
        try:
            found.append(do())
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        return True

    server.turn_until(done)
    return found[0]


# Faults of the application


def test_without_the_socket_stop_iteration_is_a_fault_as_before(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        raise StopIteration

    server = worker(app, threads=2)
    assert receive(server, server.client(HANDSHAKE), 12) == b"HTTP/1.1 500"
    assert "the application raised" in capfd.readouterr().err


def test_what_is_raised_or_returned_after_the_takeover_is_not_sent_to_the_client(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client speaks WebSocket by then: an HTTP answer would be garbage in it."""

    def app(environ: Environ, start_response: Start) -> Any:
        environ["gunicorn.socket"].sendall(SWITCHED)
        if environ["PATH_INFO"] == "/raise":
            raise ValueError("the application's own fault")
        start_response("200 OK", [])
        return {"/list": [b"never"], "/empty": [], "/iterator": iter([b"never"])}[environ["PATH_INFO"]]

    server = worker(app, threads=2)
    for path in (b"/raise", b"/list", b"/empty", b"/iterator"):
        client = server.client(HANDSHAKE.replace(b"/ws?secret=1", path))
        assert receive(server, client, 1000) == SWITCHED
    assert capfd.readouterr().err.count("ValueError: the application's own fault") == 1


def test_a_socket_is_not_to_be_had_when_the_answer_has_begun(worker: StartWorker) -> None:
    """Two protocols at once on one connection would be neither."""
    refused: list[OSError] = []

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        yield b"begun "
        try:
            environ["gunicorn.socket"].sendall(SWITCHED)
        except OSError as error:
            refused.append(error)
        yield b"over"

    server = worker(app, threads=2)
    client = server.client(HANDSHAKE)
    server.turn_until(lambda: refused)
    assert refused[0].errno == errno.EBUSY
    assert server.until_answered(client).endswith(b"begun over")


# Descriptors: a number is nobody else's while a thread may have it


def test_a_thread_that_is_left_behind_reads_an_end_and_not_another_clients_bytes(worker: StartWorker) -> None:
    """It waits in recv as the call ends; then the next client comes."""
    read: list[bytes] = []
    left: list[threading.Thread] = []

    def leave_behind(client: ClientSocket) -> None:
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


def test_the_descriptor_stays_open_while_an_operation_is_in_progress(worker: StartWorker) -> None:
    """Closed under a thread that is about to enter recv(2), its number would be the next client's."""
    server = worker(Site(echo), threads=2)
    open_websocket(server)
    (connection,) = upgraded(server)
    offered, number = connection.exchange._websocket, connection.fd
    entered, leave = threading.Event(), threading.Event()

    def in_progress(sock: socket.socket) -> bytes:
        entered.set()
        assert leave.wait(BOUND)
        os.fstat(number)
        return sock.recv(1)

    operation = threading.Thread(target=lambda: offered._use(in_progress))
    operation.start()
    assert entered.wait(BOUND)
    server.loop.retirement.close_all()
    server.turn_until(lambda: offered._using == 1)
    os.fstat(number)
    leave.set()
    operation.join(BOUND)
    assert offered._sock is None
    assert is_bad_descriptor(lambda: os.fstat(number))


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_number_that_was_given_away_stays_until_the_object_is_closed_or_dropped(
    worker: StartWorker, how: str
) -> None:
    """A selector in a library's thread knows nothing but the number."""
    numbers: list[int] = []
    site = Site(lambda client: numbers.append(client.fileno()))
    server = worker(site, threads=2)
    client = open_websocket(server)
    client.close()
    server.turn_until(lambda: not server.loop.connections)
    assert select.select(numbers, [], [], 0)[0] == numbers, "readable: it was shut down"
    others = [server.client(GET) for _ in range(3)]
    assert {receive(server, each, 12) for each in others} == {b"HTTP/1.1 200"}
    assert numbers[0] not in {each.fd for each in server.loop.connections}
    if how == "closed":
        site.offered.close()
        site.offered.close()
    else:
        site.environs.clear()
    assert is_bad_descriptor(lambda: os.fstat(numbers[0]))


def test_no_number_is_given_away_when_the_call_is_over(worker: StartWorker) -> None:
    site = Site(lambda client: None)
    server = worker(site, threads=2)
    open_websocket(server).close()
    server.turn_until(lambda: not server.loop.connections)
    assert site.offered.fileno() == -1
    assert is_bad_descriptor(lambda: site.offered.recv(1))


def test_an_application_that_closes_the_socket_ends_the_connection_and_serves_on(worker: StartWorker) -> None:
    """simple-websocket's thread closes it while the application's own code may still be at work."""
    go_on = threading.Event()

    def during(client: ClientSocket) -> None:
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


# How it lives and ends


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


def test_a_client_on_this_machine_cannot_vanish() -> None:
    """The kernel tells of its end; options of TCP would be refused."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end_silence(ours, 40.0)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_all_is_sent_at_once_unless_the_library_sets_a_timeout(worker: StartWorker) -> None:
    """simple-websocket does not look at the count that send returns."""
    size = 8 << 20
    counts: list[int] = []
    timeouts: list[float | None] = []

    def during(client: ClientSocket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        counts.append(client.send(bytes(size)))
        client.settimeout(BOUND)
        timeouts.append(client.gettimeout())
        counts.append(client.send(b"x"))
        client.setblocking(True)
        buffer = bytearray(4)
        counts.append(client.recv_into(buffer))
        client.shutdown(socket.SHUT_WR)

    server = worker(Site(during), threads=2)
    client = open_websocket(server)
    client.sendall(b"take")
    assert len(receive(server, client, size + 1)) == size + 1
    assert receive(server, client, 1) == b""
    assert (counts, timeouts) == ([size, 1, 4], [BOUND])


@pytest.mark.parametrize("handoff", [True, False])
def test_when_the_worker_retires_the_application_sees_the_end_of_its_client(
    two_workers: StartTwoWorkers, handoff: bool
) -> None:
    """It may say goodbye, and the client finds a new worker; the connection is never handed on."""

    def during(client: ClientSocket) -> None:
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

    def during(client: ClientSocket) -> None:
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
    assert "graceful_timeout is over, and what is still held is closed: GET " in (said := capfd.readouterr().err)
    assert "(a WebSocket for " in said
    assert receive(server, client, 1) == b""
    ended.set()


def test_a_client_that_goes_ends_the_call(worker: StartWorker) -> None:
    server = worker(Site(echo), threads=2)
    client = open_websocket(server)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    server.turn_until(lambda: not server.loop.connections)
    assert server.row.busy(0) is server.row.busy(1) is None
