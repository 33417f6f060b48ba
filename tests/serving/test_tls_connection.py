"""What OpenSSL says by itself between a client's requests, while the client takes nothing."""

from __future__ import annotations

import _ssl
import ctypes
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from forkserver.ipc.scoreboard import REQUESTS
from forkserver.linux.sockets.resets import reset_at_close
from harness import BOUND, credentials
from harness.worker import StartWorker, Worker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ALERT, DATA = 21, 23  # kinds of records: RFC 8446 section 5.1
PLENTY: Final = 1 << 20
_SET_MAX_PROTO_VERSION, _TLS_1_2, _TLS_1_3 = 124, 0x0303, 0x0304  # SSL_CTRL_SET_MAX_PROTO_VERSION
_UPDATE_REQUESTED: Final = 1  # SSL_KEY_UPDATE_REQUESTED


class OpenSsl:
    """A client by OpenSSL's own functions: the ssl module has none to renegotiate (SSL_renegotiate(3))."""

    def __init__(self, sock: socket.socket, version: int = _TLS_1_2) -> None:
        self.sock = sock
        sock.settimeout(BOUND)  # the descriptor stays non-blocking, as OpenSSL needs it here
        self._file = sock.makefile("rb")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._library = library = ctypes.CDLL(_ssl.__file__)  # and what it is linked with
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, name).restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(library.SSL_CTX_new(ctypes.c_void_p(library.TLS_client_method())))
        library.SSL_CTX_ctrl(self._context, _SET_MAX_PROTO_VERSION, ctypes.c_long(version), None)
        self._ssl = ctypes.c_void_p(library.SSL_new(self._context))
        library.SSL_set_fd(self._ssl, sock.fileno())
        library.SSL_set_connect_state(self._ssl)

    def shake(self, turn: Callable[[], None]) -> None:
        while self._library.SSL_do_handshake(self._ssl) != 1:
            turn()

    def write(self, data: bytes) -> None:
        assert self._library.SSL_write(self._ssl, data, len(data)) == len(data)

    def ask_for_renegotiation(self) -> None:
        """TLS 1.2's; the server answers with an alert that is no end (RFC 5246 section 7.2.2)."""
        assert self._library.SSL_renegotiate(self._ssl) == 1
        assert self._library.SSL_do_handshake(self._ssl) != 1

    def read(self) -> bytes:
        """What there is now; nothing where no record is whole."""
        room = ctypes.create_string_buffer(1 << 14)
        size = self._library.SSL_read(self._ssl, room, len(room))
        return room.raw[: max(0, size)]

    def ask_for_new_keys(self) -> None:
        """TLS 1.3's KeyUpdate, which goes out with what is written next (RFC 8446 section 4.6.3)."""
        assert self._library.SSL_key_update(self._ssl, _UPDATE_REQUESTED) == 1

    def record(self) -> int:
        """The kind of the next record."""
        kind, _, size = struct.unpack("!BHH", self._file.read(5))
        self._file.read(size)
        return int(kind)

    def leave(self) -> None:
        self._file.close()
        self.sock.close()

    def close(self) -> None:
        self.leave()
        self._library.SSL_free(self._ssl)
        self._library.SSL_CTX_free(self._context)


class Full:
    """Stands in for a connection's send: the kernel takes as much as there is room for."""

    def __init__(self, connection: Any) -> None:
        self._really, self.room = connection.transport._send, 0
        connection.transport._send = self

    def __call__(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        sent = int(self._really(memoryview(data)[: self.room]))
        self.room -= sent
        return sent


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    made = credentials.server(tmp_path)
    made.options |= ssl.OP_NO_RENEGOTIATION
    return made


@pytest.fixture
def waiting(worker: StartWorker, context: ssl.SSLContext) -> Iterator[tuple[Any, OpenSsl, Full]]:
    """A request that waits for the application, while the client has not taken an alert of OpenSSL's."""
    if not hasattr(_ssl, "__file__"):
        pytest.skip("this Python has OpenSSL built in, out of reach")
    server = worker(tls=context)
    client = OpenSsl(server.client())
    client.shake(server.turn)
    (connection,) = server.loop.connections
    kernel = Full(connection)
    client.write(GET)
    client.ask_for_renegotiation()
    server.tend()
    assert len(server.loop.calls) == 1
    assert connection.transport.out
    yield server, client, kernel
    client.close()


def shaken(worker: StartWorker, context: ssl.SSLContext) -> tuple[Worker, OpenSsl]:
    """A worker, and a client that has come through its handshake and can ask for new keys."""
    if not hasattr(_ssl, "__file__"):
        pytest.skip("this Python has OpenSSL built in, out of reach")
    server = worker(tls=context)
    client = OpenSsl(server.client(), _TLS_1_3)
    client.shake(server.turn)
    return server, client


def test_a_client_may_change_the_keys_before_each_request(worker: StartWorker, context: ssl.SSLContext) -> None:
    """The worker answers with a change of its own, and goes on with the new ones."""
    server, client = shaken(worker, context)
    for number in range(1, 4):
        client.ask_for_new_keys()
        client.write(GET)
        found = b""
        for _ in range(20):
            server.turn()
            found += client.read()
        assert found.endswith(b"GET / 0")
        assert server.row.words[REQUESTS] == number
    client.close()


def test_a_client_may_change_the_keys_within_an_upload(worker: StartWorker, context: ssl.SSLContext) -> None:
    """The worker reads many records at once, and answers each change in its place."""
    server, client = shaken(worker, context)
    client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
    for _ in range(20):
        client.ask_for_new_keys()
        client.write(b"x" * 10_000)
    found = b""
    for _ in range(50):
        server.turn()
        found += client.read()
    assert found.endswith(b"POST / 200000")
    client.close()


@pytest.mark.parametrize("rooms", [(PLENTY,), (1, 1, PLENTY)], ids=["at-once", "bit-by-bit"])
def test_a_request_is_served_though_an_alert_was_taken_before(
    waiting: tuple[Any, OpenSsl, Full], rooms: tuple[int, ...]
) -> None:
    """The application is busy, and the background driver sends what is kept: that is not the end of an answer."""
    server, client, kernel = waiting
    for kernel.room in rooms:
        server.tend()
    assert client.record() == ALERT
    server.turn()
    assert server.row.words[REQUESTS] == 1
    assert client.record() == DATA


def test_an_answer_goes_out_behind_an_alert_that_was_not_taken(waiting: tuple[Any, OpenSsl, Full]) -> None:
    """Records have an order, and each the number of its place."""
    server, client, kernel = waiting
    server.turn()
    assert server.row.words[REQUESTS] == 1
    kernel.room = PLENTY
    server.turn()
    assert [client.record(), client.record()] == [ALERT, DATA]


def test_who_goes_before_an_alert_is_taken_costs_no_call(waiting: tuple[Any, OpenSsl, Full]) -> None:
    """No client is left to be answered."""
    server, client, kernel = waiting
    reset_at_close(client.sock)
    client.leave()
    kernel.room = PLENTY
    server.turn()
    assert not server.loop.connections
    assert server.row.words[REQUESTS] == 0
