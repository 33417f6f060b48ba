"""A socket to a daemon that logs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.logs.daemon_socket import DatagramSocket


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.setblocking(False)
    return made


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    with listening(tmp_path / "log") as made:
        yield made


@pytest.fixture
def ours(daemon: socket.socket, tmp_path: Path) -> Iterator[DatagramSocket]:
    made = DatagramSocket(str(tmp_path / "log"))
    yield made
    made.close()


def test_what_a_child_connects_elsewhere_is_not_the_sockets_of_its_parent(
    ours: DatagramSocket, daemon: socket.socket, tmp_path: Path
) -> None:
    """The application could have what root's process writes, with the mark that root has written it."""
    with listening(tmp_path / "another") as another:
        if not (child := os.fork()):
            ours.renew()
            ours.send(b"of the child")
            with socket.socket(fileno=os.dup(ours.fileno())) as stolen:
                stolen.connect(str(tmp_path / "another"))
            ours.send(b"elsewhere")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ours.send(b"of the parent")
        assert [daemon.recv(100) for _ in range(2)] == [b"of the child", b"of the parent"]
        assert another.recv(100) == b"elsewhere"


def test_a_child_begins_without_the_daemon_and_finds_it_when_it_is_back(
    ours: DatagramSocket, daemon: socket.socket, tmp_path: Path
) -> None:
    (tmp_path / "log").unlink()
    number = ours.fileno()
    ours.renew()
    with pytest.raises(OSError, match=r"107|not connected"):
        ours.send(b"lost")
    with listening(tmp_path / "log") as again:
        ours.connect()
        ours.send(b"back")
        assert again.recv(100) == b"back"
    assert ours.fileno() == number
    assert not os.get_inheritable(number)


def test_where_nothing_listens_there_is_no_socket(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DatagramSocket(str(tmp_path / "log"))
