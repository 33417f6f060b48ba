"""A client may attach a descriptor to its question, which does not hold the master."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from forkserver.linux import syscalls
from harness import BOUND, processes
from harness.control_clients import STATUS, ControlClients


class Lingering:
    """A connection with unsent data that lingers: its last close waits until the other end is closed."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sending = socket.create_connection(listener.getsockname())
            self.other, _ = listener.accept()
        self.sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        self.sending.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.sending.send(bytes(1 << 16))
        self._before = processes.children()
        self.waited = False
        self._watch = threading.Timer(BOUND, self._give_up)
        self._watch.start()

    def _give_up(self) -> None:
        self.waited = True
        self.other.close()

    def send_to(self, client: socket.socket) -> None:
        """Attach it to a question, and close our own copy, so that the queue's is the last."""
        socket.send_fds(client, [STATUS], [self.sending.fileno()])
        os.close(self.sending.detach())

    def close(self) -> None:
        self._watch.cancel()
        self._watch.join()
        self.other.close()
        for pid in processes.children() - self._before:  # the child that was left to close it
            os.waitpid(pid, 0)


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lingering]:
    """On a kernel that does not refuse descriptors."""
    monkeypatch.setattr(syscalls, "refuse_descriptors", lambda _: None)
    made = Lingering()
    yield made
    made.close()


@pytest.fixture
def open_clients(lingering: Lingering, tmp_path: Path) -> Iterator[ControlClients]:
    made = ControlClients(str(tmp_path / "open.sock"))
    yield made
    made.close()


def test_a_descriptor_that_lingers_does_not_hold_the_master(open_clients: ControlClients, lingering: Lingering) -> None:
    known = processes.children()
    client = open_clients.connect()
    lingering.send_to(client)
    assert open_clients.turn() == []
    with suppress(ConnectionResetError):  # what was not read is thrown away
        assert client.recv(100) == b""
    assert not lingering.waited
    processes.await_end_of_new(known)


def test_a_descriptor_of_a_client_that_nobody_accepted_does_not_hold_a_stop(
    open_clients: ControlClients, lingering: Lingering
) -> None:
    known = processes.children()
    lingering.send_to(open_clients.connect())
    open_clients.control.close()
    assert not lingering.waited
    processes.await_end_of_new(known)


def test_a_descriptor_stays_where_there_is_no_process_to_close_it(
    open_clients: ControlClients, lingering: Lingering, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def no_process(sock: socket.socket) -> None:
        left.append(sock.fileno())
        raise BlockingIOError

    monkeypatch.setattr(syscalls, "close_in_child", no_process)
    lingering.send_to(open_clients.connect())
    assert open_clients.turn() == []
    assert not lingering.waited
    lingering.other.close()  # so that the last of it can be closed here
    os.close(left[0])


def test_a_kernel_that_can_refuses_descriptors(tmp_path: Path) -> None:
    clients = ControlClients(str(tmp_path / "new.sock"))
    client = clients.connect()
    try:
        client.setsockopt(socket.SOL_SOCKET, syscalls.SO_PASSRIGHTS, 0)
    except OSError:
        assert tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (6, 16)
    else:
        with pytest.raises(PermissionError):
            socket.send_fds(client, [STATUS], [0])
    clients.close()
