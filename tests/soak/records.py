"""What the books of a soak keep: requests and their outcomes, calls, deaths of workers, and times of want."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

SETTLE_SECONDS: Final = 3.0  # after the end of a request: by then the journal is read and the log has come
SLACK_SECONDS: Final = 1.0  # between an event and when a client, or the reader of the log, has seen it


class Outcome(Enum):
    OPEN = "not answered yet"
    RIGHT = "answered rightly"
    WRONG = "answered wrongly"
    REFUSED = "refused with a status"
    CUT = "cut"
    TURNED_AWAY = "not asked again after Connection: close"
    VANISHED = "its client vanished"


class Loss(Enum):
    NAMED = "in a killed worker's call, named by the log"
    UNSENT = "its answer was unsent when its worker was killed"
    PARKED = "parked connections cut by a kill"
    OVERDUE = "not taken by the end of graceful_timeout, told by the log"
    CROWDED = "idle connections closed for want of room"
    REFUSED_504 = "504 after timeout"
    REFUSED_503 = "503 for want of room"
    REFUSED_408 = "408 for want of room"
    NAMED_408 = "closed for want of room while it was sent, named by the log"


@dataclass(slots=True)
class Request:
    """``connected`` and ``asked`` are times; ``floor`` is the oldest generation that may still answer it."""

    number: int
    kind: str
    path: str
    connected: float
    earlier: int  # answers on the same connection
    asked: float
    floor: int
    ended: float = 0.0
    outcome: Outcome = Outcome.OPEN
    what: str = ""
    pid: int = 0
    judged: bool = False


class Call(NamedTuple):
    pid: int
    at: float


@dataclass(slots=True)
class Death:
    """A worker that died by SIGKILL. ``killed`` is when, ``said`` when its line in the log came (0.0: not yet)."""

    pid: int
    killed: float
    said: float = 0.0
    line: str = ""
    losses: list[Request] = field(default_factory=list)
    parked: set[float] = field(default_factory=set)  # connections that only this death explains, by their time

    @property
    def strict(self) -> bool:
        """Whether the line says what the worker was doing."""
        return "sent by" in self.line or "it was serving" in self.line or "held " in self.line

    @property
    def named(self) -> set[int]:
        return {int(number) for number in re.findall(r"\w+ /\w+/(\d+)/", self.line)}

    def count(self, pattern: str) -> int:
        found = re.search(rf"(\d+) {pattern}", self.line)
        return int(found[1]) if found else 0

    def covers(self, call: Call, moment: float) -> bool:
        """Whether a call of this pid that was cut at ``moment`` may have ended with this death: pids come again."""
        return call.at < (self.said or moment) and self.killed - SLACK_SECONDS <= moment

    def explains(self, moment: float) -> bool:
        until = self.said or self.killed + SETTLE_SECONDS
        return self.killed - SLACK_SECONDS <= moment <= until + SLACK_SECONDS


@dataclass
class Window:
    """A time in which connections may be refused or closed for want of room; ``until`` 0.0 while it lasts."""

    since: float
    until: float = 0.0

    def holds(self, moment: float) -> bool:
        return self.since <= moment and (not self.until or moment <= self.until + SETTLE_SECONDS)


class Failure(NamedTuple):
    at: float
    text: str
