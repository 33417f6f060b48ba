"""Sink: what a WSGI response is sent to, and ClientGoneError, by which it says that nothing more can be sent.

A response makes bytes and knows no socket. A sink sends them, keeps them or waits, as it can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Protocol

from forkserver.server.threads.loop_lock import LoopLock


class ClientGoneError(Exception):
    """The client closed the connection, or took nothing for too long, before the answer was through.

    ``unsent`` is how many bytes of what was to be sent just now were neither sent nor kept.
    """

    def __init__(self, unsent: int = 0) -> None:
        super().__init__()
        self.unsent = unsent


class Sink(Protocol):
    """Where a response goes. Its ``loop_lock`` is held whenever one of its methods is called."""

    @property
    def loop_lock(self) -> LoopLock:
        """Given up around the application's code."""

    @property
    def worker(self) -> bool:
        """Whether this is one process of several under a master."""

    def send(self, data: bytes, body: bytes = b"") -> None:
        """Take ``data`` and ``body``, all of both. Raises ClientGoneError."""

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        """Take ``head`` and ``count`` bytes of ``file``; ``close`` is called when they are sent, or cannot be."""

    def report(self, message: str, error: BaseException | None = None) -> None:
        """Tell the operator of the application's fault."""

    def fail(self, status: int) -> int:
        """Answer ``status`` in place of a response of which nothing was sent; gives the bytes of the body.

        Raises ClientGoneError.
        """

    def renew(self) -> None:
        """The application has yielded something: its deadline counts from now, or up to RENEWAL_SECONDS later."""

    def abort(self) -> None:
        """Cut the connection so that the client can tell that the answer is not whole."""

    def delimit_by_close(self) -> None:
        """The end of the connection is the body's end: until the body is whole, every other end must be a reset."""
