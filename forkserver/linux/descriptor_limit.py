"""The soft limit of open files, as a worker raises it for its connections, and master and template for their children.

The default soft limit, 1024, is that of select(2), which fails for higher numbers; so what runs the application raises
it only after the import, no further than the connections need, and a process that the application forks gets it back.
What it starts as a program by vfork(2) (subprocess) inherits the raised limit. ``move_up`` keeps numbers below 1024
free for the application: connections beyond the first few hundred get higher ones. What master and template raise for
their children (master/resources/open_files.py) is set back before any code of the application runs in a child.

Source: setrlimit(2), RLIMIT_NOFILE; fcntl(2), F_DUPFD_CLOEXEC; select(2), "FD_SETSIZE".
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import Final

from forkserver.linux.common.records import NamedTuple

NOFILE_AUTO: Final = 0  # as many as the connections need
NOFILE_KEEP: Final = -1  # the limit stays as it is
SELECT_LIMIT: Final = 1024
LOW_NUMBERS: Final = 512  # connections below it stay where they are
WAY_OUT: Final = "raise the limit of open files (LimitNOFILE=, ulimit -n)"  # where it is too low
_RESERVE: Final = 64  # numbers that connections leave to the application, to files and to hand-offs


def needed(worker_connections: int) -> int:
    """Descriptors that a worker with so many connections may need: a file for each, and the application's."""
    return 2 * worker_connections + SELECT_LIMIT


def soft() -> int:
    """The soft limit now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_soft(nofile: int, worker_connections: int) -> int:
    """Raise the soft limit as the setting ``nofile`` says, never above the hard one; return what it was."""
    before = soft()
    if nofile != NOFILE_KEEP:
        raise_to(needed(worker_connections) if nofile == NOFILE_AUTO else nofile)
    return before


def raise_to(wanted: int) -> None:
    """Raise the soft limit to ``wanted``, never above the hard one; it is never lowered, and a sandbox may refuse."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before < min(wanted, hard):
        with suppress(OSError, ValueError):  # the module's word for EPERM is ValueError
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def restore(before: int) -> None:
    """Set the soft limit to ``before`` again, or to the hard one where that is lower by now."""
    now, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != min(before, hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before, hard), hard))


def crowded_from() -> int:
    """The number of a descriptor from which on few are left."""
    most = soft()
    return most - min(_RESERVE, most // 8)


def move_up(number: int) -> int:
    """The same open file under a number from SELECT_LIMIT on, or ``number`` where there is none to be had."""
    if number >= SELECT_LIMIT:
        return number
    try:
        moved = fcntl(number, F_DUPFD_CLOEXEC, SELECT_LIMIT)
    except OSError:  # EINVAL: the limit is not above; EMFILE: none is free
        return number
    os.close(number)
    return moved


def next_number() -> int:
    """The number that the next connection gets; the soft limit where there is none."""
    try:
        number = os.eventfd(0, os.EFD_CLOEXEC)
    except OSError:  # EMFILE; the machine may have run short, too
        return soft()
    if number >= LOW_NUMBERS:
        number = move_up(number)
    os.close(number)
    return number


class Headroom(NamedTuple):
    """Descriptors of a parent's own, beside those that the application may have.

    ``ordinary`` is the soft limit that the import has left, ``raised`` the one with room for the parent's own. It is
    not in force during a fork: handlers of the application run there, and the child inherits it.
    """

    ordinary: int
    raised: int

    @classmethod
    def beside(cls, count: int, nofile: int) -> Headroom:
        """Room for ``count`` descriptors more; none where they are few, or ``nofile`` keeps the limit."""
        ordinary = soft()
        many = count > ordinary // 2 and nofile != NOFILE_KEEP
        return cls(ordinary, ordinary + count if many else ordinary)

    def take(self) -> None:
        """Raise the limit."""
        if self.raised > self.ordinary:
            raise_to(self.raised)

    def give_back(self) -> None:
        """Set it back."""
        if self.raised > self.ordinary:
            restore(self.ordinary)
