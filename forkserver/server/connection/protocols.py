"""What a connection needs of the loop, the poller and the listener: small Protocols, so that it imports none of them.

A test gives a connection fakes of these, and a fake clock in ``Timeouts``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol

from forkserver.ipc.scoreboard import Row
from forkserver.server.buffers.request_body import StreamedBody
from forkserver.server.connection.timeouts import Timeouts
from forkserver.server.context import ServerContext
from forkserver.server.proxy.proxy_header_reader import ProxyProtocolPolicy
from forkserver.server.threads.loop_lock import LoopLock

if TYPE_CHECKING:
    import ssl

    from forkserver.server.wsgi.accelerator._exchange import Context

UNKNOWN: Final[Any] = ()  # facts that are looked for when something has come to be read


class ConnectionPoller(Protocol):
    """Tells a connection when its socket is ready."""

    def watch_reading(self, connection: Any, target: Callable[[int], object] | None = None) -> None:
        """Call ``target`` (default: ``connection.readable``) whenever there is something to read."""

    def watch_writing(self, connection: Any) -> None:
        """Call ``connection.writable`` whenever the client takes more."""

    def suspend(self, connection: Any) -> None:
        """Report nothing of the connection until it is watched again."""


class Calls(Protocol):
    """Takes whole requests to the application."""

    @property
    def threaded(self) -> bool:
        """Whether application threads serve, beside the thread of the loop."""

    def in_hook(self, name: bytes) -> AbstractContextManager[None]:
        """Around a hook of the application's classes that the loop calls itself: ``timeout`` bounds it as a request."""

    def submit(self, connection: Any, data: bytes | None, /) -> None:
        """Call the application for the request of ``connection``, which is whole.

        ``data`` is what a sibling would have to read for it, None where that is gone.
        """

    def backdate(self, connection: Any, since: float) -> None:
        """The request of ``connection``, which was submitted last, is whole ``since`` then: in another worker."""


class SpoolRoom(Protocol):
    """Makes room in the spool for a request body."""

    def make_spool_room(self, upload: StreamedBody, length: int) -> str | None:
        """Close slow bodies until ``length`` bytes of ``upload`` have room; why they have none, else None."""


class Readers(Protocol):
    """Decides which client is cut off that does not take its answer."""

    waiting: set[Any]

    def must_yield(self, connection: Any, size: int) -> bool:
        """Whether the wait for room for ``size`` bytes ends because other requests wait for the thread."""


class ListenerInfo(Protocol):
    """The listener that has accepted a connection."""

    number: int
    unix: bool
    names: tuple[str, str] | None  # SERVER_NAME and SERVER_PORT, where ``base_environ`` does not have them
    tls: ssl.SSLContext | None
    allowed: ProxyProtocolPolicy | None


class Collecting(Protocol):
    """A set of connections."""

    def add(self, connection: Any, /) -> None: ...


class ConnectionLoop(Protocol):
    """The loop, as a connection sees it."""

    @property
    def context(self) -> ServerContext: ...
    @property
    def timeouts(self) -> Timeouts: ...
    @property
    def poller(self) -> ConnectionPoller: ...
    @property
    def calls(self) -> Calls: ...
    @property
    def eviction(self) -> SpoolRoom: ...
    @property
    def slow_readers(self) -> Readers: ...
    @property
    def loop_lock(self) -> LoopLock: ...
    @property
    def connections(self) -> Collecting:
        """Those that are not closed to their end."""

    @property
    def row(self) -> Row | None: ...
    @property
    def plain(self) -> Context | None:
        """The extension's, where it serves plain requests."""

    @property
    def watched(self) -> bool:
        """Whether an answer is told to the access log or to a hook."""

    @property
    def closing(self) -> bool:
        """Whether no connection outlives its next answer."""

    @property
    def retiring(self) -> bool: ...
    @property
    def forked(self) -> bool:
        """Whether this process is a child of the worker, which the application has forked."""

    @property
    def dozing(self) -> bool:
        """Whether the background driver is to be woken by the next call."""

    def wait_writable(self, fd: int, seconds: float) -> bool:
        """Wait, at most ``seconds``, until ``fd`` takes something or has failed; whether it does."""

    def rouse_driver(self) -> None:
        """A call begins, and the background driver sleeps, or was not started yet."""

    def resume_later(self, connection: Any) -> None:
        """Call ``connection.resume`` in the next turn."""

    def note_unsent(self) -> None:
        """Count the clients that have not taken their whole answer."""

    def note_closable(self) -> None:
        """There is a connection that can be closed to make room."""

    def hand_on(self, connection: Any) -> bool:
        """Let a sibling have a connection that waits for its next request; whether one has it."""

    def leave(self, connection: Any) -> None:
        """Forget a connection that is about to close its socket."""
