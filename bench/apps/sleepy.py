"""``/sleep/MILLISECONDS/…`` sleeps as a database would make it wait; everything else is answered at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import hello


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    _, kind, *rest = environ["PATH_INFO"].split("/")
    if kind == "sleep" and (milliseconds := int(rest[0])):
        time.sleep(milliseconds / 1000)
    return hello.app(environ, start_response)
