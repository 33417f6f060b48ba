"""Listeners whose lock in the kernel a process of the application holds: the master asks nothing that needs it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import accept_queue, listening_socket
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.systemd import Notifier
from forkserver.logs.error_log import ErrorLog
from forkserver.master.reporting import startup_banner
from forkserver.master.resources.fd_store import FdStore
from forkserver.master.resources.listener_set import ListenerSet, ListenerSetSnapshot, Terms

TERMS = Terms(16, 0o660, Credentials())
NOW = 1000.0


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListenerSetSnapshot]:
    """What the program before has served: a TCP address and a Unix socket. A socket object of the former is a failure.

    The kernel takes no such lock for what the master does with a Unix socket.
    """
    before = ListenerSet(["127.0.0.1:0", f"unix:{tmp_path}/s"], (), TERMS)
    told = before.snapshot()
    copies = [
        bound._replace(listener=bound.listener._replace(descriptor=os.dup(bound.listener.descriptor)))
        for bound in told.served
    ]
    made: property = vars(ListeningSocket)["socket"]

    def asked(listener: ListeningSocket) -> socket.socket:
        assert listener.unix, "the master would sleep here"
        found: socket.socket = made.__get__(listener)
        return found

    monkeypatch.setattr(ListeningSocket, "socket", property(asked))
    yield told._replace(served=copies)
    before.close()
    with suppress(ChildProcessError):
        while True:  # those that have closed the Unix sockets
            os.waitpid(-1, 0)


def _restored(told: ListenerSetSnapshot) -> ListenerSet:
    return ListenerSet.restore(told, TERMS, FdStore((), Notifier({}), ErrorLog("-", "info")))


def test_an_upgrade_takes_a_held_listener_over(held: ListenerSetSnapshot) -> None:
    after = _restored(held)
    assert after.snapshot().served == held.served
    assert after.unreachable() == []
    after.close()


def test_a_held_listener_is_told_of(held: ListenerSetSnapshot) -> None:
    """In the status and in the lines of a start."""
    after = _restored(held)
    tcp, unix = after.open
    assert [accept_queue.length(each) for each in (tcp, unix)] == [0, 0]
    assert startup_banner.link(tcp, False) == f"http://127.0.0.1:{tcp.port}/"
    assert [tcp.dual, tcp.public, unix.abstract, unix.gone] == [False, False, False, False]
    after.close()


def test_a_reload_serves_a_held_listener_on(held: ListenerSetSnapshot) -> None:
    """Also where another name of its address, or one in its way, has to be compared with it."""
    after = _restored(held)
    tcp, unix = after.open
    assert after.on_other_ports == []
    after.change([f"localhost:{tcp.port}", unix.name], TERMS)
    assert after.settle(True, NOW) == []
    assert [each.number for each in after.open] == [tcp.number, unix.number]
    after.close()


def test_a_reload_gives_up_an_address_that_does_not_refuse_connections(
    held: ListenerSetSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = _restored(held)
    tcp, unix = after.open
    after.change([unix.name], TERMS)
    with monkeypatch.context() as patched:
        patched.setattr(listening_socket, "refuse_arrivals", lambda _: False)
        after.settle(True, NOW)
    assert not after.refused
    assert after.drop() == [(tcp.number, tcp.name)]
    after.close()


def test_a_listener_that_is_shut_down_has_no_queue_to_look_at(tmp_path: Path) -> None:
    """TCP_INFO takes the lock of a socket that does not listen."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert accept_queue.length(listening) == 0
        listening.shutdown(socket.SHUT_RDWR)
        assert accept_queue.length(listening) is None
