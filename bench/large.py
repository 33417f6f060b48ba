"""``/large`` answers with a mebibyte, more than a socket takes from a server at once; every other path with a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

LARGE = b"x" * 1024 * 1024


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    body = LARGE if environ["PATH_INFO"] == "/large" else b"Hello, world!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
