"""One thing that an import left behind."""

from __future__ import annotations

from forkserver.linux.common.records import NamedTuple


class Finding(NamedTuple):
    """What it is, in words, and the place in the code where it comes from, where that is known."""

    what: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.place})" if self.place else self.what
