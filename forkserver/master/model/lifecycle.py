"""The lives of a worker and of a template, as tables one can put a finger on.

It promises that what is not in a table does not happen: such a pair is a bug, or a process that lies, and both names
are said. It refuses to know why anything happens, and when.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final


class State(Enum):
    ORDERED = "ordered"  # the template was told to fork it; no pid yet
    FORKED = "forked"  # the template has named its pid; it has not said anything itself
    STARTING = "starting"
    SERVING = "serving"
    HUNG = "hung"  # a call in it lasts too long, and it has not answered the order to end that
    DEAF = "deaf"  # nor will it: its last words are asked for, then it is killed
    DRAINING = "draining"
    STALLED = "stalled"  # took too long to start: its stacks are asked for, then it is killed
    LEAVING = "leaving"  # told to leave now
    KILLED = "killed"  # SIGKILL is sent; not reaped yet
    GONE = "gone"
    FAILED = "failed"  # gone, and never served: wait before trying again, or a bad deploy spins the CPU
    LOADING = "loading"
    LOADED = "loaded"
    ENDING = "ending"


class Event(Enum):
    FORKED = "Forked"
    FORK_FAILED = "ForkFailed"
    HELLO = "Hello"
    LOADED = "Loaded"
    LOAD_FAILED = "LoadFailed"
    READY = "Ready"
    EXPIRE = "Expire"
    EXPIRING = "Expiring"
    RETIRE = "Retire"
    QUIT = "Quit"
    OVERDUE = "Overdue"
    EXITED = "Exited"


class UnexpectedError(Exception):
    """A state and an event that have no line in the table."""


Table = dict[tuple[State, Event], State]

WORKER: Final[Table] = {
    (State.ORDERED, Event.FORKED): State.FORKED,
    (State.ORDERED, Event.FORK_FAILED): State.GONE,
    (State.ORDERED, Event.HELLO): State.STARTING,
    (State.ORDERED, Event.OVERDUE): State.FAILED,
    (State.ORDERED, Event.EXITED): State.FAILED,
    (State.FORKED, Event.HELLO): State.STARTING,
    (State.FORKED, Event.OVERDUE): State.KILLED,  # its signals are blocked: it could not show its stacks
    (State.FORKED, Event.EXITED): State.FAILED,
    (State.STARTING, Event.FORKED): State.STARTING,  # said before Hello, on another channel, and heard after it
    (State.STARTING, Event.LOADED): State.STARTING,
    (State.STARTING, Event.READY): State.SERVING,
    (State.STARTING, Event.LOAD_FAILED): State.LEAVING,
    (State.STARTING, Event.RETIRE): State.DRAINING,
    (State.STARTING, Event.QUIT): State.LEAVING,
    (State.STARTING, Event.OVERDUE): State.STALLED,
    (State.STARTING, Event.EXITED): State.FAILED,
    (State.STALLED, Event.FORKED): State.STALLED,
    (State.STALLED, Event.LOADED): State.STALLED,
    (State.STALLED, Event.LOAD_FAILED): State.STALLED,
    (State.STALLED, Event.READY): State.STALLED,
    (State.STALLED, Event.QUIT): State.LEAVING,
    (State.STALLED, Event.OVERDUE): State.KILLED,
    (State.STALLED, Event.EXITED): State.GONE,
    (State.SERVING, Event.FORKED): State.SERVING,
    (State.SERVING, Event.EXPIRE): State.HUNG,
    (State.SERVING, Event.RETIRE): State.DRAINING,
    (State.SERVING, Event.QUIT): State.LEAVING,
    (State.SERVING, Event.OVERDUE): State.KILLED,
    (State.SERVING, Event.EXITED): State.GONE,
    (State.HUNG, Event.EXPIRE): State.HUNG,  # a call in another of its threads
    (State.HUNG, Event.EXPIRING): State.DRAINING,
    (State.HUNG, Event.QUIT): State.LEAVING,
    (State.HUNG, Event.OVERDUE): State.DEAF,
    (State.HUNG, Event.EXITED): State.GONE,
    (State.DEAF, Event.EXPIRE): State.DEAF,
    (State.DEAF, Event.EXPIRING): State.DRAINING,
    (State.DEAF, Event.QUIT): State.LEAVING,
    (State.DEAF, Event.OVERDUE): State.KILLED,
    (State.DEAF, Event.EXITED): State.GONE,
    (State.DRAINING, Event.FORKED): State.DRAINING,
    (State.DRAINING, Event.LOADED): State.DRAINING,  # these crossed the order to retire
    (State.DRAINING, Event.LOAD_FAILED): State.DRAINING,
    (State.DRAINING, Event.READY): State.DRAINING,
    (State.DRAINING, Event.EXPIRE): State.DRAINING,
    (State.DRAINING, Event.EXPIRING): State.DRAINING,
    (State.DRAINING, Event.RETIRE): State.DRAINING,  # said again, that nobody is left to hand on to
    (State.DRAINING, Event.QUIT): State.LEAVING,
    (State.DRAINING, Event.OVERDUE): State.KILLED,
    (State.DRAINING, Event.EXITED): State.GONE,
    (State.LEAVING, Event.FORKED): State.LEAVING,
    (State.LEAVING, Event.LOADED): State.LEAVING,
    (State.LEAVING, Event.LOAD_FAILED): State.LEAVING,
    (State.LEAVING, Event.READY): State.LEAVING,
    (State.LEAVING, Event.EXPIRING): State.LEAVING,
    (State.LEAVING, Event.OVERDUE): State.KILLED,
    (State.LEAVING, Event.EXITED): State.GONE,
    (State.KILLED, Event.FORKED): State.KILLED,
    (State.KILLED, Event.HELLO): State.KILLED,
    (State.KILLED, Event.LOADED): State.KILLED,
    (State.KILLED, Event.LOAD_FAILED): State.KILLED,
    (State.KILLED, Event.READY): State.KILLED,
    (State.KILLED, Event.EXPIRING): State.KILLED,
    (State.KILLED, Event.EXITED): State.GONE,
}

TEMPLATE: Final[Table] = {
    (State.LOADING, Event.LOADED): State.LOADED,
    (State.LOADING, Event.LOAD_FAILED): State.ENDING,
    (State.LOADING, Event.RETIRE): State.ENDING,
    (State.LOADING, Event.OVERDUE): State.STALLED,
    (State.LOADING, Event.EXITED): State.GONE,
    (State.STALLED, Event.LOADED): State.STALLED,
    (State.STALLED, Event.LOAD_FAILED): State.STALLED,
    (State.STALLED, Event.RETIRE): State.ENDING,
    (State.STALLED, Event.OVERDUE): State.KILLED,
    (State.STALLED, Event.EXITED): State.GONE,
    (State.LOADED, Event.RETIRE): State.ENDING,
    (State.LOADED, Event.OVERDUE): State.KILLED,
    (State.LOADED, Event.EXITED): State.GONE,
    (State.ENDING, Event.LOADED): State.ENDING,
    (State.ENDING, Event.LOAD_FAILED): State.ENDING,
    (State.ENDING, Event.RETIRE): State.ENDING,  # it has said that it cannot share, which crossed the order to end
    (State.ENDING, Event.OVERDUE): State.KILLED,
    (State.ENDING, Event.EXITED): State.GONE,
    (State.KILLED, Event.LOADED): State.KILLED,
    (State.KILLED, Event.LOAD_FAILED): State.KILLED,
    (State.KILLED, Event.RETIRE): State.KILLED,
    (State.KILLED, Event.EXITED): State.GONE,
}

UNHEARD: Final = (State.ORDERED, State.FORKED)  # nobody there to take an order yet
UNHEARING: Final = (State.HUNG, State.DEAF)
BOOTING: Final = (*UNHEARD, State.STARTING)
PRESENT: Final = (*BOOTING, State.SERVING)  # fills its slot, or is about to
OVER: Final = (State.GONE, State.FAILED)


def following(table: Table, state: State, event: Event) -> State:
    """The state after ``event``. Raises UnexpectedError."""
    try:
        return table[state, event]
    except KeyError:
        raise UnexpectedError(f"{event.value} while {state.value}") from None


@dataclass(eq=False)
class Worker:
    """What the master knows of one worker. ``row`` is its row of the scoreboard, ``pid`` 0 until it is announced.

    ``ready_at`` is when it began to serve, ``spent_at`` when it is to be replaced (``spent_why`` says what for),
    ``leaving`` whether it was told to go, ``leave_by`` how long it may take to retire (its deadline is earlier while it
    must first say that it heard), ``hands_on`` whether it was told that siblings take its connections, and ``sentence``
    why the master has killed it.
    """

    slot: int
    generation: int
    row: int
    deadline: float
    state: State = State.ORDERED
    pid: int = 0
    ready_at: float = math.inf
    spent_at: float = math.inf
    spent_why: str = ""
    leaving: bool = False
    leave_by: float = math.inf
    hands_on: bool = False
    sentence: str = ""

    def __str__(self) -> str:
        return f"worker={self.slot + 1} gen={self.generation} pid={self.pid or '?'}"


@dataclass(eq=False)
class Template:
    """What the master knows of one generation's parent; ``shares`` says whether it imports for its workers."""

    generation: int
    pid: int
    shares: bool
    deadline: float
    state: State = State.LOADING
    loaded_at: float = 0.0

    def __str__(self) -> str:
        return f"template gen={self.generation} pid={self.pid}"


NEVER: Final = math.inf  # a deadline that does not come
