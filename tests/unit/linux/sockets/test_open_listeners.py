"""The listeners of a server: all that are named or passed, or none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from forkserver.errors import BindError, ConfigError, UnfitSocketError
from forkserver.linux.sockets.plain_socket import PlainSocket
from harness.listening import Open


def test_where_one_address_fails_none_stays_bound(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(BindError):
        opened(f"unix:{path}", "192.0.2.1:0")
    assert not path.exists()


def test_an_inherited_descriptor_is_served_and_not_ours(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        number = os.dup(made.fileno())
        (listener,) = opened(f"fd://{number}")
        assert listener.socket.getsockname() == made.getsockname()
        assert not listener.own


def test_a_descriptor_that_does_not_listen_is_refused(opened: Open) -> None:
    with socket.socket() as made, pytest.raises(BindError, match="not a listening stream socket"):
        opened(f"fd://{made.fileno()}")


def test_a_descriptor_that_is_no_socket_is_refused(opened: Open) -> None:
    reading, writing = os.pipe()
    with pytest.raises(BindError, match=f"cannot serve fd://{reading}"):
        opened(f"fd://{reading}")
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(("family", "named"), [(40, "AF_VSOCK"), (45, "number 45")])
def test_a_listener_of_another_address_family_is_refused_by_name(
    opened: Open, monkeypatch: pytest.MonkeyPatch, family: int, named: str
) -> None:
    """A newer kernel may have families that this CPython has no name for."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        monkeypatch.setattr(PlainSocket, "family", _known(family))
        with pytest.raises(UnfitSocketError, match=f"its address family is {named}; pass a TCP or Unix socket"):
            opened(f"fd://{made.fileno()}")


def _known(family: int) -> int:
    try:
        return socket.AddressFamily(family)
    except ValueError:
        return family


def test_what_cannot_be_served_is_a_mistake_in_the_settings(opened: Open) -> None:
    """Started again by its manager, the service would end in the same way."""
    with socket.socket() as made, pytest.raises(ConfigError) as caught:
        opened(f"fd://{made.fileno()}")
    assert caught.value.exit_status == 2


def test_what_systemd_gives_is_served_instead_of_bind(opened: Open) -> None:
    """Units that name the same address in both places are common, and binding it twice would fail."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        found = opened("127.0.0.1:0", given=[(os.dup(made.fileno()), "web")])
        assert [listener.socket.getsockname() for listener in found] == [made.getsockname()]


def test_a_refused_descriptor_of_systemds_is_named_and_stays_open(opened: Open) -> None:
    with socket.socket() as made:
        with pytest.raises(BindError, match=rf"cannot serve systemd's web \(descriptor {made.fileno()}\): not a list"):
            opened(given=[(made.fileno(), "web")])
        os.fstat(made.fileno())
