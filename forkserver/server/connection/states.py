"""The states of a connection, and which state may follow which.

``NEXT`` is the whole state machine: the tests check each change of state against it. Only ``connection/`` and
``blocking/`` change a state.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class ConnectionState(Enum):
    """What a connection waits for."""

    READING = "waits for a request head; idle while nothing of it has arrived"
    BODY = "collects the body of a request"
    READY = "has a whole request, which waits for the application"
    CALLING = "the application has the request"
    UPGRADED = "the application has the socket itself, for WebSocket"
    DRAINING = "the client has not taken the whole answer yet"
    LINGERING = "the answer is sent and the writing side shut; what the client still sends is dropped"
    CLOSED = "the socket is closed"


READING: Final = ConnectionState.READING
BODY: Final = ConnectionState.BODY
READY: Final = ConnectionState.READY
CALLING: Final = ConnectionState.CALLING
UPGRADED: Final = ConnectionState.UPGRADED
DRAINING: Final = ConnectionState.DRAINING
LINGERING: Final = ConnectionState.LINGERING
CLOSED: Final = ConnectionState.CLOSED

# A refused request goes to LINGERING, or first to DRAINING where the client does not take the error page at once.
NEXT: Final[dict[ConnectionState, frozenset[ConnectionState]]] = {
    READING: frozenset((BODY, READY, DRAINING, LINGERING, CLOSED)),
    BODY: frozenset((READY, DRAINING, LINGERING, CLOSED)),
    READY: frozenset((CALLING, CLOSED)),
    CALLING: frozenset((READING, UPGRADED, DRAINING, LINGERING, CLOSED)),
    UPGRADED: frozenset((LINGERING, CLOSED)),
    DRAINING: frozenset((READING, LINGERING, CLOSED)),
    LINGERING: frozenset((CLOSED,)),
    CLOSED: frozenset(),
}
