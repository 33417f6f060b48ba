"""Clients that account for every request: answered, and after how long, or lost. For what wrk cannot say.

All connections are turned by one loop, so that they do not wait for each other. A client asks again as soon as it has
its answer, on the same connection unless the server has announced its end. It does not try a lost request again.
"""

from __future__ import annotations

import collections
import math
import os
import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench.machine import HOST

PIECE = 1024 * 1024
PAUSE_SECONDS = 0.01  # before a client that was refused comes again
TICK_SECONDS = 0.05  # how often patience, pauses and the end are looked at


class Question(NamedTuple):
    kind: str
    data: bytes


class Answer(NamedTuple):
    client: int
    kind: str
    asked: float  # time.monotonic
    seconds: float
    size: int  # of the body
    born: float  # what the application says of its import, time.time


Questions = Callable[[int], Iterator[Question]]


class Client:
    """One client and its connection of the moment."""

    def __init__(self, load: Load, number: int, questions: Iterator[Question]) -> None:
        self.load = load
        self.number = number
        self.questions = questions
        self.open()

    def open(self) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.connected = False
        self.left: int | None = None
        self.head = b""
        self.asked = time.monotonic()  # to connect is part of the wait
        self.socket.connect_ex((HOST, self.load.port))
        self.load.watch(self, select.EPOLLOUT)

    def ready(self, events: int) -> None:
        try:
            if not self.connected:
                self._connect()
                return
            if events & select.EPOLLOUT:
                self._send()
            if events & ~select.EPOLLOUT:
                self._receive()
        except BlockingIOError:
            return  # the readiness was for the other direction
        except OSError as error:
            self.lose(os.strerror(error.errno) if error.errno else str(error))

    def _connect(self) -> None:
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connected = True
        self.load.change(self, select.EPOLLIN)
        self.load.go_on(self, self.asked)

    def ask(self, asked: float) -> None:
        """Send the next question, which is wanted since ``asked``."""
        self.asked = asked
        self.kind, data = next(self.questions)
        self.unsent = memoryview(data)
        self.head = b""
        self.left = None
        self._send()

    def _send(self) -> None:
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass  # the rest when the kernel has room
        self.load.change(self, select.EPOLLIN | (select.EPOLLOUT if self.unsent else 0))

    def _receive(self) -> None:
        if self.left is None:
            self._receive_head()
        else:
            self._count(self.socket.recv_into(self.load.scratch))
        if self.left == 0:
            self._answered()

    def _receive_head(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("the connection ended in place of an answer")
        self.head += piece
        head, found, body = self.head.partition(b"\r\n\r\n")
        if found:
            self._read_head(head.decode("latin-1").lower().split("\r\n"))
            self.left = self.size - len(body)

    def _read_head(self, lines: list[str]) -> None:
        if " 200" not in lines[0]:
            raise ConnectionError(f"answered {lines[0]}")
        named = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if "content-length" not in named:
            raise ConnectionError("an answer without Content-Length")
        self.size = int(named["content-length"])
        self.born = float(named.get("x-born", 0))
        self.last = lines[0].startswith("http/1.0") or "close" in named.get("connection", "")

    def _count(self, received: int) -> None:
        assert self.left is not None
        if not received:
            raise ConnectionError("the connection ended in the middle of an answer")
        self.left -= received

    def _answered(self) -> None:
        now = time.monotonic()
        answer = Answer(self.number, self.kind, self.asked, now - self.asked, self.size, self.born)
        self.load.answers.append(answer)
        if self.load.leaving:
            self.load.forget(self)
        elif self.last:
            self.load.forget(self)
            self.open()
        else:
            self.load.go_on(self, now)

    def lose(self, why: str) -> None:
        self.load.lost[why] += 1
        self.load.forget(self)
        if not self.load.leaving:
            self.load.paused.append(self)


class Load:
    """``clients`` that ask what ``questions(number)`` yields for each; each gives an answer ``timeout`` seconds."""

    def __init__(self, port: int, clients: int, questions: Questions, timeout: float = 30.0) -> None:
        self.port = port
        self.clients = clients
        self.timeout = timeout
        self.answers: list[Answer] = []
        self.lost: collections.Counter[str] = collections.Counter()
        self.paused: list[Client] = []
        self.leaving = False
        self.scratch = bytearray(PIECE)
        self._epoll = select.epoll()
        self._members: dict[int, Client] = {}
        for number in range(clients):
            Client(self, number, questions(number))

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        for client in list(self._members.values()):
            self.forget(client)
        self._epoll.close()

    def watch(self, client: Client, events: int) -> None:
        self._members[client.socket.fileno()] = client
        self._epoll.register(client.socket, events)

    def change(self, client: Client, events: int) -> None:
        self._epoll.modify(client.socket, events)

    def forget(self, client: Client) -> None:
        """Close the connection of a client; it may open another one."""
        del self._members[client.socket.fileno()]
        client.socket.close()

    def run(self, seconds: float) -> None:
        """Ask for so long."""
        until = time.monotonic() + seconds
        self.run_until(lambda: time.monotonic() >= until)

    def run_until(self, over: Callable[[], bool]) -> None:
        """Ask until ``over``, which is looked at every tick."""
        while True:
            now = time.monotonic()
            self._tick(now)
            if over():
                return
            self._turn(now + TICK_SECONDS)

    def go_on(self, client: Client, now: float) -> None:
        """``client`` is free since ``now``: it asks again at once."""
        client.ask(now)

    def finish(self) -> None:
        """End asking, and wait for what has been asked."""
        self.leaving = True
        self.run_until(lambda: not self._members)

    def _turn(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and self._members:
            for number, events in self._epoll.poll(left):
                # A descriptor number may have been given to another client within this very batch: harmless, it tries.
                if client := self._members.get(number):
                    client.ready(events)
        if left > 0:
            time.sleep(left)  # everybody was refused

    def _tick(self, now: float) -> None:
        for client in list(self._members.values()):
            if client.asked < now - self.timeout:
                client.lose(f"no answer within {self.timeout:g} s")
        again, self.paused = self.paused, []
        for client in again if not self.leaving else ():
            client.open()

    def longest(self) -> float:
        """The longest wait in seconds."""
        return max((answer.seconds for answer in self.answers), default=0.0)

    def why(self) -> str:
        """What became of the lost ones, in words."""
        return ", ".join(f"{count} x {why}" for why, count in self.lost.most_common(3)) or "nothing was answered"


class Arrivals(Load):
    """An open loop: ``rate`` questions a second at random moments, whatever became of those before.

    A question takes the connection that has rested longest; where all of ``clients`` wait for an answer, it waits too,
    and that is part of its time.
    """

    def __init__(self, port: int, clients: int, questions: Questions, rate: float, seed: int) -> None:
        self._between = partial(random.Random(seed).expovariate, rate)
        self._due: collections.deque[float] = collections.deque()
        self._resting: collections.deque[Client] = collections.deque()
        super().__init__(port, clients, questions)
        self._next = time.monotonic() + self._between()

    def go_on(self, client: Client, now: float) -> None:
        if self._due:
            client.ask(self._due.popleft())
        else:
            client.asked = math.inf  # so long it waits for nothing
            self._resting.append(client)

    def _turn(self, until: float) -> None:
        while (now := time.monotonic()) < until:
            while self._next <= now and not self.leaving:
                self._next += self._between()
                self._due.append(now)
                if self._resting:
                    self.go_on(self._resting.popleft(), now)
            super()._turn(min(until, self._next) if not self.leaving else until)

    def finish(self) -> None:
        """End asking, and wait for what has been asked."""
        while self._resting:
            self.forget(self._resting.popleft())
        super().finish()


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
