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

A process that has a pipe's or file's descriptor can hold the kernel's lock of it, for as long as it likes, and another
that writes to it, or opens the pipe, then waits where no signal ends it. After ``leave_to_writer`` this process does
neither: it sends its lines to a process that writes them (``write_by``), or drops them where there is none. A forked
child writes itself again, but opens no pipe.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import weakref
from collections.abc import Callable, Iterator
from errno import EAGAIN, ENOTCONN
from typing import Final

from forkserver.linux import syscalls
from forkserver.linux.common.safe_lock import SafeLock
from forkserver.linux.files import file_size_limit
from forkserver.linux.files.trusted_paths import UntrustedPathError
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.syscalls import monotonic

_WAIT_SECONDS: Final = 0.1
_WAIT_SHARE: Final = 0.01
_REST_BYTES: Final = 64 * 1024  # kept of the end of a line that was taken in part
_CUT: Final = b"...\n"
_MESSAGE_BYTES: Final = 64 * 1024  # to the process that writes, at once
_REASON_BYTES: Final = 256  # of what that process says
_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

_Send = Callable[[int, memoryview], int]


class _Own:
    """What this process does itself with pipes and files that others may hold."""

    def __init__(self) -> None:
        self.writes = True
        self.opens = True


_own: Final = _Own()


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
        self._fd_inode = (0, 0)  # device and inode of ``_fd``
        self._reopened = -1
        self._reopened_inode = (0, 0)  # the same of ``_reopened``
        self._credit = _WAIT_SECONDS  # seconds that may be spent waiting
        self._credited = clock()
        self._piece: int | None = None
        self._send: _Send = _write
        self._writer: PlainSocket | None = None
        self._is_file = True
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
        return self._is_file

    @property
    def can_be_held(self) -> bool:
        """Whether a process that has the descriptor can have the kernel hold each other that writes there."""
        try:
            return _can_be_held(os.fstat(self._fd).st_mode)
        except OSError:
            return False

    def write_by(self, writer: PlainSocket) -> None:
        """Send what is written to ``writer``, where this process is not to write it itself."""
        self._writer = writer

    def fileno(self) -> int:
        """The descriptor that is written to: one that does not block, where one could be had."""
        return self._fd if self._reopened < 0 else self._reopened

    def inode(self) -> tuple[int, int]:
        """Device and inode of what is written to; zeros where it is closed."""
        return _inode(self._fd)

    def descriptors(self) -> set[int]:
        """The one that was given and the one that was opened here, unless another file has its number by now."""
        candidates = ((self._fd, self._fd_inode), (self._reopened, self._reopened_inode))
        return {number for number, inode in candidates if inode != (0, 0) and _inode(number) == inode}

    def renew(self) -> None:
        """Look again what kind of file the descriptor is, after it was replaced; in a forked child, open it apart."""
        self.lock.taken  # noqa: B018
        try:
            if _own.opens or self._reopened_inode != _inode(self._fd) or not is_fifo(self._fd):
                self.close()
            self._rest = b""
            self._choose()
        finally:
            self.lock.release()

    def close(self) -> None:
        """Close what was opened here; the caller's descriptor stays open."""
        number, self._reopened = getattr(self, "_reopened", -1), -1
        # An application that closes all descriptors of its process has other files under their numbers.
        if number >= 0 and _inode(number) == self._reopened_inode:
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
        self._writer = None
        if self._sends:
            self._choose()

    def _write(self, data: bytes) -> int:
        view = memoryview(data)
        for begin, end in pieces(data, self._piece):
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
                self.reason = self._said_by_writer() or os.strerror(error.errno or EAGAIN).lower()
                if not self._wait():
                    break
            except OSError as error:
                self.reason = file_size_limit.of_log(error)
                break
        return done

    def _wait(self) -> bool:
        """Wait for room as long as it may take; whether writing is worth another try."""
        now = self._clock()
        self._credit = min(_WAIT_SECONDS, self._credit + max(0.0, now - self._credited) * _WAIT_SHARE)
        self._credited = now
        if self._credit < 0.001:  # below what poll(2) counts in
            return False
        waits_at = self._writer if self._writer is not None and self._sends else self
        ready = _writable(waits_at.fileno(), self._credit)
        self._credited = self._clock()
        self._credit -= max(0.0, self._credited - now)
        return ready

    def _choose(self) -> None:
        """Find the way to write to this kind of file without waiting."""
        self._piece, self._send, self._is_file = None, _write, True
        try:
            found = os.fstat(self._fd)
        except OSError:  # closed: writing will say so
            self._fd_inode = (0, 0)
            return
        self._fd_inode, mode = (found.st_dev, found.st_ino), found.st_mode
        if stat.S_ISSOCK(mode):
            self._piece, self._send = select.PIPE_BUF, syscalls.send_now
        elif stat.S_ISFIFO(mode) or os.isatty(self._fd):
            self._piece = select.PIPE_BUF
            if not _own.opens and stat.S_ISFIFO(mode):
                self._send = _write if self._reopened >= 0 else _write_now
            else:
                self._reopen()
        self._is_file = self._piece is None
        if not _own.writes and _can_be_held(mode):
            self._piece, self._send = _MESSAGE_BYTES, self._to_writer

    @property
    def _sends(self) -> bool:
        """Whether another process is to write."""
        return self._send == self._to_writer

    def _to_writer(self, _number: int, piece: memoryview) -> int:
        if self._writer is None:
            raise OSError(ENOTCONN, "no process is there that writes it")
        return self._writer.send(piece, _NOW)

    def _said_by_writer(self) -> str:
        """Why the process that writes does not get on, as far as it has said so since the last time."""
        if self._writer is None or not self._sends:
            return ""
        try:
            return self._writer.recv(_REASON_BYTES, _NOW).decode()
        except OSError:  # it has said nothing
            return ""

    def _reopen(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            self._reopened = os.open(f"/proc/self/fd/{self._fd}", flags)
        except OSError:  # not permitted, no /proc, or a pipe without a reader
            self._send = _write_now
        else:
            self._reopened_inode = _inode(self._reopened)


_outputs: Final[weakref.WeakSet[LogOutput]] = weakref.WeakSet()


def leave_to_writer() -> None:
    """From now on this process writes to no pipe and no regular file, and opens no pipe; see above for its children."""
    _own.writes = _own.opens = False
    for output in tuple(_outputs):
        if output.can_be_held:
            output.renew()


def leaves_to_writer() -> bool:
    """Whether another process is to write the pipes and regular files of this one."""
    return not _own.writes


def descriptors() -> set[int]:
    """Those of every log of this process, and those that were opened for them."""
    return set().union(*(output.descriptors() for output in tuple(_outputs)))


def pipes() -> set[int]:
    """Descriptors of pipes and FIFOs that the application may have too: of standard streams and of every log.

    The kernel takes a pipe's lock at the last close(2) of what one call has opened, which another process may hold.
    """
    return {number for number in (0, 1, 2, *descriptors()) if is_fifo(number)}


def opened_already(path: str) -> int | None:
    """Another descriptor of the FIFO at ``path``, for a process that opens none; None where it is no FIFO.

    Raises UntrustedPathError where this process has not opened it before.
    """
    if _own.opens:
        return None
    try:
        found = os.stat(path)
    except OSError:  # opening it says what is the matter
        return None
    if not stat.S_ISFIFO(found.st_mode):
        return None
    for output in tuple(_outputs):
        if output.inode() == (found.st_dev, found.st_ino):
            return os.dup(output.fileno())
    raise UntrustedPathError("a FIFO, which the application could hold", "restart, for it is opened at a start alone")


def _forget_parents() -> None:
    _own.writes = True
    for output in tuple(_outputs):
        output.forget()


os.register_at_fork(after_in_child=_forget_parents)


def _inode(number: int) -> tuple[int, int]:
    try:
        found = os.fstat(number)
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _can_be_held(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def is_fifo(number: int) -> bool:
    """Whether the descriptor ``number`` is open and that of a pipe."""
    try:
        return stat.S_ISFIFO(os.fstat(number).st_mode)
    except OSError:
        return False


def pieces(data: bytes, size: int | None) -> Iterator[tuple[int, int]]:
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
