"""Level-triggered epoll: the function to call for each descriptor that is ready, and the way to end the wait.

A descriptor is taken out before it is closed, because a registration lives as long as any process holds the socket.

Source: epoll(7).
"""

from __future__ import annotations

import select
from collections.abc import Callable
from errno import EBADF, ENOENT
from typing import Final, Protocol

from forkserver.server.threads.wakeup import Wakeup

_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT


class Watched(Protocol):
    """A connection."""

    fd: int
    interest: int  # what epoll watches for; 0 while it is not registered

    @property
    def read_mask(self) -> int: ...
    def readable(self, event: int = 0) -> None: ...
    def writable(self, event: int = 0) -> None: ...


class Poller:
    """An epoll set; ``poll(seconds, count)`` gives ``(fd, event)`` pairs, ``targets`` what to call for them."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.poll = self.epoll.poll
        self.targets: dict[int, Callable[[int], object]] = {}
        self.wakeup = Wakeup()
        self.watch(self.wakeup.fileno(), self.wakeup.clear)
        self.wake = self.wakeup.notify  # from any thread: end the wait; does nothing after ``close``

    def fileno(self) -> int:
        """Readable when something is to be done."""
        return self.epoll.fileno()

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever ``fd`` is readable."""
        self.register(fd, _READ, lambda _event: callback())

    def register(self, fd: int, mask: int, target: Callable[[int], object]) -> None:
        """Call ``target(event)`` at the events of ``mask``. What it raises has left nothing registered."""
        self.targets[fd] = target
        try:
            self.epoll.register(fd, mask)
        except BaseException:
            self.unwatch(fd)
            raise

    def register_anew(self, fd: int, mask: int) -> None:
        """Go on as before, at the end of the queue of the processes that ``fd`` wakes."""
        self.epoll.unregister(fd)
        self.epoll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Forget a watched descriptor, before it is closed."""
        if self.targets.pop(fd, None) is not None:
            self._unregister(fd)

    def _unregister(self, fd: int) -> None:
        try:
            self.epoll.unregister(fd)
        except OSError as error:  # the application has closed the number, or an exception came right behind this call
            if error.errno not in (EBADF, ENOENT):
                raise

    def watch_reading(self, connection: Watched, target: Callable[[int], object] | None = None) -> None:
        """Call ``target`` (default: ``connection.readable``) whenever there is something to read."""
        self.targets[connection.fd] = target or connection.readable
        self._set_interest(connection, connection.read_mask)

    def watch_writing(self, connection: Watched) -> None:
        """Call ``connection.writable`` whenever the client takes more."""
        self.targets[connection.fd] = connection.writable
        self._set_interest(connection, _WRITE)

    def _set_interest(self, connection: Watched, mask: int) -> None:
        if not connection.interest:
            self.epoll.register(connection.fd, mask)
        elif connection.interest != mask:
            self.epoll.modify(connection.fd, mask)
        connection.interest = mask

    def suspend(self, connection: Watched) -> None:
        """Report nothing of a connection: before it is closed, or while another thread has it."""
        if connection.interest:  # else its number may be another connection's by now
            self.targets.pop(connection.fd, None)
            self._unregister(connection.fd)
            connection.interest = 0

    def close(self) -> None:
        """Give the descriptors back."""
        self.epoll.close()
        self.wakeup.close()

    def forget(self) -> None:
        """In a forked child: close its copies, and leave the set itself to the parent."""
        self.targets = {}
        self.epoll.close()
        self.wakeup.forget()
