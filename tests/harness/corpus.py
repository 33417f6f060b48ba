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
from forkserver.http1.headers import FieldMemo, HeaderBlock, Limits
from forkserver.http1.request import HeadReader

CORPUS = Path(__file__).parents[1] / "corpus"
INDEX: dict[str, dict[str, Any]] = tomllib.loads((CORPUS / "index.toml").read_text())
LIMITS: Limits = settings.defaults()
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


@dataclass(frozen=True)
class Small:
    """Limits that random bytes run into."""

    limit_request_line: int = 40
    limit_request_fields: int = 4
    limit_request_field_size: int = 30
    limit_request_head: int = 120
    max_body: int = 12
    header_map: str = "refuse"


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


def read(
    pieces: Iterable[bytes], limits: Limits = LIMITS, *, strictly: bool = False, memo: FieldMemo | None = None
) -> Stream:
    """Read a connection's bytes as they come in ``pieces``; ``strictly``: each head as if it were the first.

    ``memo`` is what other connections have left.
    """
    return _Reading(limits, strictly, memo or FieldMemo(limits)).run(pieces)


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


class _Reading:
    def __init__(self, limits: Limits, strictly: bool, memo: FieldMemo) -> None:
        self.limits = limits
        self.strictly = strictly
        self.reader = HeadReader(memo)
        self.buffer = b""
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
        block = self.reader.read(self.buffer)
        if block is None:
            return False
        self.stream.requests.append(_request(self.reader, self.reader.whole(block)))
        self.buffer = self.reader.rest
        if block.has_body:
            self.body = ChunkedBody(self.limits.max_body) if block.chunked else FixedBody(block.length or 0)
        if self.strictly:
            self.reader = HeadReader(FieldMemo(self.limits))
        return True

    def _rest_of_body(self, body: Body) -> bool:
        self.stream.requests[-1].body += body.feed(self.buffer)
        self.buffer = body.rest
        if body.done:
            self.body = None
        return body.done


def _request(reader: HeadReader, block: HeaderBlock) -> Request:
    return Request(
        method=reader.method,
        target=reader.target,
        path=reader.path,
        query=reader.query,
        authority=reader.authority,
        line=reader.line,
        protocol=block.protocol,
        environ=dict(block.environ),
        length=block.length,
        chunked=block.chunked,
        persistent=block.persistent,
        expects_continue=block.expects_continue,
    )
