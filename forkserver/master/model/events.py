"""The events of generations that the operator is told about, and why something did not start.

The model (transitions.py, rollout.py) makes them; the reporter turns them into log lines and status.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from forkserver.linux.common.records import NamedTuple

# Values that an upgrade carries and that had another text in an earlier version.
_RENAMED: Final = {
    "a dead template's successor does not load; who lives serves on": (
        "the template in place of a dead one does not load; living workers serve on"
    ),
}


class EventKind(Enum):
    READY = "for the first time every slot is served, or its worker has failed, and at least one serves"
    SERVES = "no answer can come from an older generation any more"
    REFUSED = "it does not load; nothing that serves was touched"
    NOT_REPLACED = "the template in place of a dead one does not load; living workers serve on"
    GOING_BACK = "a worker of it did not start; the slots it has taken go back"
    WENT_BACK = "a worker of it did not start, and nothing of it is left"
    NEVER_STARTED = "the very first one does not load"
    NONE_LEFT = "no worker serves, and the files on disk, whose reload has failed, do not load"
    MIXED = "a worker of it did not start, and others of it serve on: what was before them cannot be brought back"
    COSTLY = "it has taken over, and the kernel has killed a worker of before for memory, which had not left yet"
    FILES_CHANGED = "no other code has taken over, and a new worker would load the files on disk"
    TEMPLATE_DIED = "the template of the generation that serves has died"

    @classmethod
    def _missing_(cls, value: object) -> EventKind | None:
        now = _RENAMED.get(str(value))
        return cls(now) if now else None


class Failure(NamedTuple):
    """Why something did not start: a sentence, a traceback, and what a first start ends with."""

    reason: str
    details: str = ""
    exit_status: int = 3


class Event(NamedTuple):
    """An event of ``generation``; ``why`` has no reason where things went well."""

    kind: EventKind
    generation: int
    why: Failure
