"""Descriptors that connections leave to the application, and what is done where accept(2) finds none.

Where the worker's own limit of descriptors is reached (EMFILE), each client that waits gets the place of a connection
that is closed for it. By then connections have taken what they are to leave to the application, too, so each that is
accepted costs one more until the application has that again. Where none may be closed, as each has a request that
waits, none is accepted until one has closed or come to rest: the kernel's queue keeps the others. What the
machine has run short of (files, memory) any process may take as soon as we let go of it, so then one idle connection
is closed, and if that did not help, none for ``RETRY_SECONDS``.

Source: accept(2), getrlimit(2).
"""

from __future__ import annotations

import select
import sys
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Final

from forkserver.linux import descriptor_limit, syscalls
from forkserver.server.loop.protocols import WorkerLoop
from forkserver.server.pressure.eviction import Shortage

RETRY_SECONDS: Final = 1.0  # accepting paused for want of descriptors or memory tries again
EXHAUSTED: Final = frozenset((EMFILE, ENFILE, ENOBUFS, ENOMEM))
_OF_THE_MACHINE: Final = frozenset((ENFILE, ENOBUFS, ENOMEM))  # what one process lets go of, another may have


class DescriptorReserve:
    """Closes connections of ``loop`` so that accepting, and the application, find a descriptor."""

    def __init__(self, loop: WorkerLoop) -> None:
        self._loop = loop
        self.crowded_from = descriptor_limit.crowded_from()
        self._most = sys.maxsize  # connections that leave the application its descriptors, as far as is known
        self._full = False  # connections have taken what they are to leave, and none of them could be closed
        self._spare_until = 0.0  # closes nothing for want of what the machine has run short of

    def note_success(self) -> None:
        """Closing one has helped, so the next client gets a place, too."""
        self._spare_until = 0.0

    def make_room(self, error: OSError, fd: int, count: int = 1) -> bool:
        """Close up to ``count`` connections for want of what ``error`` says has run short; whether any was closed.

        Raises BlockingIOError where no client waits at ``fd``: the kernel looks for a descriptor first (accept(2)).
        """
        if error.errno not in EXHAUSTED:
            return False
        if not syscalls.has_event(fd, select.POLLIN):
            raise BlockingIOError(EAGAIN, "a sibling was quicker")
        eviction, now = self._loop.eviction, self._loop.timeouts.now
        if error.errno not in _OF_THE_MACHINE:
            self._most = max(1, len(self._loop.connections) - self._size())
            return eviction.evict(count, Shortage.DESCRIPTORS) > 0
        if now < self._spare_until:
            return False
        self._spare_until = now + RETRY_SECONDS
        return eviction.evict_resting()

    def keep(self, number: int) -> bool:
        """Close connections before the application finds no descriptor; ``number`` is that of the latest connection.

        Return False where connections, not the application, have taken what is to be left, and none could be closed.
        """
        if number < self.crowded_from and self._most == sys.maxsize:
            return True  # there is no want of any
        loop = self._loop
        count = len(loop.connections)
        if count <= self._most // 2:
            self._most = sys.maxsize  # the crowd is gone
        if number >= self.crowded_from:  # a lower one may be that of a connection closed for want of room
            self._most = max(1, min(self._most, count - (number - self.crowded_from)))
        if count < self._most:
            return True
        closed = loop.eviction.evict(min(2, count + 1 - self._most), Shortage.DESCRIPTORS)
        self._full = closed == 0 and count >= self._size()
        return not self._full

    def has_room(self) -> bool:
        """Whether one more connection leaves the application its descriptors; none is closed here."""
        if not self._full:
            return True
        count = len(self._loop.connections)
        self._full = count >= max(self._most, self._size()) and not self._application_has_let_go()
        return not self._full

    def seconds_left(self) -> float | None:
        """Seconds until it is worth another attempt to accept; None where only a close can help."""
        seconds = self._loop.eviction.seconds_left()
        return RETRY_SECONDS if seconds is None and self._full else seconds

    def _application_has_let_go(self) -> bool:
        """Whether the next connection gets a low number again, and those with high ones leave half of what they are to.

        Of the latter there is one more each time the application is quicker to open a file.
        """
        if descriptor_limit.next_number() >= self.crowded_from:
            return False
        if 2 * sum(each.fd >= self.crowded_from for each in self._loop.connections) > self._size():
            return False
        self._most = sys.maxsize
        return True

    def _size(self) -> int:
        """How many descriptors connections are to leave."""
        return max(0, descriptor_limit.soft() - self.crowded_from)
