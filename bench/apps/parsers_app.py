"""What every server serves for parsers.py: it reads the body, and tells which known target it was called for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

TARGETS = {"/good-behind": "behind", "/smuggled": "smuggled"}


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    target = TARGETS.get(environ["PATH_INFO"], "first")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3"), ("X-Target", target)])
    return [b"ok\n"]
