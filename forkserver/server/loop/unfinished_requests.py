"""The requests that a worker has not finished when its time to retire is over, in words for the log.

A call of the application is named with its age, as the scoreboard has it; any other request by what it waits for. The
request line comes from a client: its query is left out, and it is cut and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from forkserver.ipc.scoreboard import Row
from forkserver.linux.syscalls import monotonic_ns
from forkserver.server.connection.connection import Connection
from forkserver.server.connection.states import BODY, CALLING, DRAINING, READY, UPGRADED

_SHOWN: Final = 5  # connections
_LINE: Final = 100  # characters of a request line
_CALLS: Final = {CALLING: "in the application", UPGRADED: "a WebSocket"}
_WAITS_FOR: Final = {
    DRAINING: "its answer is not taken",
    READY: "it waits for the application",
    BODY: "its body has not come",
}
_ORDER: Final = [*_CALLS, *_WAITS_FOR]


def named(connections: Iterable[Connection], row: Row | None) -> str:
    """The ``connections`` that are in the middle of a request; empty where there is none.

    Longest calls come first, then what is nearest to its end: an answer before a body that has not come.
    """
    busy = [each for each in connections if each.state in _CALLS or each.state in _WAITS_FOR]
    ages = {each: _age(each, row) for each in busy}
    busy.sort(key=lambda each: (-ages[each], _ORDER.index(each.state)))
    shown = [_one(each, ages[each]) for each in busy[:_SHOWN]]
    more = [f"{len(busy) - _SHOWN} more"] if len(busy) > _SHOWN else []
    return "; ".join(shown + more)


def _age(connection: Connection, row: Row | None) -> float:
    """Seconds that the application is busy with it; 0 where it is not."""
    busy = row.busy(connection.thread) if row is not None and connection.state in _CALLS else None
    return (monotonic_ns() - busy.since) / 1e9 if busy is not None else 0.0


def _one(connection: Connection, seconds: float) -> str:
    line = connection.line.partition(b"?")[0].decode("latin-1")
    shown = ascii(line[:_LINE])[1:-1] or "a request in TLS"
    client = connection.peer[0] if connection.peer and connection.peer[0] else "a local client"
    state = connection.state
    how = f"{_CALLS[state]} for {seconds:.1f} s" if state in _CALLS else _WAITS_FOR[state]
    return f"{shown} from {client} ({how})"
