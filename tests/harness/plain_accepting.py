"""Connections that the extension accepts, beside what the Python code makes of the same."""

from __future__ import annotations

import select
import socket
import sys
from types import SimpleNamespace
from typing import Any

from forkserver.linux.sockets.plain_socket import of_accepted
from forkserver.server.connection.lifecycle import OpenConnection
from forkserver.server.connection.plain_exchange import facts_of
from forkserver.server.loop.listener import Listener, client_address
from forkserver.server.proxy.forwarded_headers import TrustedProxies
from harness import BOUND
from harness.corpus import LIMITS
from harness.fakes import FakeLoop
from harness.plain_calls import EXTENSION

PROXIES = ("127.0.0.1", "fe80::/10", "unix")


def make_context(trusts: Any) -> Any:
    """The extension's, for accepting alone."""
    return EXTENSION.Context(
        (LIMITS.request_line, LIMITS.fields, LIMITS.field_size, LIMITS.head), (), trusts, (), b"",
        SimpleNamespace(environ={}), SimpleNamespace(dozing=False), SimpleNamespace(acquire=None, release=None),
        None, None, b"", None, 1, 0, None, None, (),
    )  # fmt: skip


class Accepting:
    """Accepts from ``listening`` in both ways. ``trust`` lists proxies; None: there are none."""

    def __init__(
        self,
        listening: socket.socket,
        names: tuple[str, str] | None = None,
        trust: tuple[str, ...] | None = PROXIES,
    ) -> None:
        self.listening = listening
        listening.setblocking(False)
        self.listener = Listener(listening, names)
        proxies = None if trust is None else TrustedProxies(trust, ())
        self.context = make_context(proxies and proxies.trusts)
        self._loop: Any = FakeLoop(forwarded_allow_ips=PROXIES)
        object.__setattr__(self._loop.context, "trust", proxies)
        self._loop.plain = self.context

    def await_client(self) -> None:
        """A client is in the queue: on a busy machine even loopback takes its time."""
        assert select.select([self.listening], [], [], BOUND)[0]

    def by_extension(self) -> Any:
        self.await_client()
        kind = self.listener.plain_kind
        assert kind is not None
        accepted = self.listener.accept_plain(self.context, kind)
        assert accepted is not None
        return accepted

    def by_python(self) -> socket.socket:
        self.await_client()
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        return sock

    def both_views(self) -> tuple[list[Any], list[Any]]:
        """Address and facts of one connection, as the extension and as the Python code make them."""
        accepted = self.by_extension()
        with of_accepted(accepted) as sock:
            peer = client_address(sock.getpeername())  # what accept(2) gives, in the words of the standard library
            connection = OpenConnection(self._loop, sock, peer, self.listener)
            return [accepted.peer, accepted.facts], [peer, facts_of(connection)]


def of_link_local() -> None:
    """In a network namespace: what a client with a scope id looks like, and one whose flow label is told."""
    with socket.socket(socket.AF_INET6) as listening, socket.socket(socket.AF_INET6) as client:
        listening.setsockopt(socket.IPPROTO_IPV6, 11, 1)  # IPV6_FLOWINFO
        listening.setsockopt(socket.IPPROTO_IPV6, 33, 1)  # IPV6_FLOWINFO_SEND
        listening.bind(("fe80::7", 0, 0, 1))
        listening.listen()
        client.connect(listening.getsockname())
        seen, expected = Accepting(listening).both_views()
        assert seen == expected, (seen, expected)
        assert seen[0][0] == "fe80::7"
        assert seen[0][3] == 1, "the scope id"


if __name__ == "__main__":
    of_link_local()
    sys.stdout.write("equal\n")
