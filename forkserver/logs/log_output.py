"""Lines of a log on their way to a descriptor, without waiting for the process that reads them.

A pipe, a FIFO, a terminal and a socket fill up when their reader stops reading, and a blocking write(2) then waits for
as long as that lasts. ``LogOutput`` writes to them without waiting:

* A pipe, FIFO or terminal is opened once more by /proc/self/fd/N with O_NONBLOCK. The flag belongs to the open file
  description, which an inherited descriptor shares with every process that inherited it, so it is not set on that one.
  For the same reason a template opens one of its own (``renew``): its application may clear the flag of what it has.
* Where that is not permitted (another user's pipe, no /proc), pwritev2(2) with RWF_NOWAIT asks the kernel for the same,
  for one write. A kernel that cannot do so for this kind of file (pipes: before Linux 6.4) is asked by poll(2) first,
  which leaves a moment in which another writer may take the room.
* A socket, such as the journal's stream, is written to with MSG_DONTWAIT.
* A regular file or a device is written to as usual: a disk may block.

Data goes out in pieces of whole lines of at most PIPE_BUF bytes, which a pipe takes whole or not at all, so that lines
of several processes do not mix (pipe(7)). A line that was taken in part is continued before anything else is written.
Lines that do not fit are dropped and counted.

A reader that is merely slow gets a little time: waiting may take ``_WAIT_SECONDS`` at once, and ``_WAIT_SHARE`` of all
time.
"""

from __future__ import annotations

import os
import select
import stat
import weakref
from collections.abc import Callable, Iterator
from errno import EAGAIN
from typing import Final

from forkserver.linux import syscalls
from forkserver.linux.common.safe_lock import SafeLock
from forkserver.linux.syscalls import monotonic

_WAIT_SECONDS: Final = 0.1
_WAIT_SHARE: Final = 0.01
_REST_BYTES: Final = 64 * 1024  # kept of the end of a line that was taken in part
_CUT: Final = b"...\n"

_Send = Callable[[int, memoryview], int]


class LogOutput:
    """Writes lines to ``fd``; -1 is no descriptor. Safe to use from several threads and in forked children.

    ``dropped`` counts lines that were not written; the caller sets it back when it has said so. ``reason`` is why.
    ``lock`` may be held around several calls. ``clock`` gives seconds.
    """

    def __init__(self, fd: int, clock: Callable[[], float] = monotonic) -> None:
        self.lock = SafeLock(reentrant=True)
        self.dropped = 0
        self.reason = ""
        self._fd = fd
        self._clock = clock
        self._rest = b""  # the end of a line that was taken in part
        self._reopened = -1
        self._inode = (0, 0)  # device and inode of ``_reopened``
        self._credit = _WAIT_SECONDS  # seconds that may be spent waiting
        self._credited = clock()
        self._piece: int | None = None
        self._send: _Send = _write
        self._choose()
        _outputs.add(self)

    def __del__(self) -> None:
        self.close()

    @property
    def pending(self) -> bool:
        """Whether a line was written in part and waits for its end."""
        return bool(self._rest)

    @property
    def is_file(self) -> bool:
        """Whether writes go to a regular file or a device, which keeps a write of any size whole."""
        return self._piece is None

    def fileno(self) -> int:
        """The descriptor that is written to: one that does not block, where one could be had."""
        return self._fd if self._reopened < 0 else self._reopened

    def renew(self) -> None:
        """Look again what kind of file the descriptor is, after it was replaced; in a forked child, open it apart."""
        self.lock.taken  # noqa: B018
        try:
            self.close()
            self._rest = b""
            self._choose()
        finally:
            self.lock.release()

    def close(self) -> None:
        """Close what was opened here; the caller's descriptor stays open."""
        number, self._reopened = getattr(self, "_reopened", -1), -1
        # An application that closes all descriptors of its process has other files under their numbers.
        if number >= 0 and _inode(number) == self._inode:
            os.close(number)

    def write(self, data: bytes) -> int:
        """Write ``data``, which ends with a line feed; returns the number of lines that were dropped."""
        self.lock.taken  # noqa: B018
        try:
            if self._rest:
                self._rest = self._rest[self._deliver(memoryview(self._rest)) :]
            lost = data.count(b"\n") if self._rest else self._write(data)
            self.dropped += lost
            return lost
        finally:
            self.lock.release()

    def forget(self) -> None:
        """In a forked child: leave to the parent what it has begun, and the lock to its threads."""
        self.lock = SafeLock(reentrant=True)
        self._rest = b""
        self.dropped = 0

    def _write(self, data: bytes) -> int:
        view = memoryview(data)
        for begin, end in _pieces(data, self._piece):
            taken = begin + self._deliver(view[begin:end])
            if taken < end:
                return self._left(data, taken)
        return 0

    def _left(self, data: bytes, taken: int) -> int:
        """Keep the end of a line that was begun; returns the number of lines that are lost."""
        lost = data.count(b"\n", taken)
        if taken == 0 or data[taken - 1 : taken] == b"\n":
            return lost
        rest = data[taken : data.find(b"\n", taken) + 1]
        self._rest = rest if len(rest) <= _REST_BYTES else rest[: _REST_BYTES - len(_CUT)] + _CUT
        return lost - 1

    def _deliver(self, piece: memoryview) -> int:
        """Write ``piece``; returns the number of bytes that were taken."""
        done = 0
        while done < len(piece):
            try:
                done += self._send(self.fileno(), piece[done:])
            except BlockingIOError as error:
                self.reason = os.strerror(error.errno or EAGAIN).lower()
                if not self._wait():
                    break
            except OSError as error:
                self.reason = os.strerror(error.errno or 0).lower()
                break
        return done

    def _wait(self) -> bool:
        """Wait for room as long as it may take; whether writing is worth another try."""
        now = self._clock()
        self._credit = min(_WAIT_SECONDS, self._credit + max(0.0, now - self._credited) * _WAIT_SHARE)
        self._credited = now
        if self._credit < 0.001:  # below what poll(2) counts in
            return False
        ready = _writable(self.fileno(), self._credit)
        self._credited = self._clock()
        self._credit -= max(0.0, self._credited - now)
        return ready

    def _choose(self) -> None:
        """Find the way to write to this kind of file without waiting."""
        self._piece, self._send = None, _write
        try:
            mode = os.fstat(self._fd).st_mode
        except OSError:  # closed: writing will say so
            return
        if stat.S_ISSOCK(mode):
            self._piece, self._send = select.PIPE_BUF, syscalls.send_now
        elif stat.S_ISFIFO(mode) or os.isatty(self._fd):
            self._piece = select.PIPE_BUF
            self._reopen()

    def _reopen(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            self._reopened = os.open(f"/proc/self/fd/{self._fd}", flags)
        except OSError:  # not permitted, no /proc, or a pipe without a reader
            self._send = _write_now
        else:
            self._inode = _inode(self._reopened)


_outputs: Final[weakref.WeakSet[LogOutput]] = weakref.WeakSet()


def _forget_parents() -> None:
    for output in tuple(_outputs):
        output.forget()


os.register_at_fork(after_in_child=_forget_parents)


def _inode(number: int) -> tuple[int, int]:
    try:
        found = os.fstat(number)
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _pieces(data: bytes, size: int | None) -> Iterator[tuple[int, int]]:
    """Where ``data`` is divided: after lines, in pieces of at most ``size`` bytes; a longer line is divided itself."""
    begin, length = 0, len(data)
    while begin < length:
        end = length
        if size is not None and length - begin > size:
            end = data.rfind(b"\n", begin, begin + size) + 1 or begin + size
        yield begin, end
        begin = end


def _writable(number: int, seconds: float) -> bool:
    return syscalls.has_event(number, select.POLLOUT, seconds)


def _write(number: int, data: memoryview) -> int:
    return os.write(number, data)


def _write_now(number: int, data: memoryview) -> int:
    """write(2) that fails with EAGAIN where it would wait, on a descriptor that blocks. Raises OSError."""
    try:
        return os.pwritev(number, [data], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        raise
    except (OSError, AttributeError, NotImplementedError):  # not for this kind of file, or not in this C library
        pass
    if not _writable(number, 0):
        raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
    return os.write(number, data)
