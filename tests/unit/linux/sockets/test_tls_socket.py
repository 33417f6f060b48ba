"""A socket is asked whether it speaks TLS without the module that would tell."""

from __future__ import annotations

import socket
import ssl
import sys

import pytest

from forkserver.linux.sockets.tls_socket import is_tls, socket_class


def test_a_socket_that_speaks_tls_is_known_from_a_plain_one() -> None:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        ssl.create_default_context().wrap_socket(
            ours, do_handshake_on_connect=False, server_hostname="localhost"
        ) as sealed,
    ):
        assert is_tls(sealed)
        assert not is_tls(theirs)
    assert not is_tls(None)


def test_where_ssl_was_never_loaded_no_socket_speaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ssl")
    assert socket_class() is None
    assert not is_tls(object())
