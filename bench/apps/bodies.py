"""Bodies by the first step of the path: ``/10k/…``, ``/1m/…``, ``/chunks/…``, ``/post/…``, ``/file/PATH``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., object]
BLOCK = 65536
TEN_KB = b"x" * 10_000
MEGABYTE = b"x" * 1_000_000


def fields(environ: Environ, length: int | None) -> list[tuple[str, str]]:
    size = [] if length is None else [("Content-Length", str(length))]
    return [("Content-Type", "application/octet-stream"), *size, ("X-Seen", environ["PATH_INFO"][:40])]


def fixed(body: bytes) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", fields(environ, len(body)))
        return [body]

    return answer


def chunks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", fields(environ, None))
    return (b"x" * 100 for _ in range(100))


def post(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    left, stream = int(environ["CONTENT_LENGTH"]), environ["wsgi.input"]
    while left and (piece := stream.read(min(BLOCK, left))):
        left -= len(piece)
    if left:
        raise EOFError(f"{left} bytes of the body are missing")
    start_response("200 OK", fields(environ, 3))
    return [b"ok\n"]


def file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    opened = open(environ["PATH_INFO"].removeprefix("/file"), "rb")
    start_response("200 OK", fields(environ, os.fstat(opened.fileno()).st_size))
    wrapper = environ.get("wsgi.file_wrapper", blocks)
    result: Iterable[bytes] = wrapper(opened, BLOCK)
    return result


def blocks(opened: Any, size: int) -> Iterator[bytes]:
    with opened:
        while piece := opened.read(size):
            yield piece


KINDS = {"10k": fixed(TEN_KB), "1m": fixed(MEGABYTE), "chunks": chunks, "post": post, "file": file}


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    kind = environ["PATH_INFO"].split("/", 2)[1] or "10k"
    return KINDS[kind](environ, start_response)
