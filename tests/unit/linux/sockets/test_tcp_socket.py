"""TCP addresses: one host, every interface, and what the kernel forbids."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from forkserver.errors import BindError
from forkserver.linux.sockets import stream_socket, tcp_socket
from harness.listening import Open


def test_a_port_in_use_is_told_with_the_way_out(opened: Open) -> None:
    (first,) = opened("127.0.0.1:0")
    port = first.socket.getsockname()[1]
    with pytest.raises(BindError, match=f"cannot bind 127.0.0.1:{port}: address already in use; .*--bind") as caught:
        opened(f"127.0.0.1:{port}")
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_of_another_machine_is_told(opened: Open) -> None:
    with pytest.raises(BindError, match=r"cannot bind 192\.0\.2\.1:0: no such address"):
        opened("192.0.2.1:0")


def test_ipv6_takes_ipv4_clients_where_no_other_address_does(opened: Open) -> None:
    """`[::]:8000` alone serves both, as people expect of it."""
    (both,) = opened("[::]:0")
    port = both.socket.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        both.socket.accept()[0].close()


def test_ipv6_and_ipv4_share_a_port(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = opened(f"0.0.0.0:{port}", f"[::]:{port}")
    assert [listener.socket.family for listener in found] == [socket.AF_INET, socket.AF_INET6]


def test_every_interface_is_ipv6_and_ipv4(opened: Open) -> None:
    """`:8000` on a machine that clients reach by either."""
    (both,) = opened("*:0")
    port = both.socket.getsockname()[1]
    assert (both.name, both.dual, both.lacks_ipv6, both.public) == (f"http://[::]:{port}", True, False, True)
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port)):
            both.socket.accept()[0].close()


def test_every_interface_leaves_ipv4_to_another_address(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = opened(f"*:{port}", f"0.0.0.0:{port}")
    assert [(listener.socket.family, listener.dual) for listener in found] == [
        (socket.AF_INET6, False),
        (socket.AF_INET, False),
    ]


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_every_interface_is_ipv4(opened: Open, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """ipv6.disable=1, or RestrictAddressFamilies= of the unit."""

    class OfIPv4(socket.socket):
        def bind(self, address: Any, /) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().bind(address)

    monkeypatch.setattr(stream_socket, "PlainSocket", OfIPv4)
    (listener,) = opened("*:0")
    assert (listener.socket.family, listener.lacks_ipv6, listener.dual) == (socket.AF_INET, True, False)


def test_a_port_of_every_interface_in_use_is_told(opened: Open) -> None:
    (first,) = opened("*:0")
    port = first.socket.getsockname()[1]
    with pytest.raises(BindError, match=rf"cannot bind \*:{port}: address already in use"):
        opened(f"*:{port}")


class Forbidden(socket.socket):
    """A socket whose address the kernel forbids."""

    def bind(self, address: Any, /) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("address", "least", "told"),
    [
        (
            "127.0.0.1:80",
            "1024\n",
            "cannot bind 127.0.0.1:80: permission denied, ports below 1024 are for root (CAP_NET_",
        ),
        (
            "127.0.0.1:80",
            "1024\n",
            "; choose one from 1024 on, such as --bind 127.0.0.1:8080, or have root install the ",
        ),
        ("[::1]:443", "1024\n", "such as --bind [::1]:8443, "),
        ("127.0.0.1:25", "1024\n", "such as --bind 127.0.0.1:8025, "),
        ("127.0.0.1:80", "9000\n", "choose one from 9000 on, such as --bind 127.0.0.1:9000, "),
        ("127.0.0.1:80", "no number", "ports below 1024 "),
        ("127.0.0.1:80", "80\n", "permission denied by a rule of this machine (SELinux, seccomp); choose another port"),
    ],
)
def test_an_ordinary_user_is_told_which_port_it_can_have(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, least: str, told: str
) -> None:
    """To start as root is no advice for those who cannot."""
    (tmp_path / "start").write_text(least)
    monkeypatch.setattr(tcp_socket, "_PORT_START", str(tmp_path / "start"))
    monkeypatch.setattr(stream_socket, "PlainSocket", Forbidden)
    with pytest.raises(BindError) as caught:
        opened(address)
    assert told in str(caught.value)
    assert caught.value.errno == errno.EACCES


def test_without_the_kernels_word_the_usual_ports_are_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_socket, "_PORT_START", "/nowhere/at/all")
    assert tcp_socket._first_free_port() == 1024
