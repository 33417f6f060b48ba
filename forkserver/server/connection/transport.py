"""The sending half of a connection: what the kernel takes goes at once, the rest is kept.

It promises that bytes leave in their order and that memory and disk stay bounded: where nothing more can be kept, the
application's thread waits for the client. That wait does not count as time of the call, and ends where the client makes
no progress for ``write_timeout``, or where others wait for the thread (``slow_readers.py``). It refuses to know what
the bytes mean.

Source: send(2), sendfile(2), tcp(7).
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from errno import EINVAL, ENOSYS
from io import FileIO
from time import monotonic
from typing import IO, TYPE_CHECKING, Final

from forkserver.linux import syscalls
from forkserver.server.buffers.send_buffer import FilePart, SendBuffer, duplicate
from forkserver.server.connection.send_rate import SendRate
from forkserver.server.wsgi.sink import ClientGoneError

if TYPE_CHECKING:
    from forkserver.server.loop.event_loop import Loop

JOIN_BYTES: Final = 32 * 1024  # a body up to this is copied behind its head, to go out in one send
SHARE_BYTES: Final = 1024 * 1024  # of one connection in one turn: others wait meanwhile
WAIT_SECONDS: Final = 0.25  # of one wait for a client, then it is judged
_READ_BYTES: Final = 256 * 1024  # of one read of a file that sendfile cannot take


class Sending:
    """A socket, and what its client has not taken yet."""

    __slots__ = ("_send", "doomed", "fd", "loop", "loop_lock", "out", "pace", "sock", "thread")

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.loop = loop
        self.loop_lock = loop.loop_lock
        self.sock = sock
        self.fd = sock.fileno()  # -1 once it is closed: the number may be another's by then
        self._send = sock.send
        self.out: SendBuffer | None = None
        self.pace: SendRate | None = None  # of the client, while something is kept for it
        self.thread = 0  # that calls the application
        self.doomed = False  # to be reset as soon as the application is through with it

    def send(self, data: bytes, body: bytes = b"") -> None:
        """Send at once what the kernel takes; keep the rest; wait only where nothing more can be kept."""
        if self.out:
            self._send_behind(data, body)
            return
        if body:
            if len(body) > JOIN_BYTES:
                self._send_two(data, body)
                return
            data += body
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGoneError(len(data)) from error
        if sent != len(data):
            self._keep(memoryview(data)[sent:])

    def _send_two(self, data: bytes, body: bytes) -> None:
        try:
            sent = self.sock.sendmsg((data, body))
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGoneError(len(data) + len(body)) from error
        if sent < len(data):
            self._keep_both(memoryview(data)[sent:], memoryview(body))
        elif sent < len(data) + len(body):
            self._keep(memoryview(body)[sent - len(data) :])

    def _send_behind(self, data: bytes, body: bytes) -> None:
        try:
            self.flush()
        except ClientGoneError as gone:
            gone.unsent = len(data) + len(body)
            raise
        if self.out:
            self._keep_both(memoryview(data), memoryview(body))
        else:
            Sending.send(self, data, body)  # not a subclass's: it has done with them what it does

    def _keep_both(self, data: memoryview, body: memoryview) -> None:
        """As ``_keep``, where ``body`` may be empty."""
        try:
            self._keep(data)
        except ClientGoneError as gone:
            gone.unsent += len(body)
            raise
        if body:
            self._keep(body)

    def _keep(self, data: memoryview) -> None:
        """Keep ``data`` for the loop to drain; where there is no room for it, wait for the client."""
        out = self._kept_so_far()
        if not out.add(data):
            self._keep_by_waiting(out, data)
        self.kept()

    def _kept_so_far(self) -> SendBuffer:
        if self.out is None:
            self.out = SendBuffer(self.loop.spool)
        if not self.out:
            self.pace = SendRate(self.sock, monotonic())
        return self.out

    def _keep_by_waiting(self, out: SendBuffer, data: memoryview) -> None:
        """Back-pressure: the application's thread waits until its client has taken enough. Raises ClientGoneError."""
        self.kept()
        request_deadline, began = self.loop.request_deadline, monotonic()
        request_deadline.await_client(True, self.thread)
        try:
            while not out.add(data):
                self._wait_for_client()
                if not out:
                    data = data[self._try(data) :]
                self.judge(len(data))
        except ClientGoneError as gone:
            gone.unsent = len(data)
            raise
        finally:
            request_deadline.await_client(False, self.thread, monotonic() - began)

    def kept(self) -> None:
        """Something was kept, which is to be sent although the application may take its time yet."""

    def _try(self, data: memoryview) -> int:
        """Send of ``data`` what the kernel takes; how many bytes. Raises ClientGoneError."""
        try:
            sent = self._send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGoneError from error
        if self.pace is not None:
            self.pace.sent += sent
        return sent

    def _wait_for_client(self) -> None:
        """Wait a moment for the client to take something. Raises ClientGoneError."""
        if self.fd < 0:
            raise ClientGoneError
        self.waiting(True)
        # Not by lend: where the call is interrupted here, what is kept must not be left half-way.
        self.loop_lock.release()
        try:
            writable = wait_writable(self.fd, WAIT_SECONDS)
        finally:
            self.loop_lock.acquire()
            self.waiting(False)
        if self.fd < 0:  # it was cut off meanwhile
            raise ClientGoneError
        if writable:
            self.flush()

    def waiting(self, waits: bool) -> None:
        """The application's thread begins to wait for the client, or has done so."""

    def judge(self, size: int) -> None:
        """Raises ClientGoneError where the wait for room for ``size`` bytes is to end without it."""

    def flush(self) -> bool:
        """Send of what is kept as much as the kernel takes, at most a share; whether any went.

        A client that reads as fast as the kernel sends would keep the loop here. Raises ClientGoneError.
        """
        progress = False
        out, left = self.out, SHARE_BYTES
        while out and left > 0:
            part = self._next_part(out)
            try:
                if isinstance(part, FilePart):
                    sent = os.sendfile(self.fd, part.fd, part.offset, min(part.count, left))
                    if not sent:
                        raise ClientGoneError from EOFError("the file became shorter while it was sent")
                else:
                    sent = self._send(part[:left])
            except BlockingIOError:
                break
            except OSError as error:
                raise ClientGoneError from error
            out.advance(sent)
            left -= sent
            if self.pace is not None:
                self.pace.sent += sent
            progress = True
        return progress

    def _next_part(self, out: SendBuffer) -> memoryview | FilePart:
        """What is to be sent next."""
        return out.parts[0]

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        """Send ``head``, then ``count`` bytes of ``file``; ``close`` runs when they are through.

        ``file`` may be closed before they are. Raises ClientGoneError.
        """
        try:
            self._send_before_file(head, count)
            if not count:
                return
            part = self._part(file, offset, count, close)
            if part is None:
                self._send_by_reading(file, count)
            else:
                close = _nothing
                self._kept_so_far().add_file(part)
                self.flush()
        finally:
            close()

    def _send_before_file(self, head: bytes, count: int) -> None:
        try:
            self.send(head)
        except ClientGoneError as gone:
            gone.unsent += count
            raise

    def _part(self, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> FilePart | None:
        """What ``flush`` sends of ``file``; None where it must be read, which says why if it cannot be."""
        try:
            copy = duplicate(file)
        except (OSError, ValueError):  # no descriptor is free, or the file is closed
            return None
        if not self._takes(copy, offset):
            copy.close()
            return None
        return FilePart(copy, offset, count, close)

    def _takes(self, file: FileIO, offset: int) -> bool:
        """Whether ``flush`` sends from this file itself: by sendfile(2), if the kernel can."""
        return _can_sendfile(self.fd, file.fileno(), offset)

    def _send_by_reading(self, file: IO[bytes], count: int) -> None:
        while count and (data := file.read(min(count, _READ_BYTES))):
            count -= len(data)
            try:
                self.send(data)
            except ClientGoneError as gone:
                gone.unsent += count
                raise
        if count:
            raise ClientGoneError(count) from EOFError("the file became shorter while it was sent")


def wait_writable(fd: int, seconds: float) -> bool:
    """Wait, at most ``seconds``, until ``fd`` takes something or has failed; whether it does."""
    return syscalls.has_event(fd, select.POLLOUT, seconds)


def _can_sendfile(to: int, source: int, offset: int) -> bool:
    """Whether the kernel sends from this file at all; nothing is sent."""
    try:
        os.sendfile(to, source, offset, 0)
    except OSError as error:
        if error.errno in (EINVAL, ENOSYS):
            return False
    return True


def _nothing() -> None:
    """In place of a close that another has taken over."""
