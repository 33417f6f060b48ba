"""Requests behind proxies: fields in, environ out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from forkserver.server.proxy.forwarded_headers import TrustedProxies

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32", "unix")
X_FIELDS = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port")
PEER = "10.0.0.1"


class Heard:
    """What the operator would be told."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, set[str]]] = []
        self.inner: list[tuple[str, str]] = []

    def dropped(self, sender: str, keys: list[str]) -> None:
        self.fields.append((sender, set(keys)))

    def took_inner(self, sender: str, client: str) -> None:
        self.inner.append((sender, client))


def seen(
    peer: str | None = PEER,
    fields: Iterable[str] = X_FIELDS,
    trusted: Iterable[str] = TRUSTED,
    heard: Heard | None = None,
    **said: Any,
) -> dict[str, str]:
    """The environ of a request from ``peer`` with the fields ``said``, as the application meets it."""
    environ = {"REMOTE_ADDR": peer or "", "REMOTE_PORT": "1", "HTTP_HOST": "own", "SERVER_PORT": "8000"}
    environ |= {f"HTTP_{key.upper()}": value for key, value in said.items()}
    TrustedProxies(trusted, fields).apply(environ, peer, heard)
    return environ


def forwarded(text: str, peer: str | None = PEER) -> dict[str, str]:
    return seen(peer, ["forwarded"], forwarded=text)
