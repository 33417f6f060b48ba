"""What waits in the listener's queue of a worker that retires while its siblings go on."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkserver.ipc.scoreboard import STARTING, STATE
from forkserver.server.loop.listener import Listener
from harness import credentials
from harness.worker import StartTwoWorkers, Worker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"


class Client:
    """A client that has connected, and sent its request or, with TLS, the beginning of a handshake."""

    def __init__(self, server: Worker, *, tls: bool = False, first: bytes = b"") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = credentials.client().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._shaken = not tls
        self.sock = server.client(first + (self._shake() if tls else GET))

    def _shake(self) -> bytes:
        """What is to be sent next of the handshake, and of the request behind it."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read()
        self._shaken = True
        self._tls.write(GET)
        return self._outgoing.read()

    def answer(self, server: Worker) -> bytes:
        """What ``server`` answers."""
        if sealed := not self._shaken:
            while not self._shaken:
                data = server.until_answered(self.sock, 3)
                assert data, "no handshake"
                self._incoming.write(data)
                self.sock.sendall(self._shake())
        data = server.until_answered(self.sock)
        if not sealed:
            return data
        self._incoming.write(data.removesuffix(b"<closed>"))
        return self._tls.read()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def spoken(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What workers are started with."""
    return {"tls": credentials.server(tmp_path)} if request.param else {}


def shrink_handoff(server: Worker) -> None:
    """Let the queue between workers have the least room that the kernel grants."""
    balancer: Any = server.loop.balancer
    balancer._handoff._give.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def share(first: Worker, second: Worker) -> None:
    """Have the ``second`` worker accept from the listener of the ``first``, too."""
    second.loop.acceptor.stop()
    (listener,) = first.loop.acceptor.listeners
    shared = Listener(first.listener.dup(), number=listener.number)
    shared.sock.setblocking(False)
    shared.tls = listener.tls
    second.loop.acceptor.listeners.append(shared)
    second.loop.acceptor.start()


def test_it_goes_to_a_sibling_unread(two_workers: StartTwoWorkers, spoken: dict[str, Any]) -> None:
    """Else a worker that retires serves a whole crowd of TLS clients alone, and cuts those it has no time for."""
    first, second = two_workers(**spoken)
    clients = [Client(first, tls=bool(spoken)) for _ in range(5)]
    first.httpd.retire(30, handoff=True)
    assert first.httpd.retired
    for client in clients:
        answer = client.answer(second)
        assert b"200 OK" in answer
        assert b"Connection: close" not in answer


def test_what_siblings_cannot_be_handed_is_theirs_to_accept(
    two_workers: StartTwoWorkers, spoken: dict[str, Any]
) -> None:
    """The queue between workers is bounded. Who takes from it looks at the listener, too: no other event may come."""
    first, second = two_workers(**spoken)
    share(first, second)
    shrink_handoff(first)
    anew: list[int] = []
    register_anew = second.loop.poller.register_anew
    second.loop.poller.register_anew = lambda fd, mask: anew.append(fd) or register_anew(fd, mask)
    clients = [Client(first, tls=bool(spoken)) for _ in range(12)]
    first.httpd.retire(30, handoff=True)
    assert len(first.loop.connections) <= 1, "the one for which there was no room"
    kept = {connection.peer for connection in first.loop.connections}
    for client in clients:
        server = first if client.sock.getsockname() in kept else second
        assert b"200 OK" in client.answer(server)
    assert second.loop.acceptor.listeners[-1].fileno() in anew


def test_without_a_sibling_that_serves_it_is_served_here(two_workers: StartTwoWorkers, spoken: dict[str, Any]) -> None:
    """A request has exceeded its time: the worker in its place has yet to start."""
    first, second = two_workers(**spoken)
    second.row.words[STATE] = STARTING
    client = Client(first, tls=bool(spoken))
    first.httpd.retire(30, handoff=True)
    assert b"200 OK" in client.answer(first)


def test_at_a_stop_it_is_served_here(two_workers: StartTwoWorkers, spoken: dict[str, Any]) -> None:
    first, _ = two_workers(**spoken)
    client = Client(first, tls=bool(spoken))
    first.httpd.retire(30, handoff=False)
    answer = client.answer(first)
    assert b"200 OK" in answer
    assert b"Connection: close" in answer


def test_a_connection_of_tls_that_says_nothing_goes_to_a_sibling(two_workers: StartTwoWorkers, tmp_path: Path) -> None:
    """Browsers open connections in advance."""
    first, second = two_workers(tls=credentials.server(tmp_path))
    silent = first.client()
    first.turn(2)
    first.httpd.retire(30, handoff=True)
    assert first.httpd.retired
    second.turn(2)
    assert len(second.loop.connections) == 1
    second.pass_time(16)
    assert second.until_answered(silent) == b"<closed>", "the deadline goes with it"


@pytest.mark.parametrize("late", [False, True], ids=["header came", "header comes later"])
def test_it_goes_to_a_sibling_behind_a_proxy_header(
    two_workers: StartTwoWorkers, spoken: dict[str, Any], late: bool
) -> None:
    """The sibling expects no second header, and knows the client."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["REMOTE_ADDR"].encode()]

    first, second = two_workers(app, proxy_protocol="on", proxy_allow_ips=["127.0.0.1"], **spoken)
    if late:
        silent = first.client()
        first.turn(2)
        first.httpd.retire(30, handoff=True)
        assert not first.httpd.retired
        silent.sendall(PROXY)
        first.turn(2)
        assert first.httpd.retired
        second.turn(2)
        assert [connection.peer[0] for connection in second.loop.connections] == ["192.0.2.1"]
        return
    client = Client(first, tls=bool(spoken), first=PROXY)
    first.httpd.retire(30, handoff=True)
    assert first.httpd.retired
    assert client.answer(second).endswith(b"192.0.2.1")
