"""What does not survive a fork is found and named."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from forkserver.supervision import evidence


def test_a_clean_import_leaves_nothing() -> None:
    assert evidence.left_behind(evidence.sockets()) == ""


def test_a_thread_is_named() -> None:
    """Locks that it holds at the fork are held for ever in the child."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="sampler")
    thread.start()
    try:
        assert evidence.left_behind(evidence.sockets()) == "thread sampler"
    finally:
        over.set()
        thread.join()


def test_a_connection_is_named_by_its_peer() -> None:
    """Two processes that share a connection to a database read each other's answers."""
    before = evidence.sockets()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        port = server.getsockname()[1]
        assert evidence.left_behind(before) == f"connection to 127.0.0.1:{port}"


def test_a_connection_to_a_unix_socket_is_named_by_its_path(tmp_path: Path) -> None:
    before = evidence.sockets()
    path = str(tmp_path / "db")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
        assert evidence.left_behind(before) == f"connection to {path}"


def test_connections_that_were_there_before_are_ours() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert evidence.left_behind(evidence.sockets()) == ""


def test_a_connected_datagram_socket_is_harmless() -> None:
    """syslog and statsd: whole datagrams do not mix."""
    before = evidence.sockets()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.connect(("127.0.0.1", 9))
        assert evidence.left_behind(before) == ""
