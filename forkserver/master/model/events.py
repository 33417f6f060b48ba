"""The turning points that the operator is told about, and why something did not start.

It promises one word for each kind. It refuses to know how they are told.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class EventKind(Enum):
    READY = "for the first time every slot is served, or its worker has failed, and at least one serves"
    SERVES = "no answer can come from an older generation any more"
    REFUSED = "it does not load; nothing that serves was touched"
    NOT_REPLACED = "a dead template's successor does not load; who lives serves on"
    GOING_BACK = "a worker of it did not start; the slots it has taken go back"
    WENT_BACK = "a worker of it did not start, and nothing of it is left"
    NEVER_STARTED = "the very first one does not load"
    MIXED = "a worker of it did not start, and others of it serve on: what was before them cannot be brought back"
    COSTLY = "it has taken over, and the kernel has killed a worker of before for memory, which had not left yet"
    FILES_CHANGED = "no other code has taken over, and a new worker would load the files on disk"
    TEMPLATE_DIED = "the template of the generation that serves has died"


class Failure(NamedTuple):
    """Why something did not start: a sentence, a traceback, and what a first start ends with."""

    reason: str
    details: str = ""
    exit_status: int = 3


class Event(NamedTuple):
    """A turning point of ``generation``; ``why`` has no reason where things went well."""

    kind: EventKind
    generation: int
    why: Failure
