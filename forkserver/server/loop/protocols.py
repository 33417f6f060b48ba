"""The event loop, as the parts of it in this folder see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from forkserver.server.connection.connection import Connection
from forkserver.server.connection.protocols import ConnectionLoop
from forkserver.server.handoff.balancer import Balancer
from forkserver.server.loop.poller import Poller
from forkserver.server.loop.recycling import Recycling
from forkserver.server.pressure.eviction import Eviction


class WaitingCalls(Protocol):
    """The requests that wait for the application."""

    waiting: deque[Any]
    seconds: float  # that a request may wait: queue_timeout

    @property
    def recycling(self) -> Recycling: ...
    @property
    def threaded(self) -> bool: ...
    @property
    def next_look(self) -> float: ...
    def in_hook(self, name: bytes) -> AbstractContextManager[None]: ...
    def turn_down_late(self) -> None: ...
    def submit(self, connection: Any, data: bytes | None, /) -> None: ...
    def backdate(self, connection: Any, since: float) -> None: ...


class PausingAcceptor(Protocol):
    """What accepts connections."""

    @property
    def paused(self) -> bool: ...
    def start(self) -> None: ...


class WorkerLoop(ConnectionLoop, Protocol):
    """One worker's loop."""

    connections: set[Connection]
    handler_sockets: set[Any]
    forked: bool
    tended: bool
    closing: bool
    retiring: bool

    @property
    def poller(self) -> Poller: ...
    @property
    def calls(self) -> WaitingCalls: ...
    @property
    def balancer(self) -> Balancer | None: ...
    @property
    def eviction(self) -> Eviction: ...
    @property
    def acceptor(self) -> PausingAcceptor: ...

    def guard(self, connection: Connection, step: Callable[..., object], *args: object) -> None:
        """Do ``step``; a fault in it costs ``connection`` and nothing else."""

    def handle_fault(self, owner: object, error: BaseException) -> None:
        """A fault outside the application's call has cost the connection ``owner``."""

    def enter(self, connection: Connection) -> None:
        """Keep a new connection."""

    def end_tending(self) -> None:
        """The call is over during which the background driver turned the loop."""

    def resume_accepting_after(self, seconds: float) -> None:
        """Try accepting again then, or earlier when a connection closes."""

    def clients_wait(self) -> bool:
        """Whether a client waits to be accepted."""
