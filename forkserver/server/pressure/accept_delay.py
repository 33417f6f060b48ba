"""How long connections have waited in the kernel to be accepted, with a request that they had sent.

A worker accepts nothing while its only thread is in a call of the application. The first request of a connection that
came meanwhile has waited since it arrived, not since it was read. The kernel knows when a TCP connection has last
received data, which is one system call to ask. So it is asked at intervals, and of each connection as long as they
wait: the queue is a FIFO, in which waits grow and shrink by degrees. What a connection has waited is never taken for
longer than it was, but for a tick of the kernel's clock. Of Unix sockets the kernel tells nothing of the kind.

Source: tcp(7) on TCP_INFO, ``tcpi_last_data_recv``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Protocol

from forkserver.linux.sockets.receive_queue import waiting_seconds

_INTERVAL: Final = 0.05  # seconds between two looks while nothing waits; by so much a wait may grow unseen
_LEAST: Final = 0.01  # seconds; shorter waits are a tick of the kernel's clock, or the usual turn


class NewConnection(Protocol):
    """A connection from which nothing was read yet."""

    fd: int
    backlog_seconds: float


class AcceptDelay:
    """Looks at connections that were accepted a moment ago; the next one from ``look_at`` on (CLOCK_MONOTONIC)."""

    __slots__ = ("look_at",)

    def __init__(self) -> None:
        self.look_at = 0.0

    def measure(self, connection: NewConnection, now: float) -> None:
        """Note how long ``connection``, of a TCP listener, has waited to be accepted ``now``."""
        seconds = 0.0
        with suppress(OSError):  # a sandbox does not let us ask; what reads a broken connection hears of it
            seconds = waiting_seconds(connection.fd)
        if seconds < _LEAST:
            self.look_at = now + _INTERVAL
        else:
            connection.backlog_seconds = seconds
            self.look_at = now
