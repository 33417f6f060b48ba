"""What is known of a generation: one loading of the application's code.

Its purpose and times are fixed when it begins; the rest is what became of it. A generation whose import is not shared
is no snapshot of the code: each of its workers loads the files that are on disk at that moment.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from forkserver.linux.common.records import NamedTuple, Record
from forkserver.master.model.events import EventKind

MARGIN_SECONDS: Final = 10.0  # what a start or a stop may take beyond its own time limits: kills, forks, the last steps


class Purpose(Enum):
    START = "start"
    RELOAD = "reload"
    REPLACE = "replace"


# What is told of a generation that does not load.
FAILED: Final = {
    Purpose.START: EventKind.NEVER_STARTED,
    Purpose.RELOAD: EventKind.REFUSED,
    Purpose.REPLACE: EventKind.NOT_REPLACED,
}


class Times(NamedTuple):
    """Seconds: how long an import, then a worker's start, may last; and a retiring worker's leave."""

    boot: float
    graceful: float


class Generation(Record):
    number: int
    purpose: Purpose
    wanted: int  # workers, once it serves
    times: Times
    shares: bool  # the template imports for its workers
    proven: bool = False  # a worker of it has become ready
    beside: int = 0  # of its workers so many fit into memory beside those of before; 0 is no limit
    at_first: int = 1  # so many of its workers begin before one of them is ready, where each imports for itself
    early_deaths: int = 0  # of its workers, ready and dead within a moment while it takes over
    unfinished: bool = False  # it was told that the generation has taken over and lost its workers
    one_by_one: bool = False  # a worker was not ready in time: imports at once may only wait for each other
    origin: int = (
        0  # in place of a dead template: the generation whose code and settings it has; 0 where it is the first
    )
    stacks_shown: bool = False  # of a worker that did not become ready in time; the others hang for the same cause
