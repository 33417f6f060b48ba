"""Which forkserver this is."""

from __future__ import annotations

import functools
from typing import Final

DISTRIBUTION: Final = "forkserver-wsgi"


@functools.cache  # what runs stays the same, although its files may be removed or replaced meanwhile
def version() -> str:
    """The version that is installed, as its metadata had it when it was first asked for."""
    from importlib import metadata  # late: 15 ms, which no start is to wait for

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed: running from its source)"
