"""Parts of a worker's event loop without sockets: each notes what it was asked for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
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


class FakeSocket:
    """A connected, non-blocking stream socket: its client has sent ``incoming``, and takes ``room`` bytes."""

    family = socket.AF_INET

    def __init__(self, incoming: bytes = b"", room: int = 1 << 30) -> None:
        self.incoming = bytearray(incoming)
        self.ended = False  # the client sends nothing more
        self.failed = False  # the client has gone
        self.room = room
        self.sent = bytearray()
        self.sends = 0  # calls that have sent something
        self.shut: list[int] = []
        self.closed = False
        self.timeout: float | None = 0.0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self._check()
        if not self.incoming and not self.ended:
            raise BlockingIOError
        data = bytes(self.incoming[:size])
        if not flags & socket.MSG_PEEK:
            del self.incoming[: len(data)]
        return data

    def send(self, data: Any) -> int:
        return self.sendmsg((data,))

    def sendmsg(self, buffers: Iterable[Any]) -> int:
        self._check()
        data = b"".join(buffers)[: self.room]
        if not data and self.room <= 0:
            raise BlockingIOError
        self.room -= len(data)
        self.sent += data
        self.sends += 1
        return len(data)

    def shutdown(self, how: int) -> None:
        self._check()
        self.shut.append(how)

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1 if self.closed else id(self)

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, value: float | None) -> None:
        self.timeout = value

    def _check(self) -> None:
        if self.failed or self.closed:
            raise ConnectionResetError
