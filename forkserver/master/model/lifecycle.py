"""States of workers and templates, and the tables of their transitions.

``following`` looks up the state after a transition. A pair that is not in the table is a bug, or a process that lies:
UnexpectedError names both. ``Worker`` and ``Template`` are the master's records of one process each.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from forkserver.linux.common.records import Record


class State(Enum):
    ORDERED = "ordered"  # the template was told to fork it; no pid yet
    FORKED = "forked"  # the template has named its pid; it has not said anything itself
    STARTING = "starting"
    SERVING = "serving"
    HUNG = "hung"  # a call in it lasts too long, and it has not answered the order to end that
    DEAF = "deaf"  # it did not react in time: its stacks are asked for, then it is killed
    DRAINING = "draining"
    STALLED = "stalled"  # took too long to start: its stacks are asked for, then it is killed
    LEAVING = "leaving"  # told to leave now
    KILLED = "killed"  # SIGKILL is sent; not reaped yet, nor given up
    GONE = "gone"
    FAILED = "failed"  # gone, and never served: wait before trying again, or a bad deploy spins the CPU
    LOADING = "loading"
    LOADED = "loaded"
    ENDING = "ending"


class Transition(Enum):
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


Table = dict[tuple[State, Transition], State]

WORKER: Final[Table] = {
    (State.ORDERED, Transition.FORKED): State.FORKED,
    (State.ORDERED, Transition.FORK_FAILED): State.GONE,
    (State.ORDERED, Transition.HELLO): State.STARTING,
    (State.ORDERED, Transition.OVERDUE): State.FAILED,
    (State.ORDERED, Transition.EXITED): State.FAILED,
    (State.FORKED, Transition.HELLO): State.STARTING,
    (State.FORKED, Transition.OVERDUE): State.KILLED,  # its signals are blocked: it could not show its stacks
    (State.FORKED, Transition.EXITED): State.FAILED,
    (State.STARTING, Transition.FORKED): State.STARTING,  # sent before Hello, on another channel, and read after it
    (State.STARTING, Transition.LOADED): State.STARTING,
    (State.STARTING, Transition.READY): State.SERVING,
    (State.STARTING, Transition.LOAD_FAILED): State.LEAVING,
    (State.STARTING, Transition.RETIRE): State.DRAINING,
    (State.STARTING, Transition.QUIT): State.LEAVING,
    (State.STARTING, Transition.OVERDUE): State.STALLED,
    (State.STARTING, Transition.EXITED): State.FAILED,
    (State.STALLED, Transition.FORKED): State.STALLED,
    (State.STALLED, Transition.LOADED): State.STALLED,
    (State.STALLED, Transition.LOAD_FAILED): State.STALLED,
    (State.STALLED, Transition.READY): State.STALLED,
    (State.STALLED, Transition.QUIT): State.LEAVING,
    (State.STALLED, Transition.OVERDUE): State.KILLED,
    (State.STALLED, Transition.EXITED): State.GONE,
    (State.SERVING, Transition.FORKED): State.SERVING,
    (State.SERVING, Transition.EXPIRE): State.HUNG,
    (State.SERVING, Transition.RETIRE): State.DRAINING,
    (State.SERVING, Transition.QUIT): State.LEAVING,
    (State.SERVING, Transition.OVERDUE): State.KILLED,
    (State.SERVING, Transition.EXITED): State.GONE,
    (State.HUNG, Transition.EXPIRE): State.HUNG,  # a call in another of its threads
    (State.HUNG, Transition.EXPIRING): State.DRAINING,
    (State.HUNG, Transition.QUIT): State.LEAVING,
    (State.HUNG, Transition.OVERDUE): State.DEAF,
    (State.HUNG, Transition.EXITED): State.GONE,
    (State.DEAF, Transition.EXPIRE): State.DEAF,
    (State.DEAF, Transition.EXPIRING): State.DRAINING,
    (State.DEAF, Transition.QUIT): State.LEAVING,
    (State.DEAF, Transition.OVERDUE): State.KILLED,
    (State.DEAF, Transition.EXITED): State.GONE,
    (State.DRAINING, Transition.FORKED): State.DRAINING,
    (State.DRAINING, Transition.LOADED): State.DRAINING,  # these crossed the order to retire
    (State.DRAINING, Transition.LOAD_FAILED): State.DRAINING,
    (State.DRAINING, Transition.READY): State.DRAINING,
    (State.DRAINING, Transition.EXPIRE): State.DRAINING,
    (State.DRAINING, Transition.EXPIRING): State.DRAINING,
    (State.DRAINING, Transition.RETIRE): State.DRAINING,  # said again: no sibling is left to take its connections
    (State.DRAINING, Transition.QUIT): State.LEAVING,
    (State.DRAINING, Transition.OVERDUE): State.KILLED,
    (State.DRAINING, Transition.EXITED): State.GONE,
    (State.LEAVING, Transition.FORKED): State.LEAVING,
    (State.LEAVING, Transition.LOADED): State.LEAVING,
    (State.LEAVING, Transition.LOAD_FAILED): State.LEAVING,
    (State.LEAVING, Transition.READY): State.LEAVING,
    (State.LEAVING, Transition.EXPIRING): State.LEAVING,
    (State.LEAVING, Transition.OVERDUE): State.KILLED,
    (State.LEAVING, Transition.EXITED): State.GONE,
    (State.KILLED, Transition.FORKED): State.KILLED,
    (State.KILLED, Transition.HELLO): State.KILLED,
    (State.KILLED, Transition.LOADED): State.KILLED,
    (State.KILLED, Transition.LOAD_FAILED): State.KILLED,
    (State.KILLED, Transition.READY): State.KILLED,
    (State.KILLED, Transition.EXPIRING): State.KILLED,
    (State.KILLED, Transition.EXITED): State.GONE,
}

TEMPLATE: Final[Table] = {
    (State.LOADING, Transition.LOADED): State.LOADED,
    (State.LOADING, Transition.LOAD_FAILED): State.ENDING,
    (State.LOADING, Transition.RETIRE): State.ENDING,
    (State.LOADING, Transition.OVERDUE): State.STALLED,
    (State.LOADING, Transition.EXITED): State.GONE,
    (State.STALLED, Transition.LOADED): State.STALLED,
    (State.STALLED, Transition.LOAD_FAILED): State.STALLED,
    (State.STALLED, Transition.RETIRE): State.ENDING,
    (State.STALLED, Transition.OVERDUE): State.KILLED,
    (State.STALLED, Transition.EXITED): State.GONE,
    (State.LOADED, Transition.RETIRE): State.ENDING,
    (State.LOADED, Transition.OVERDUE): State.KILLED,
    (State.LOADED, Transition.EXITED): State.GONE,
    (State.ENDING, Transition.LOADED): State.ENDING,
    (State.ENDING, Transition.LOAD_FAILED): State.ENDING,
    (State.ENDING, Transition.RETIRE): State.ENDING,  # it has said that it cannot share, which crossed the order to end
    (State.ENDING, Transition.OVERDUE): State.KILLED,
    (State.ENDING, Transition.EXITED): State.GONE,
    (State.KILLED, Transition.LOADED): State.KILLED,
    (State.KILLED, Transition.LOAD_FAILED): State.KILLED,
    (State.KILLED, Transition.RETIRE): State.KILLED,
    (State.KILLED, Transition.EXITED): State.GONE,
}

UNHEARD: Final = (State.ORDERED, State.FORKED)  # no process there that reads orders yet
UNHEARING: Final = (State.HUNG, State.DEAF)
BOOTING: Final = (*UNHEARD, State.STARTING)
PRESENT: Final = (*BOOTING, State.SERVING)  # fills its slot, or is about to
OVER: Final = (State.GONE, State.FAILED)


def following(table: Table, state: State, event: Transition) -> State:
    """The state after ``event``. Raises UnexpectedError."""
    try:
        return table[state, event]
    except KeyError:
        raise UnexpectedError(f"{event.value} while {state.value}") from None


class Worker(Record):
    """What the master knows of one worker. ``row`` is its row of the scoreboard, ``pid`` 0 until it is announced.

    ``ready_at`` is when it began to serve, ``recycle_at`` when it is to be replaced (``recycle_why`` says what for),
    ``leaving`` whether it was told to go, ``leave_by`` how long it may take to retire (its deadline is earlier while it
    must first say that it heard), ``hands_on`` whether it was told that siblings take its connections, and ``sentence``
    why the master has killed it. ``in_debugger`` says that a person uses a debugger in one of its calls.
    """

    slot: int
    generation: int
    row: int
    deadline: float
    state: State = State.ORDERED
    pid: int = 0
    ready_at: float = math.inf
    recycle_at: float = math.inf
    recycle_why: str = ""
    leaving: bool = False
    leave_by: float = math.inf
    hands_on: bool = False
    sentence: str = ""
    in_debugger: bool = False

    def __str__(self) -> str:
        return f"worker={self.slot + 1} gen={self.generation} pid={self.pid or '?'}"


class Template(Record):
    """What the master knows of one generation's parent; ``shares`` says whether it imports for its workers.

    ``stopped`` says that a signal (SIGSTOP) has stopped it.
    """

    generation: int
    pid: int
    shares: bool
    deadline: float
    state: State = State.LOADING
    loaded_at: float = 0.0
    stopped: bool = False

    def __str__(self) -> str:
        return f"template gen={self.generation} pid={self.pid}"


Process = Template | Worker
NEVER: Final = math.inf  # a deadline that does not come
