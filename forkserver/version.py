"""Which forkserver this is."""

from __future__ import annotations

from typing import Final

DISTRIBUTION: Final = "forkserver-wsgi"


def version() -> str:
    """The version that is installed, as its metadata has it."""
    from importlib import metadata  # late: 15 ms, which no start is to wait for

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed: running from its source)"
