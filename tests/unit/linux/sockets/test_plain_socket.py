"""What an application puts in place of ``socket.socket`` is for the application alone."""

from __future__ import annotations

import ast
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import forkserver
from forkserver.ipc.channel import MasterChannel
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair
from forkserver.server.handoff.queue import HandedConnection, Handoff
from forkserver.server.loop.listener import Listener
from forkserver.worker.forking.fork_handshake import open_handshake

TOP = Path(forkserver.__file__).parent


class Proxied(socket.socket):
    """As PySocks' class, and stricter: it connects by TCP or UDP alone, and takes no descriptor."""

    def __init__(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> None:
        if family == socket.AF_UNIX or type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            raise ValueError("socket type must be stream or datagram")
        super().__init__(family, type, proto)


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Proxied)


@pytest.mark.usefixtures("replaced")
def test_a_pair_is_connected_and_plain() -> None:
    ours, theirs = socketpair(socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert type(ours) is type(theirs) is PlainSocket
        ours.send(b"x")
        assert theirs.recv(1) == b"x"
        assert (ours.family, ours.type, ours.gettimeout()) == (socket.AF_UNIX, socket.SOCK_SEQPACKET, None)
        assert not ours.get_inheritable()


def test_a_pair_that_does_not_block_knows_it() -> None:
    for end in socketpair(socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK):
        with end:
            assert end.gettimeout() == 0
            assert not os.get_blocking(end.fileno())


@pytest.mark.usefixtures("replaced")
def test_a_template_can_fork() -> None:
    master, end = MasterChannel.pair()
    with closing(master), end.orders, closing(open_handshake([tuple(map(os.dup, end.descriptors()))])) as handshake:
        handshake.theirs.send(b"+17")
        assert handshake.ours.recv(16) == b"+17"


@pytest.fixture
def queue() -> Iterator[Handoff]:
    made = Handoff(*(end.detach() for end in socketpair(socket.SOCK_SEQPACKET)))
    yield made
    made.close()


@pytest.mark.usefixtures("replaced")
def test_connections_are_accepted_and_handed_on_as_plain_ones(queue: Handoff) -> None:
    """A connection of another class is served more slowly, and is not handed on."""
    with PlainSocket() as listening, PlainSocket() as client:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client.connect(listening.getsockname())
        accepted, peer = Listener(listening).accept()
        with accepted:
            assert type(accepted) is PlainSocket
            assert queue.give(accepted, HandedConnection(1, peer, 0.0, 0.0, b""))
        taken = queue.take()
        assert taken is not None
        with taken[0]:
            assert type(taken[0]) is PlainSocket
            assert taken[0].getpeername() == client.getsockname()


def test_no_module_looks_a_replaceable_name_up_when_it_runs() -> None:
    """Annotations may say ``socket.socket``, and cli/ imports no application; the clocks are those of syscalls.py."""
    found = []
    for path in TOP.rglob("*.py"):
        if path.name in ("plain_socket.py", "syscalls.py") or path.is_relative_to(TOP / "cli"):
            continue
        tree = ast.parse(path.read_text())
        notes = [note for node in ast.walk(tree) for note in _annotations(node)]
        harmless = {id(inner) for note in notes for inner in ast.walk(note)}
        found += [
            f"{path.relative_to(TOP)}:{getattr(node, 'lineno', 0)}"
            for node in ast.walk(tree)
            if id(node) not in harmless and _is_replaceable(node)
        ]
    assert found == []


_NAMES = {
    "socket": {"socket", "socketpair", "fromfd", "create_server", "create_connection"},
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"},
}


def _is_replaceable(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(ast.Name(module), name):
            return name in _NAMES.get(module, ())
        case ast.ImportFrom(str(module), names):
            return any(each.name in _NAMES.get(module, ()) for each in names)
    return False


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.AnnAssign():
            yield node.annotation
        case ast.arg(annotation=ast.AST() as note):
            yield note
        case ast.FunctionDef(returns=ast.AST() as note):
            yield note
        case ast.Subscript():
            yield node.slice
