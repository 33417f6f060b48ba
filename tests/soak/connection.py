"""One client connection, as bytes: it waits for its own socket only, and says how it ended.

It promises that an end in place of an answer is a ``CutError``, whatever the kernel calls it. It refuses to know what
is asked and why.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from forkserver.linux.sockets.resets import reset_at_close
from harness.clients import Address

CHUNK = 256 * 1024
Pace = Callable[[], Awaitable[None]]


class CutError(Exception):
    """The connection ended before the answer was whole."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def last(self) -> bool:
        return "close" in self.headers.get("connection", "")


class Connection:
    """``answers`` counts what came on it; it was ``made``, and last ``used``, at these times (time.monotonic)."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.made = self.used = time.monotonic()
        self.answers = 0
        self._loop = asyncio.get_running_loop()
        self._came = bytearray()

    @classmethod
    async def open(cls, address: Address, receive_buffer: int = 0) -> Connection:
        """Connect. Raises OSError."""
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            sock.setblocking(False)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def ended(self) -> bool:
        """Whether the server has closed while nothing was asked."""
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self.socket, data)
        except OSError as error:
            raise CutError(f"while it was sent: {error!r}") from None

    async def answer(self, to_head: bool = False, pace: Pace | None = None) -> Answer:
        """The next answer, whole; an interim one has status 100."""
        status, headers = await self.head()
        if status == 100 or to_head:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = await self._chunks(pace)
        else:
            body = await self._exactly(int(headers["content-length"]), pace)
        self.answers += status != 100
        self.used = time.monotonic()
        return Answer(status, headers, body)

    async def head(self) -> tuple[int, dict[str, str]]:
        while (end := self._came.find(b"\r\n\r\n")) < 0:
            await self._more()
        lines = bytes(self._came[:end]).decode("latin-1").split("\r\n")
        del self._came[: end + 4]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split(" ", 2)[1]), headers

    async def _exactly(self, size: int, pace: Pace | None) -> bytes:
        while len(self._came) < size:
            await self._more(pace, size - len(self._came))
        found = bytes(self._came[:size])
        del self._came[:size]
        return found

    async def _chunks(self, pace: Pace | None) -> bytes:
        body = bytearray()
        while size := int(await self._line(pace), 16):
            body += await self._exactly(size, pace)
            if await self._exactly(2, pace) != b"\r\n":
                raise ValueError("a chunk that does not end where it says")
        while await self._line(pace):
            continue  # trailers
        return bytes(body)

    async def _line(self, pace: Pace | None) -> bytes:
        while (end := self._came.find(b"\r\n")) < 0:
            await self._more(pace)
        line = bytes(self._came[:end])
        del self._came[: end + 2]
        return line

    async def _more(self, pace: Pace | None = None, most: int = CHUNK) -> None:
        if pace is not None:
            await pace()
        try:
            data = await self._loop.sock_recv(self.socket, min(most, CHUNK) if pace is None else min(most, CHUNK // 8))
        except OSError as error:
            raise CutError(f"while it was answered, {len(self._came)} bytes unread: {error!r}") from None
        if not data:
            raise CutError(f"end of the connection, {len(self._came)} bytes unread")
        self._came += data

    def close(self, reset: bool = False) -> None:
        if reset:
            reset_at_close(self.socket)
        self.socket.close()


def pauses(chance: random.Random, least: float, most: float) -> Pace:
    """A client that is slow: it pauses before each piece."""

    async def pause() -> None:
        await asyncio.sleep(chance.uniform(least, most))

    return pause
