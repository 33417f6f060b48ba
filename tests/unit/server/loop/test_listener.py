"""A listening socket's names, and what accept gives."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from forkserver.server.loop.listener import Listener, client_address, names_of


@pytest.mark.parametrize(
    ("peer", "seen"),
    [
        (("::ffff:192.0.2.1", 9, 0, 0), ("192.0.2.1", 9)),
        (("::ffff:c000:201", 9, 0, 0), ("::ffff:c000:201", 9, 0, 0)),
        (("2001:db8::1", 9, 0, 3), ("2001:db8::1", 9, 0, 3)),
        (("192.0.2.1", 9), ("192.0.2.1", 9)),
    ],
)
def test_an_ipv4_client_of_an_ipv6_socket_has_its_own_address(
    peer: tuple[object, ...], seen: tuple[object, ...]
) -> None:
    assert client_address(peer) == seen


def test_names_are_those_of_the_address_and_never_empty(tmp_path: Path) -> None:
    """PEP 3333 wants SERVER_NAME and SERVER_PORT."""
    with socket.socket() as any_address, socket.socket() as one, socket.socket(socket.AF_UNIX) as local:
        any_address.bind(("0.0.0.0", 0))
        one.bind(("127.0.0.1", 0))
        local.bind(str(tmp_path / "socket"))
        assert names_of(any_address) == (socket.gethostname(), str(any_address.getsockname()[1]))
        assert names_of(one) == ("127.0.0.1", str(one.getsockname()[1]))
        assert names_of(local) == ("localhost", "80")
        assert Listener(one).shown == ":".join(names_of(one))
        assert Listener(local).shown == str(tmp_path / "socket")


def test_a_batch_is_as_large_as_what_there_was_and_grows_again() -> None:
    """To look for more where there is never more costs half an accept; not to look costs turns where there is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listener = Listener(listening)
        assert listener.batch == 16
        listener.batch = 1
        for _ in range(7):
            listener.note_taken(1)
        assert listener.batch == 1
        listener.note_taken(1)
        assert listener.batch == 16, "a look whether there are more"
        listener.batch = 3
        listener.note_taken(3)
        assert listener.batch == 6


def test_accept_gives_what_the_sockets_own_does() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        accepted, peer = Listener(listening).accept()
        with accepted:
            assert peer == client.getsockname()
            assert (accepted.family, accepted.type, accepted.proto) == (
                listening.family, listening.type, listening.proto
            )  # fmt: skip
            assert accepted.getpeername() == peer
            assert not accepted.get_inheritable()


def test_a_socket_of_another_class_accepts_in_its_own_way() -> None:
    class Own(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            return self, "own"

    with Own() as listening:
        assert Listener(listening).accept() == (listening, "own")
        assert Listener(listening).fileno() == listening.fileno()
