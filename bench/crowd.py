"""Connections that are there and want little: idle ones after one answer each, slow ones that never get to the end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from bench.machine import HOST
from bench.peers import PeerError
from bench.questions import fields, question

WIDTH = 256  # connections opened and asked together: less than any listen queue
PATIENCE_SECONDS = 10.0  # for one answer
ARRIVAL_SECONDS = 30.0  # for all of them


class Idle:
    """Connections that have each had one answer, and are kept alive."""

    def __init__(self, port: int, size: int, source: str) -> None:
        self.members: list[socket.socket] = []
        self._until = time.monotonic() + ARRIVAL_SECONDS
        try:
            while len(self.members) < size:
                self._arrive(port, min(WIDTH, size - len(self.members)), source)
        except OSError as error:
            held = (len(self.members) - 1) // WIDTH * WIDTH  # the last group is not complete
            self.leave()
            raise PeerError(f"holds {held:,} of {size:,} idle connections, and not {WIDTH} more: {error}") from None

    def _arrive(self, port: int, count: int, source: str) -> None:
        arriving = []
        for _ in range(count):
            arriving.append(socket.create_connection((HOST, port), PATIENCE_SECONDS, (source, 0)))
            self.members.append(arriving[-1])
        for member in arriving:
            member.sendall(question("/"))
        for member in arriving:
            self._take(member)

    def _take(self, member: socket.socket) -> None:
        """Its answer; OSError where it is none, or the last, or where all of them have taken too long."""
        answer = member.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise OSError(f"answered {answer[:40]!r}")
        if b"\r\nconnection: close" in answer.lower():
            raise OSError("it closes after each answer")
        if time.monotonic() > self._until:
            raise OSError(f"not all within {ARRIVAL_SECONDS:g} s")

    def still_there(self) -> int:
        return sum(map(is_open, self.members))

    def leave(self) -> None:
        for member in self.members:
            member.close()


def is_open(member: socket.socket) -> bool:
    """Whether the server has not ended the connection."""
    member.setblocking(False)
    try:
        while piece := member.recv(65536):
            del piece  # what is left of an answer
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


class Slow:
    """Connections of one kind, ``head``, ``body`` or ``read``; ``drip`` lets every one go on by a few bytes."""

    def __init__(self, port: int, size: int, kind: str) -> None:
        self.kind = kind
        self._begun: set[socket.socket] = set()
        self.members = [self._arrive(port) for _ in range(size)]

    def _arrive(self, port: int) -> socket.socket:
        member = socket.socket()
        if self.kind == "read":
            member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        member.setblocking(False)
        member.connect_ex((HOST, port))  # a full listen queue must not keep the others from coming
        return member

    def drip(self) -> None:
        for member in self.members:
            with contextlib.suppress(OSError):  # not connected yet, or thrown out
                self._go_on(member)

    def _go_on(self, member: socket.socket) -> None:
        if member.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x01":  # TCP_ESTABLISHED
            return
        fresh = member not in self._begun
        self._begun.add(member)
        if self.kind == "read":
            member.sendall(question("/1m/slow")) if fresh else member.recv(64)
        elif self.kind == "body":
            member.sendall(f"POST /post/slow HTTP/1.1\r\n{fields(body=8192)}\r\n".encode() if fresh else b"x")
        else:
            member.sendall(b"GET /10k/slow HTTP/1.1\r\nHost: localhost\r\n" if fresh else b"X-Slow: x\r\n")

    def held(self) -> int:
        """How many the server still has."""
        return sum(member.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01" for member in self.members)

    def leave(self) -> None:
        for member in self.members:
            member.close()


@contextlib.contextmanager
def slow(port: int, size: int, kind: str) -> Iterator[Slow]:
    crowd = Slow(port, size, kind)
    try:
        yield crowd
    finally:
        crowd.leave()
