"""Listeners, clients and a folder of another user's for the tests of sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.open_listeners import open_all
from harness import reach
from harness.intruder import give
from harness.listening import Connect, Open


@pytest.fixture
def opened() -> Iterator[Open]:
    everything: list[ListeningSocket] = []

    def start(*bind: str, given: list[tuple[int, str]] | None = None, mode: int = 0o660) -> list[ListeningSocket]:
        made = open_all(bind, given or [], 16, mode, Credentials())
        everything.extend(made)
        return made

    yield start
    for listener in everything:
        if listener.fileno() >= 0:
            listener.unlink()
            listener.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    clients: list[socket.socket] = []

    def client(listener: ListeningSocket) -> socket.socket:
        made = socket.socket(listener.socket.family)
        clients.append(made)
        made.connect(listener.socket.getsockname())
        return made

    yield client
    for each in clients:
        each.close()


@pytest.fixture
def foreign() -> Iterator[Path]:
    with reach.public_folder() as public:
        folder = public / "foreign"
        folder.mkdir()
        give(folder)
        yield folder
