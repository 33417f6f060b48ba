"""What serves in place of an application that has never loaded, until a file of it changes.

A browser gets the page of the failure instead (error_page.py); everything else is answered 503.

Source: RFC 9110 section 15.6.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

NAME: Final = f"{__name__}:app"  # as the setting app has it
_BODY: Final = b"The application does not load; the log has its traceback. Waiting until a file of it changes.\n"


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application."""
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(_BODY))),
        ("Retry-After", "1"),
        ("Cache-Control", "no-store"),
    ]
    start_response("503 Service Unavailable", fields)
    return [_BODY]
