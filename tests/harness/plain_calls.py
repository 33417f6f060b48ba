"""Every way through the extension, called without a loop: for tests of memory, a million times if need be."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from forkserver.http1.request import read_head
from forkserver.ipc.scoreboard import LINE_BYTES, ROW_WORDS, THREAD_WORDS, WORD
from forkserver.logs.access_format import Part, combined_parts
from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.wsgi.accelerator.loading import load
from harness.corpus import LIMITS

EXTENSION: Any = load()
HEAD = (
    b"GET /a%20b?x=1 HTTP/1.1\r\nHost: a:80\r\nX-Forwarded-For: 10.0.0.1\r\nX-Odd-Name:  q\t\r\n"
    b"X-Forwarded-Proto: https\r\nReferer: r\r\nUser-Agent: \xff\r\n\r\n"
)
HEADS = (
    HEAD,
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    HEAD + b"x",
    HEAD.replace(b"a:80", b"a b"),
    HEAD.replace(b"X-Odd", b"User"),
)
FACTS = ("127.0.0.1", "4711", "name", "80", True, None, None)
SECURE = {"HTTPS": "on", "wsgi.url_scheme": "https"}


def faulty(_answer: bytes) -> bytes:
    raise ValueError


# What a transport that seals gives back: nothing is left, something is, the client has gone; and what it must not.
SENDS: tuple[Callable[[bytes], Any], ...] = (
    lambda _answer: b"",
    lambda answer: answer[-9:],
    lambda _answer: None,
    lambda _answer: "text",
    faulty,
)
ALL_FACTS = (FACTS, *((*FACTS[:5], SECURE, send) for send in SENDS))
Start = Callable[..., Any]


def plain(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"hi"]


def large(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [("X-A", "b" * 3000)])
    return (b"x" * 40_000,)


def several(environ: dict[str, Any], start_response: Start) -> Any:
    environ.update(REMOTE_ADDR='"', REMOTE_USER=7)
    start_response("200 OK", [])
    return [b"a", b"b"]


def writes(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])(b"x")
    return []


def stream(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [("X-A", "b")])
    return iter([b"x"])


def odd(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [("Date", "b")])
    return [b"x"]


def raises(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])
    raise ValueError


def hints(environ: dict[str, Any], start_response: Start) -> Any:
    environ.get("wsgi.early_hints", list)([])
    start_response("204 No Content", [])
    return []


def generates(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [("Content-Length", "2")])
    yield b"hi"


class Closing:
    """An iterable as frameworks return it."""

    def __init__(self, *blocks: bytes, fault: bool = False) -> None:
        self._blocks = blocks
        self._fault = fault

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._blocks)

    def close(self) -> None:
        if self._fault:
            raise ValueError

    def __call__(self, _environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "2")])
        return self


class Keeps:
    """Keeps what it was called with."""

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Any:
        self.kept = environ, start_response, start_response("200 OK", [])
        return [b"x"]


APPLICATIONS = (plain, large, several, writes, stream, odd, raises, hints, Keeps(), generates)
APPLICATIONS += Closing(b"hi", b""), Closing(b"h", b"i"), Closing(b"hi", b"more"), Closing(b"hi", fault=True)
WAYS = len(HEADS) * len(APPLICATIONS)
SEALED_WAYS = range(0, WAYS * len(ALL_FACTS), len(HEADS))  # the first head, in every way to send


class _Response:
    """In place of the Response that goes on."""

    def __init__(self) -> None:
        self.sink = self

    def start_response(self, *_arguments: object) -> Any:
        return self.write

    def write(self, _data: bytes) -> None: ...
    def early_hints(self, _headers: list[Any]) -> None: ...
    def report(self, _message: str, _error: object = None) -> None: ...


def make_row() -> memoryview:
    return memoryview(bytearray((ROW_WORDS + THREAD_WORDS) * WORD + LINE_BYTES))


class PlainCalls:
    """A context with everything there is, and a client that takes what is sent."""

    def __init__(self, row: memoryview | None = None, parts: tuple[Part, ...] = combined_parts()) -> None:
        self.lock = LoopLock()
        self.lock.acquire()
        self._ours, self._client = socket.socketpair()
        self._client.setblocking(False)
        self._connection = SimpleNamespace(fd=self._ours.fileno())
        self.logged = 0
        self.loop = SimpleNamespace(dozing=False, closing=False, retiring=False)
        self.row = row or make_row()
        self.context = EXTENSION.Context(
            (LIMITS.request_line, LIMITS.fields, LIMITS.field_size, LIMITS.head),
            {"x-forwarded-for", "x-forwarded-proto"}, None, ("x-request-id",), b"X-Request-Id",
            SimpleNamespace(environ={"CONTENT_LENGTH": ""}),
            self.loop, self.lock, lambda _connection, _request: _Response(),
            lambda raw: read_head(raw, LIMITS), b"Server: tests\r\n", self.row, 1, 10**9, self.add_lines,
            self.log_answer, parts,
        )  # fmt: skip

    def log_answer(self, *_facts: object) -> None:
        self.logged += 1

    def add_lines(self, lines: bytes) -> None:
        self.logged += lines.count(b"\n")

    def call(self, way: int) -> None:
        """One of WAYS requests, and again for each way to send."""
        head = HEADS[way % len(HEADS)]
        request = self.context.take(head, ALL_FACTS[way // WAYS % len(ALL_FACTS)])
        if request is head:
            return
        outcome = None
        with suppress(ValueError, TypeError):
            application = APPLICATIONS[way // len(HEADS) % len(APPLICATIONS)]
            outcome = request.answer(application, self._connection, 0, bool(way % 2))
        if outcome is not True and outcome is not False:
            self._go_on(request)
        with suppress(BlockingIOError):
            while self._client.recv(1 << 20):
                continue

    def _go_on(self, request: Any) -> None:
        try:
            assert request.response is request.adopt()
            for name in ("line", "protocol", "text", "fields", "environ"):
                getattr(request, name)
            request.report("told")
        finally:
            request.finish()

    def close(self) -> None:
        self._ours.close()
        self._client.close()

    def references(self) -> dict[str, int]:
        """Of constants and of what stays; and how many blocks and objects there are."""
        gc.collect()
        found = {name: sys.getrefcount(value) for name, value in vars(self).items() if name != "logged"}
        constants = {"none": None, "true": True, "fact": FACTS[0], "key": "REMOTE_ADDR", "type": EXTENSION.Request}
        found |= {name: sys.getrefcount(value) for name, value in constants.items()}
        return found | {"blocks": sys.getallocatedblocks(), "objects": len(gc.get_objects())}


def made(parts: tuple[Part, ...] = combined_parts()) -> Iterator[PlainCalls]:
    """One, closed at the end."""
    calls = PlainCalls(parts=parts)
    yield calls
    calls.close()
