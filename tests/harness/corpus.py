"""The corpus of raw requests, and what a connection would make of a stream of bytes: requests and a refusal."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forkserver.config import settings
from forkserver.errors import ProtocolError
from forkserver.http1.body import Body, ChunkedBody, FixedBody
from forkserver.http1.headers import HeadLimits
from forkserver.http1.request import RequestHead, read_head

CORPUS = Path(__file__).parents[1] / "corpus"
INDEX: dict[str, dict[str, Any]] = tomllib.loads((CORPUS / "index.toml").read_text())
LIMITS = HeadLimits.of(settings.defaults())
SMALL = HeadLimits(40, 4, 30, 120, 12, refuses_underscores=True)  # that random bytes run into
GOOD = b"GET /good-behind HTTP/1.1\r\nHost: good.example\r\n\r\n"


def raw(kind: str, name: str) -> bytes:
    """The bytes of a corpus file; ``kind`` is "reject" or "accept"."""
    return (CORPUS / kind / f"{name}.http").read_bytes()


class CountedSearches:
    """In place of a pattern: it searches as that does, and counts the bytes that it had to look at."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.looked_at = 0

    def search(self, data: bytes, at: int = 0) -> re.Match[bytes] | None:
        self.looked_at += len(data) - at
        return self._pattern.search(data, at)


@dataclass
class Request:
    """All that a request is read as."""

    method: str
    target: str
    path: str
    query: str
    authority: str | None
    line: bytes
    protocol: str
    environ: dict[str, str]
    length: int | None
    chunked: bool
    persistent: bool
    expects_continue: bool
    body: bytes = field(default=b"")


@dataclass
class Stream:
    """What was read of a stream: whole requests, then perhaps the status with which the rest is refused."""

    requests: list[Request]
    refused: int | None = None
    unfinished: bool = False  # the stream ended within a request


def read(pieces: Iterable[bytes], limits: HeadLimits = LIMITS) -> Stream:
    """Read a connection's bytes as they come in ``pieces``."""
    return _Reading(limits).run(pieces)


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


class _Reading:
    def __init__(self, limits: HeadLimits) -> None:
        self.limits = limits
        self.buffer = b""
        self.scanned = 0
        self.body: Body | None = None
        self.stream = Stream([])

    def run(self, pieces: Iterable[bytes]) -> Stream:
        try:
            for piece in pieces:
                self.buffer += piece
                while self.buffer and self._step():
                    continue
        except ProtocolError as error:
            if self.body is not None:  # its request is never handed to an application
                self.stream.requests.pop()
            self.stream.refused = error.status
            return self.stream
        self.stream.unfinished = bool(self.buffer) or self.body is not None
        return self.stream

    def _step(self) -> bool:
        """Take the next piece of what is buffered; False where more is needed."""
        return self._head() if self.body is None else self._rest_of_body(self.body)

    def _head(self) -> bool:
        head = read_head(self.buffer, self.limits, self.scanned)
        self.scanned = 0 if head else len(self.buffer)
        if head is None:
            return False
        self.stream.requests.append(_request(head))
        self.buffer = self.buffer[head.size :]
        if head.has_body:
            self.body = ChunkedBody(self.limits.max_body) if head.chunked else FixedBody(head.length or 0)
        return True

    def _rest_of_body(self, body: Body) -> bool:
        self.stream.requests[-1].body += body.feed(self.buffer)
        self.buffer = body.rest
        if body.done:
            self.body = None
        return body.done


def _request(head: RequestHead) -> Request:
    return Request(
        method=head.method,
        target=head.target,
        path=head.path,
        query=head.query,
        authority=head.authority,
        line=head.line,
        protocol=head.protocol,
        environ=dict(head.fields),
        length=head.length,
        chunked=head.chunked,
        persistent=head.persistent,
        expects_continue=head.expects_continue,
    )
