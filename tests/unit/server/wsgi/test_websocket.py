"""The socket that an application gets for WebSocket: what takes it over, and when its descriptor is given back."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.wsgi.websocket import UpgradedSocket, end_silence
from harness import BOUND
from harness.websocket import is_bad_descriptor


class Owner:
    """The connection of ``sock``, which its event loop has until it is detached."""

    def __init__(self, sock: socket.socket) -> None:
        self.loop_lock = LoopLock()
        self.sock = sock
        self.detached = 0
        self.error: OSError | None = None

    def detach(self) -> None:
        if self.error is not None:
            raise self.error
        self.detached += 1
        self.sock.settimeout(None)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(BOUND)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def owner(pair: tuple[socket.socket, socket.socket]) -> Owner:
    return Owner(pair[0])


@pytest.fixture
def client(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


@pytest.fixture
def offered(owner: Owner) -> UpgradedSocket:
    return UpgradedSocket(owner, owner.sock)


def test_looking_at_it_takes_nothing_over(owner: Owner, offered: UpgradedSocket) -> None:
    """An application that answers in the ordinary way leaves the connection to its loop."""
    assert (offered.family, offered.type, offered.timeout) == (socket.AF_UNIX, socket.SOCK_STREAM, None)
    assert (offered.getpeername(), offered.getsockname()) == ("", "")
    assert offered.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    assert not owner.detached
    assert not offered.end()
    assert owner.sock.fileno() >= 0


USES: dict[str, Callable[[UpgradedSocket], object]] = {
    "recv": lambda sock: sock.recv(1),
    "recv_into": lambda sock: sock.recv_into(bytearray(1)),
    "send": lambda sock: sock.send(b"x"),
    "sendall": lambda sock: sock.sendall(b"x"),
    "shutdown": lambda sock: sock.shutdown(socket.SHUT_WR),
    "setsockopt": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "settimeout": lambda sock: sock.settimeout(1.0),
    "setblocking": lambda sock: sock.setblocking(True),
    "fileno": lambda sock: sock.fileno(),
    "close": lambda sock: sock.close(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_first_use_takes_it_over_once(
    owner: Owner, client: socket.socket, offered: UpgradedSocket, use: Callable[[UpgradedSocket], object]
) -> None:
    client.sendall(b"xy")
    use(offered)
    assert owner.detached == 1
    offered.fileno()
    assert owner.detached == 1
    offered.close()
    offered.end()


@pytest.mark.parametrize("name", sorted(USES.keys() - {"fileno", "close"}))
def test_it_cannot_be_taken_over_where_the_owner_refuses(owner: Owner, offered: UpgradedSocket, name: str) -> None:
    """The answer has begun: two protocols at once on one connection would be neither."""
    owner.error = OSError(errno.EBUSY, "the answer has begun")
    with pytest.raises(OSError, match="has begun"):
        USES[name](offered)
    assert offered.fileno() == -1
    offered.close()
    assert owner.sock.fileno() >= 0


def test_what_was_not_taken_over_leads_nowhere_after_the_call(owner: Owner, offered: UpgradedSocket) -> None:
    """Else it would write to the client of the next request."""
    assert not offered.end()
    assert is_bad_descriptor(lambda: offered.sendall(b"late"))
    assert is_bad_descriptor(offered.getpeername)
    assert offered.fileno() == -1
    offered.close()
    assert not owner.detached
    assert owner.sock.fileno() >= 0


def test_what_is_sent_is_counted(client: socket.socket, offered: UpgradedSocket) -> None:
    assert offered.send(b"four") == 4
    offered.sendall(memoryview(b"three"))
    assert client.recv(100) == b"fourthree"
    assert offered.sent == 9
    offered.end()


def test_all_is_sent_at_once_unless_the_library_sets_a_timeout(
    owner: Owner, client: socket.socket, offered: UpgradedSocket
) -> None:
    """simple-websocket does not look at the count that send returns."""
    size, taken = 8 << 20, []

    def take() -> None:
        while sum(taken) < size:
            taken.append(len(client.recv(1 << 20)))

    taking = threading.Thread(target=take)
    taking.start()
    assert offered.send(bytes(size)) == size
    taking.join(BOUND)
    offered.settimeout(0.001)
    assert offered.gettimeout() == offered.timeout == 0.001
    assert 0 < offered.send(bytes(size)) < size
    offered.end()


def test_a_thread_that_is_left_behind_reads_an_end(offered: UpgradedSocket) -> None:
    """It waits in recv as the call ends, and must not read another client's bytes."""
    entered, read = threading.Event(), []

    def receive(sock: socket.socket) -> None:
        entered.set()
        read.append(sock.recv(4096))

    left_behind = threading.Thread(target=lambda: offered._use(receive))
    left_behind.start()
    assert entered.wait(BOUND)
    assert offered.end()
    left_behind.join(BOUND)
    assert read == [b""]


def test_the_descriptor_stays_open_while_an_operation_is_in_progress(owner: Owner, offered: UpgradedSocket) -> None:
    """Closed under a thread that is about to enter recv(2), its number would be the next client's."""
    entered, leave = threading.Event(), threading.Event()

    def in_progress(sock: socket.socket) -> bytes:
        entered.set()
        assert leave.wait(BOUND)
        return sock.recv(1)

    operation = threading.Thread(target=lambda: offered._use(in_progress))
    operation.start()
    assert entered.wait(BOUND)
    assert offered.end()
    assert owner.sock.fileno() >= 0
    leave.set()
    operation.join(BOUND)
    assert owner.sock.fileno() == -1


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_number_that_was_given_away_stays_until_the_object_is_closed_or_dropped(owner: Owner, how: str) -> None:
    """A selector in a library's thread knows nothing but the number."""
    offered = UpgradedSocket(owner, owner.sock)
    number = offered.fileno()
    assert offered.end()
    assert select.select([number], [], [], 0)[0] == [number], "readable: it was shut down"
    if how == "closed":
        offered.close()
        offered.close()
    else:
        del offered
    assert is_bad_descriptor(lambda: os.fstat(number))


def test_no_number_is_given_away_when_the_call_is_over(owner: Owner, offered: UpgradedSocket) -> None:
    offered.setblocking(True)
    assert offered.end()
    assert offered.fileno() == -1
    assert is_bad_descriptor(lambda: offered.recv(1))
    assert owner.sock.fileno() == -1


def test_closing_ends_the_connection_and_keeps_the_descriptor_until_the_call_is_over(
    owner: Owner, client: socket.socket, offered: UpgradedSocket
) -> None:
    """simple-websocket's thread closes it while the application's own code may still be at work."""
    with offered:
        assert offered.fileno() >= 0
    assert client.recv(1) == b""
    assert offered.fileno() == -1
    assert is_bad_descriptor(lambda: offered.send(b"late"))
    assert owner.sock.fileno() >= 0
    assert offered.end()
    assert owner.sock.fileno() == -1


@pytest.mark.parametrize(("seconds", "idle", "timeout"), [(40.0, 15, 40_000), (4.0, 2, 4000), (1e9, 15, 86_400_000)])
def test_a_tcp_client_that_vanishes_is_noticed(seconds: float, idle: int, timeout: int) -> None:
    """Nothing else would end the call: tcp(7) on TCP_USER_TIMEOUT and keep-alive."""
    with socket.socket() as sock:
        end_silence(sock, seconds)
        options: list[tuple[int, Any]] = [
            (socket.TCP_USER_TIMEOUT, timeout), (socket.TCP_KEEPIDLE, idle), (socket.TCP_KEEPINTVL, idle)
        ]  # fmt: skip
        assert [(name, sock.getsockopt(socket.IPPROTO_TCP, name)) for name, _ in options] == options
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_client_on_this_machine_cannot_vanish(client: socket.socket) -> None:
    """The kernel tells of its end; options of TCP would be refused."""
    end_silence(client, 40.0)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
