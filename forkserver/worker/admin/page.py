"""The page of the admin process: one HTML file without requests elsewhere, and the policy that allows just its code.

Source: CSP level 3, sections 2.3 (hashes) and 6.1; the HTML standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from forkserver.linux.common.records import NamedTuple

_FILE: Final = Path(__file__).with_name("page.html")


class Page(NamedTuple):
    """The bytes of the page, and its Content-Security-Policy."""

    body: bytes
    policy: str


def load() -> Page:
    """The page, read from the package. Raises OSError."""
    body = _FILE.read_bytes()
    script, style = (_hash(body, tag) for tag in (b"script", b"style"))
    return Page(
        body,
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
    )


def _hash(body: bytes, tag: bytes) -> str:
    """The source expression for the one element ``tag`` of ``body``."""
    (content,) = (each.partition(b"</%b>" % tag)[0] for each in body.split(b"<%b>" % tag)[1:])
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
