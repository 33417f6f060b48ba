"""The same requests to a worker with the extension and to one without it, and what differs."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from forkserver.ipc import figures, scoreboard
from forkserver.server.connection import plain_exchange
from harness.plain_reading import OURS
from harness.sealed_client import SealedClient
from harness.worker import Clock, Worker

Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Any]
DATE = re.compile(rb"(Date: )[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n")
OURS_SENT = re.compile(OURS.pattern.encode())
GET = b"GET /a?b HTTP/1.1\r\nHost: a\r\nUser-Agent: tests\r\n\r\n"


HEAD = GET.replace(b"GET", b"HEAD", 1)
OLD = GET.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
KEEP_OLD = OLD.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
REQUESTS = {"get": GET, "two": GET * 2, "head": HEAD, "old": OLD, "old, kept": KEEP_OLD * 2, "close": CLOSE}
ENDS = b"<closed>", b"<reset>"


class Reports(list[Any]):
    """The error log: what it is told of applications, without the tracebacks, whose frames are the server's as well."""

    def error(self, message: str, request_id: str = "") -> None:
        if ": dropped " not in message:  # which is told once in a process
            self.append(OURS.sub("ours", message))

    def exception(self, message: str, error: BaseException, request_id: str = "") -> None:
        self.append((OURS.sub("ours", message), repr(error)))


class Told:
    """What one worker made of the requests."""

    def __init__(self, worker: Worker, application: list[Application], client: ssl.SSLContext | None) -> None:
        self.worker = worker
        self._tls = client
        self.reports = Reports()
        worker.replace(log=self.reports)
        self.lines = worker.access_lines()
        self._application = application

    @property
    def served(self) -> int:
        """Answers of the extension."""
        return self.worker.loop.plain.served if self.worker.loop.plain is not None else 0

    @property
    def counted(self) -> int:
        return int(self.worker.row.words[scoreboard.REQUESTS])

    @property
    def figures(self) -> list[int]:
        """All that does not depend on how long something took: how many durations there are, in place of each."""
        words = self.worker.row.words
        histograms = [sum(words[at + 1 : at + 1 + figures.BUCKETS]) for at in (figures.WAITED, figures.LASTED)]
        return [*words[figures.FIRST : figures.WAITED], *histograms]

    def ask(self, application: Application, requests: bytes = GET) -> list[Any]:
        """Bytes, lines of the access log, how many requests were counted, reports, and what was added to figures."""
        self._application[:] = [application]
        self.lines.clear()
        self.reports.clear()
        before, figures_before = self.counted, self.figures
        client = self.client()
        found, counted = b"", before
        for request in re.split(rb"(?<=\r\n\r\n)", requests)[:-1]:
            with suppress(OSError):
                client.sendall(request)
            counted += 1
            found += self._turn_until(client, lambda counted=counted: self.counted == counted)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        if not found.endswith(ENDS):
            found += self._turn_until(client, lambda: False)
        client.close()
        self.worker.loop.turn(0)
        found = OURS_SENT.sub(b"ours", DATE.sub(rb"\1\r\n", found))
        figured = [after - each for after, each in zip(self.figures, figures_before, strict=True)]
        return [found, list(self.lines), self.counted - before, list(self.reports), figured]

    def client(self) -> Any:
        """One that is connected, and speaks what the worker does."""
        client = self.worker.client()
        return client if self._tls is None else SealedClient(client, self.worker.turn, self._tls)

    def _turn_until(self, client: Any, condition: Callable[[], bool]) -> bytes:
        """What the client gets until then, or until its connection ends."""
        found = b""
        for _ in range(100):
            if condition() or found.endswith(ENDS):
                break
            self.worker.turn()
            found += receive(client)
        return found


def receive(client: Any) -> bytes:
    """What there is now."""
    found = b""
    try:
        while piece := client.recv(1 << 20):
            found += piece
    except BlockingIOError:
        return found
    except OSError:
        return found + b"<reset>"
    return found + b"<closed>"


@contextmanager
def both(client: ssl.SSLContext | None = None, **settings: Any) -> Iterator[tuple[Told, Told]]:
    """A worker with the extension, and one without it; their clients speak TLS by ``client``, if that is given."""
    clock = Clock()
    applications: tuple[list[Application], list[Application]] = [], []
    workers = []
    for number, application in enumerate(applications):

        def call(environ: dict[str, Any], start_response: Any, application: list[Application] = application) -> Any:
            return application[0](environ, start_response)

        with pytest.MonkeyPatch.context() as patch:
            if number:
                patch.setattr(plain_exchange, "load", lambda: None)
            workers.append(Worker(call, clock, number, **settings))
    try:
        yield Told(workers[0], applications[0], client), Told(workers[1], applications[1], client)
    finally:
        for each in workers:
            each.close()
