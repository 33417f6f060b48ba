"""What every server in a comparison serves: it reads the environ, and the path and one response header vary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

BODY = b"Hello, world!\n"


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    # Servers may leave out what is empty (PEP 3333), and bjoern does.
    seen = len(environ.get("QUERY_STRING", "")) + len(environ.get("HTTP_USER_AGENT", ""))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14"), ("X-Seen", f"{path} {seen}")])
    return [BODY]
