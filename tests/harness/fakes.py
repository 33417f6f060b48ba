"""Parts of a worker's event loop without sockets: each notes what it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class FakeClock:
    """Seconds of CLOCK_MONOTONIC, which the test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakePoller:
    """Notes what is watched; a test calls the targets."""

    def __init__(self) -> None:
        self.reading: dict[Any, Callable[[int], object]] = {}
        self.writing: set[Any] = set()
        self.targets: dict[int, Callable[[int], object]] = {}

    def watch_reading(self, connection: Any, target: Callable[[int], object] | None = None) -> None:
        self.writing.discard(connection)
        self.reading[connection] = target or connection.readable
        connection.interest = connection.read_mask

    def watch_writing(self, connection: Any) -> None:
        self.reading.pop(connection, None)
        self.writing.add(connection)
        connection.interest = 4  # EPOLLOUT

    def suspend(self, connection: Any) -> None:
        self.reading.pop(connection, None)
        self.writing.discard(connection)
        connection.interest = 0

    def register(self, fd: int, mask: int, target: Callable[[int], object]) -> None:
        assert fd not in self.targets, "epoll_ctl(2) would say EEXIST"
        self.targets[fd] = target

    def unwatch(self, fd: int) -> None:
        self.targets.pop(fd, None)
