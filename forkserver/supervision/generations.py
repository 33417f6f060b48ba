"""What is known of a generation: one loading of the application's code.

It promises plain facts, fixed when the generation begins but for two: whether its import can be shared, and how many
workers it is to have. It refuses to know who runs its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

MARGIN_SECONDS: Final = 10.0  # what a start or a stop may take beyond its own time limits: kills, forks, the last steps


class Purpose(Enum):
    START = "start"
    RELOAD = "reload"
    REPLACE = "replace"


class Times(NamedTuple):
    """Seconds: how long an import, then a worker's start, may last; and a retiring worker's leave."""

    boot: float
    graceful: float


@dataclass
class Generation:
    number: int
    purpose: Purpose
    wanted: int  # workers, once it serves
    times: Times
    shares: bool  # the template imports for its workers
