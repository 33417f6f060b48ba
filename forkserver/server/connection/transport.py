"""A plain socket, and what its client has not taken of the answer yet.

``send`` gives the kernel what it takes at once and keeps the rest in memory or in the spool, in order. Where nothing
more can be kept, the application's thread waits for the client. That wait does not count as time of the call, and it
ends where the owner, the connection, says so: the client makes no progress for ``write_timeout``, or other requests
wait for the thread (``slow_readers.py``). ``TlsTransport`` has the same methods for TLS.

Source: send(2), sendfile(2), tcp(7).
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from errno import EINVAL, ENOSYS
from io import FileIO
from itertools import repeat
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from forkserver.linux import syscalls
from forkserver.server.buffers.send_buffer import FilePart, SendBuffer, duplicate
from forkserver.server.buffers.send_rate import SendRate
from forkserver.server.connection.protocols import ConnectionLoop
from forkserver.server.wsgi.response_sink import ClientGoneError

if TYPE_CHECKING:
    from forkserver.server.wsgi.accelerator._exchange import Facts, Send

JOIN_BYTES: Final = 32 * 1024  # a body up to this is copied behind its head, to go out in one send
SHARE_BYTES: Final = 1024 * 1024  # of one connection in one turn: others wait meanwhile
WAIT_SECONDS: Final = 0.25  # of one wait for a client, then its progress is looked at
_READ_BYTES: Final = 256 * 1024  # of one read of a file that sendfile cannot take


class TransportOwner(Protocol):
    """The connection."""

    peer: tuple[Any, ...]
    thread: int
    stays: bool  # no other worker can have the connection

    def kept(self) -> None:
        """Something was kept, which is to be sent although the application may take its time yet."""

    def waiting(self, waits: bool) -> None:
        """The application's thread begins to wait for the client, or has done so."""

    def check_progress(self, size: int) -> None:
        """Raises ClientGoneError where the wait for room for ``size`` bytes is to end without it."""

    def note_received(self, count: int) -> None:
        """``count`` bytes were read from the socket, which may make nothing whole yet."""


class Transport:
    """Sends and receives for ``owner`` on ``sock``; ``recv`` is the socket's own."""

    __slots__ = ("_loop", "_owner", "_send", "extra", "facts", "fd", "out", "pace", "recv", "sock")
    seals = False  # whether what is sent differs from what is on the wire
    in_the_clear = False  # whether a client speaks HTTP where TLS is spoken
    greeting_bytes = 0  # bytes of the client's part of a handshake
    websocket_obstacle: str | None = None  # why an application cannot have the socket
    send_whole: Send | None = None  # sends for the extension, which has no key

    def __init__(self, loop: ConnectionLoop, sock: socket.socket, owner: TransportOwner) -> None:
        self._loop = loop
        self._owner: TransportOwner | None = owner  # None after ``close``: no circle of references stays
        self.sock = sock
        self.fd = sock.fileno()  # -1 once it is closed: the number may be another's by then
        self.recv: Callable[[int], bytes] = sock.recv
        self._send = sock.send
        self.extra: dict[str, Any] | None = None  # variables of the environ: what is known of the client by TLS
        self.facts: Facts | None = None  # of requests opened here; None where the extension serves none
        self.out: SendBuffer | None = None
        self.pace: SendRate | None = None  # of the client, while something is kept for it

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

    def send_now(self, data: bytes) -> None:
        """Send ``data``, an interim answer before which nothing is kept. Raises OSError."""
        self._send(data)

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
            Transport.send(self, data, body)  # not a subclass's: these bytes are sealed already

    def _keep_both(self, data: memoryview, body: memoryview) -> None:
        """As ``_keep``, where ``body`` may be empty."""
        try:
            self._keep(data)
        except ClientGoneError as gone:
            gone.unsent += len(body)
            raise
        if body:
            self._keep(body)

    def keep(self, rest: bytes) -> None:
        """Keep ``rest``, the end of an answer that the kernel has not taken. Raises ClientGoneError."""
        self._keep(memoryview(rest))

    def _keep(self, data: memoryview) -> None:
        """Keep ``data`` for the loop to drain; where there is no room for it, wait for the client."""
        out = self._kept_so_far()
        if not out.add(data):
            self._keep_by_waiting(out, data)
        if self._owner is not None:
            self._owner.kept()

    def _kept_so_far(self) -> SendBuffer:
        if self.out is None:
            self.out = SendBuffer(self._loop.context.spool)
        if not self.out:
            self.pace = SendRate(self.sock, self._loop.timeouts.clock())
        return self.out

    def _keep_by_waiting(self, out: SendBuffer, data: memoryview) -> None:
        """Back-pressure: the application's thread waits until its client has taken enough. Raises ClientGoneError."""
        owner, clock, request_deadline = self._owner, self._loop.timeouts.clock, self._loop.context.request_deadline
        if owner is None:
            raise ClientGoneError(len(data))
        owner.kept()
        began = clock()
        request_deadline.await_client(True, owner.thread)
        try:
            for _ in repeat(None):  # no condition: what comes on the way back is to reach the end of ``finally``
                if out.add(data):
                    return
                self._wait_for_client(owner)
                if not out:
                    data = data[self._try(data) :]
                owner.check_progress(len(data))
        except ClientGoneError as gone:
            gone.unsent = len(data)
            raise
        finally:
            request_deadline.await_client(False, owner.thread, clock() - began)

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

    def _wait_for_client(self, owner: TransportOwner) -> None:
        """Wait a moment for the client to take something. Raises ClientGoneError."""
        if self.fd < 0:
            raise ClientGoneError
        owner.waiting(True)
        # Not by lend: where the call is interrupted here, what is kept must not be left half-way.
        try:
            self._loop.loop_lock.release()
            writable = self._loop.wait_writable(self.fd, WAIT_SECONDS)
        finally:
            self._loop.loop_lock.acquire()
            owner.waiting(False)
        if self.fd < 0:  # it was cut off meanwhile
            raise ClientGoneError
        if writable:
            self.flush()

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

    # The beginning and the end

    @property
    def shaking(self) -> bool:
        """Whether a handshake has begun and is not complete."""
        return False

    def close_notify(self) -> None:
        """Say that nothing more comes, where the protocol has a word for it."""

    def omit_close_notify(self) -> None:
        """The answer is cut off: the end must not look like one that is meant."""

    def close(self) -> None:
        """Let go of the socket, which the owner has closed, and of the owner."""
        self.fd = -1
        self._owner = None


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
