"""Keep-alive clients that ask without pause, all turned by one thread so that they do not wait for each other.

Every request is accounted for: answered, or lost. A connection that the server ends after ``Connection: close`` is
opened again, as any client does; one that ends without an answer is a request lost.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from harness import BOUND
from harness.clients import Address, request


class Answered(NamedTuple):
    asked: float  # time.monotonic
    answered: float
    status: int
    body: str


class _Client:
    """One connection: what it has asked and what has come back so far."""

    def __init__(self, address: Address, question: bytes, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self.tls = tls
        self.question = question
        self.open()

    def open(self) -> None:
        """Begin to connect, without waiting: an unanswered SYN must not keep the other clients from asking."""
        self.came = b""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        try:
            if family == socket.AF_UNIX:
                self.socket.connect(self.address)
                self.socket.setblocking(False)
                return
            self.socket.setblocking(False)
            self.socket.connect_ex(self.address)
        except OSError:
            self.socket.close()
            raise

    def connected(self) -> None:
        """The attempt is over; ask, or raise what became of it."""
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        if self.tls is not None:
            self.socket.settimeout(BOUND)
            self.socket = self.tls.wrap_socket(self.socket, server_hostname="localhost", suppress_ragged_eofs=False)
            self.socket.setblocking(False)
        self.ask()

    def ask(self) -> None:
        self.came = b""
        self.asked = time.monotonic()
        self.socket.sendall(self.question)

    def read(self) -> tuple[Answered, bool] | None:
        """A whole answer and whether it is the connection's last, or None while more must come."""
        try:
            data = self.socket.recv(65536)
        except ssl.SSLWantReadError:  # a session ticket, or half a record
            return None
        if not data:
            raise ConnectionResetError("end of the connection in place of an answer")
        self.came += data
        head, found, body = self.came.partition(b"\r\n\r\n")
        if not found:
            return None
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
        if len(body) < length:
            return None
        assert len(body) == length, f"more than was asked for: {self.came!r}"
        answered = Answered(self.asked, time.monotonic(), int(lines[0].split()[1]), body.decode())
        return answered, "connection: close" in lines or lines[0].startswith("http/1.0")


class Load:
    """``clients`` connections to ``address``, from ``__enter__`` until ``__exit__``."""

    def __init__(
        self,
        address: Address,
        clients: int = 16,
        target: str = "/",
        headers: str = "",
        tls: ssl.SSLContext | None = None,
        method: str = "GET",
        body: bytes = b"",
    ) -> None:
        self.address = address
        self.tls = tls
        self.clients = clients
        self.question = request(target, method=method, headers=headers, body=body)
        self.answers: list[Answered] = []
        self.lost: list[str] = []
        self._news = threading.Condition()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Stop asking, and wait for what is asked already."""
        self._leave.set()
        self._thread.join(BOUND)
        assert not self._thread.is_alive(), "a request was never answered"

    def more(self, count: int) -> None:
        """Wait until ``count`` further requests have been answered."""
        with self._news:
            goal = len(self.answers) + count
            met = self._news.wait_for(lambda: len(self.answers) >= goal or not self._thread.is_alive(), BOUND)
        assert met, f"no answers any more; lost so far: {self.lost}"
        assert len(self.answers) >= goal, f"the clients broke off; lost: {self.lost}"

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds, looking again after each answer."""
        with self._news:
            met = self._news.wait_for(condition, BOUND)
        assert met, f"{what} never came; lost so far: {self.lost}"

    def after(self, moment: float) -> list[Answered]:
        """Answers to requests that were asked after ``moment``."""
        return [answer for answer in self.answers if answer.asked > moment]

    def longest(self) -> float:
        """The longest any client waited for an answer, in seconds."""
        return max(answer.answered - answer.asked for answer in self.answers)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            self._selector = selector
            for _ in range(self.clients):
                self._open()
            while selector.get_map():
                for key, events in selector.select(BOUND) or self._silence():
                    self._turn(key.data, events)
        with self._news:
            self._news.notify_all()

    def _silence(self) -> list[tuple[selectors.SelectorKey, int]]:
        raise AssertionError(f"no answer came for {BOUND} seconds")

    def _open(self) -> None:
        try:
            client = _Client(self.address, self.question, self.tls)
        except OSError as error:
            self.lost.append(f"connecting: {error!r}")
            return
        self._selector.register(client.socket, selectors.EVENT_WRITE, client)

    def _turn(self, client: _Client, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._connected(client)
            return
        try:
            found = client.read()
            if found is None:
                return
            answered, last = found
            with self._news:
                self.answers.append(answered)
                self._news.notify_all()
            if not last and not self._leave.is_set():
                client.ask()
                return
        except OSError as error:
            self.lost.append(f"after {len(client.came)} bytes: {error!r}")
        self._close(client)
        if not self._leave.is_set():
            self._open()

    def _connected(self, client: _Client) -> None:
        """Ask on a connection that is there; a client that is refused does not come again."""
        try:
            client.connected()
        except OSError as error:
            self.lost.append(f"connecting: {error!r}")
            self._close(client)
            return
        self._selector.modify(client.socket, selectors.EVENT_READ, client)

    def _close(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
