"""Connections for the extension alone: an object that has the slots of one, and all that a loop does with it there."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from forkserver.server.connection.lifecycle import OpenConnection
from harness.plain_calls import FACTS, PlainCalls

READING, READY, CALLING = "reading", "ready", "calling"
STATES = READING, READY, CALLING
SLOTS = OpenConnection.__slots__
NOW = 100.0


class SlottedConnection:
    """Notes what it is called with."""

    __slots__ = (*SLOTS, "calls")
    read_mask = select.EPOLLIN
    calls: list[tuple[object, ...]]

    def __init__(self, fd: int, resting: object) -> None:
        for name in SLOTS:
            setattr(self, name, None)
        self.calls = []
        made: dict[str, Any] = {
            "fd": fd, "state": READING, "facts": FACTS, "buffer": b"", "queued": False, "stays": False, "thread": 7,
            "backlog_seconds": 0.0, "persistent": False, "interest": self.read_mask, "queue": resting,
            "parked_at": NOW,
        }  # fmt: skip
        for name, value in made.items():
            setattr(self, name, value)

    def readable(self, event: int = 0) -> None:
        self.calls.append(("readable", event))

    def receive(self, data: bytes) -> None:
        self.calls.append(("receive", data))

    def conclude(self, request: object, outcome: object, error: object) -> None:
        self.calls.append(("conclude", request, outcome, error))


DESCRIPTORS = {name: vars(SlottedConnection)[name] for name in SLOTS}


class PlainConnections(PlainCalls):
    """Connections to one client each, and the deque in which their requests wait."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts = SimpleNamespace(clock=lambda: NOW + 0.5, now=0.0, resting=object(), park_seconds=1.0)
        self.waiting: deque[Any] = deque()
        self.targets: dict[int, Any] = {}
        self.submitted: list[tuple[Any, bytes]] = []
        self.faults: list[tuple[Any, BaseException]] = []
        self.unended: dict[int, str] = {}
        self.loop.handle_fault = lambda owner, error: self.faults.append((owner, error))
        self._sockets: list[socket.socket] = []
        self.attach()

    def attach(self) -> None:
        self.context.attach(SlottedConnection, DESCRIPTORS, STATES, self.timeouts, self.submit, self.unended)

    def submit(self, connection: Any, raw: bytes) -> None:
        self.submitted.append((connection, raw))

    def connect(self, *sent: bytes, connection_class: type[SlottedConnection] = SlottedConnection) -> Any:
        """One that is watched for reading, and whose client has sent something."""
        ours, client = socket.socketpair()
        self._sockets += ours, client
        client.setblocking(False)
        for data in sent:
            client.sendall(data)
        made: Any = connection_class(ours.fileno(), self.timeouts.resting)
        self.targets[made.fd] = made.readable
        return made

    def client_of(self, connection: Any) -> socket.socket:
        """The client's end of it."""
        number = next(at for at, each in enumerate(self._sockets) if each.fileno() == connection.fd)
        return self._sockets[number + 1]

    def receive(self, *connections: Any, pool: bool = False) -> Any:
        """What is left to do where all of them are ready."""
        events = [(each.fd, select.EPOLLIN) for each in connections]
        return self.context.receive_all(events, self.targets, None if pool else self.waiting, NOW)

    def serve_again(
        self, connection: Any, head: bytes, app: Any, begin: Callable[[], object] = int, end: Callable[[], object] = int
    ) -> list[object]:
        """Ask as the client of ``connection``, receive, serve, and have it read again, whatever became of it.

        ``begin`` and ``end`` are called around what the extension does. Gives the faults that it has told.
        """
        client, targets, waiting = self.client_of(connection), self.targets, self.waiting
        receive_all, serve = self.context.receive_all, self.context.serve
        client.sendall(head)
        events = [(connection.fd, select.EPOLLIN)]
        try:
            begin()
            receive_all(events, targets, waiting, NOW)
            serve(connection, app, 0)
        finally:
            end()
            told = [error for _, error in self.faults] + [call[-1] for call in connection.calls]
            if connection.head is not None:
                connection.head.finish()
            connection.state, connection.head, connection.exchange = READING, None, None
            for kept in (self.waiting, self.faults, connection.calls):
                kept.clear()
            with suppress(BlockingIOError):
                while client.recv(1 << 20):
                    continue
            with suppress(BlockingIOError):  # where the request was not read
                socket_of = self._sockets[self._sockets.index(client) - 1]
                while socket_of.recv(1 << 20, socket.MSG_DONTWAIT):
                    continue
        return told

    def close(self) -> None:
        super().close()
        for each in self._sockets:
            each.close()


def made() -> Iterator[PlainConnections]:
    """Some, closed at the end."""
    connections = PlainConnections()
    yield connections
    connections.close()
