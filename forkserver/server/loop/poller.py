"""Who hears of which descriptor: level-triggered epoll, and the way to wake who sleeps in it.

It promises that a descriptor is forgotten before it is closed, while other processes hold the same socket. It refuses
to know what is ready for whom.

Source: epoll(7).
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from forkserver.server.threads.wakeup import Wakeup

if TYPE_CHECKING:
    from forkserver.server.connection.connection import Connection

_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT


class Poller:
    """An epoll set, and whom to call at each descriptor's events."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._targets: dict[int, Callable[[int], object]] = {}
        self._wakeup = Wakeup()
        self.watch(self._wakeup.fileno(), self._wakeup.clear)

    def fileno(self) -> int:
        """Readable when something is to be dealt with."""
        return self._epoll.fileno()

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever ``fd`` is readable."""
        self.register(fd, _READ, lambda _event: callback())

    def register(self, fd: int, mask: int, target: Callable[[int], object]) -> None:
        """Call ``target(event)`` at the events of ``mask``."""
        self._epoll.register(fd, mask)
        self._targets[fd] = target

    def register_anew(self, fd: int, mask: int) -> None:
        """Go on as before, at the end of the queue of those who are woken by ``fd``."""
        self._epoll.unregister(fd)
        self._epoll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Forget a watched descriptor, before it is closed."""
        if self._targets.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watch_reading(self, connection: Connection, target: Callable[[int], object] | None = None) -> None:
        """Call ``target`` (default: ``connection.readable``) whenever there is something to read."""
        self._targets[connection.fd] = target or connection.readable
        self._set_interest(connection, connection.read_mask)

    def watch_writing(self, connection: Connection) -> None:
        """Call ``connection.writable`` whenever the client takes more."""
        self._targets[connection.fd] = connection.writable
        self._set_interest(connection, _WRITE)

    def _set_interest(self, connection: Connection, mask: int) -> None:
        if not connection.interest:
            self._epoll.register(connection.fd, mask)
        elif connection.interest != mask:
            self._epoll.modify(connection.fd, mask)
        connection.interest = mask

    def suspend(self, connection: Connection) -> None:
        """Hear nothing of a connection: before it is closed, or while another thread has it.

        Before the close: a registration lives as long as any process holds the socket (epoll(7)).
        """
        if connection.interest:  # else its number may be another connection's by now
            self._epoll.unregister(connection.fd)
            connection.interest = 0
            self._targets.pop(connection.fd, None)

    def wake(self) -> None:
        """From any thread: end the wait. Does nothing after ``end_watch``."""
        self._wakeup.notify()

    def end_watch(self) -> None:
        """Give the descriptors back."""
        self._epoll.close()
        self._wakeup.close()

    def forget_watch(self) -> None:
        """In a forked child: close its copies, and leave the set itself to the parent."""
        self._targets = {}
        self._epoll.close()
        self._wakeup.forget()
