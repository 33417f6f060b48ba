"""A master for one question."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[str, list[bytes]]]]:
    """A master of one connection: what it answers is given, what it was asked is noted."""
    threads = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(answer: bytes) -> tuple[str, list[bytes]]:
        path, asked = str(tmp_path / "control.sock"), []
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted:
                asked.append(accepted.recv(65536))
                accepted.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return path, asked

    yield start
    for thread in threads:
        thread.join(20)
    listener.close()
