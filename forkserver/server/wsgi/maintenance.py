"""The page that answers in place of the application during maintenance.

Every request gets 503 with Retry-After but those for the health path, which go to the application as before: a
balancer that looks there keeps sending clients here, where they are told.

Source: RFC 9110 sections 15.6.4 and 10.2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from forkserver.http1.percent_encoding import decoded

App = Callable[..., Iterable[bytes]]
_BODY: Final = b"Down for maintenance; try again in a moment.\n"
_FIELDS: Final = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_BODY))),
    ("Retry-After", "30"),
    ("Cache-Control", "no-store"),
)


class MaintenancePage:
    """A WSGI application. ``application`` gives the one whose place it takes, which keeps the target ``health``."""

    def __init__(self, application: Callable[[], App], health: str | None) -> None:
        self._application = application
        self._health = None if health is None else decoded(health.partition("?")[0]).decode("latin-1")

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == self._health:
            return self._application()(environ, start_response)
        start_response("503 Service Unavailable", list(_FIELDS))
        return [_BODY]
