"""The kinds of requests, each with what is wrong with an answer to it.

It promises that a right answer is one that only this request could have got. It refuses to send anything.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from soak import material
from soak.connection import Answer

# How often each kind is asked, in proportion.
WEIGHTS = {
    "small": 1000,
    "whole": 100,
    "file": 80,
    "stream": 80,
    "head": 40,
    "post": 100,
    "chunked": 60,
    "expect": 40,
    "sleep": 50,
    "long": 3,
    "grow": 10,
}
DOWNLOADS = ("whole", "file", "stream")
UPLOADS = ("post", "chunked", "expect")
SLEEP_MS = (50, 300)
LONG_MS = (1000, 2500)
GROW_BYTES = (16 * 1024, 256 * 1024)


@dataclass(slots=True)
class Question:
    """``head`` and ``body`` are the request's bytes, ``right`` is the body that answers it, None for a HEAD."""

    kind: str
    number: int
    path: str
    head: bytes
    body: bytes
    right: bytes | None
    size: int  # of the body that answers it
    waits: bool = False  # for 100 Continue, before it sends its body


def any_kind(chance: random.Random) -> str:
    return chance.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]


def some_size(chance: random.Random, most: int = material.LONGEST) -> int:
    """Any length up to ``most``: the short ones as likely as the long."""
    return int(2 ** chance.uniform(0, most.bit_length() - 1))


def make(
    kind: str, number: int, chance: random.Random, *, close: bool = False, size: int = 0, leak: int = 0
) -> Question:
    """The request ``number``; ``size`` is that of its body, or of the body that answers it; 0 for any.

    ``leak`` is how many bytes the application is to keep for ever, where it is asked to grow.
    """
    size = size or some_size(chance)
    more = "Connection: close\r\n" if close else ""
    if kind in UPLOADS:
        return _upload(kind, number, chance, size, more)
    if kind in (*DOWNLOADS, "head"):
        right = None if kind == "head" else material.piece(number, size)
        return _question(kind, "whole" if kind == "head" else kind, number, str(size), more, right, size)
    if kind == "grow":
        argument = str(leak or chance.randint(*GROW_BYTES))
    elif kind in ("sleep", "long"):
        argument = str(chance.randint(*(SLEEP_MS if kind == "sleep" else LONG_MS)))
    else:
        argument = "-"
    route = "sleep" if kind == "long" else kind
    right = f"{route} {number}".encode()
    return _question(kind, route, number, argument, more, right, len(right))


def overlong(number: int, milliseconds: int) -> Question:
    """A call that lasts longer than ``timeout``."""
    right = f"sleep {number}".encode()
    return _question("overlong", "sleep", number, str(milliseconds), "", right, len(right))


def crash(number: int) -> Question:
    """A call that kills its worker."""
    return _question("crash", "die", number, "-", "", b"", 0)


def lie(number: int, bystander: int) -> Question:
    """A call that lies to the master about the pid ``bystander``, and then kills its worker."""
    return _question("lie", "lie", number, str(bystander), "", b"", 0)


def _question(kind: str, route: str, number: int, argument: str, more: str, right: bytes | None, size: int) -> Question:
    path = f"/{route}/{number}/{argument}"
    method = "HEAD" if kind == "head" else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: soak\r\n{more}\r\n".encode()
    return Question(kind, number, path, head, b"", right, size)


def _upload(kind: str, number: int, chance: random.Random, size: int, more: str) -> Question:
    data = material.piece(number, size)
    right = f"{size} {hashlib.sha256(data).hexdigest()}".encode()
    if kind == "chunked":
        framing, body = "Transfer-Encoding: chunked\r\n", _in_chunks(data, chance)
    else:
        framing, body = f"Content-Length: {size}\r\n", data
    if kind == "expect":
        framing += "Expect: 100-continue\r\n"
    path = f"/digest/{number}/-"
    head = f"POST {path} HTTP/1.1\r\nHost: soak\r\n{framing}{more}\r\n".encode()
    return Question(kind, number, path, head, body, right, len(right), kind == "expect")


def _in_chunks(data: bytes, chance: random.Random) -> bytes:
    framed, at = bytearray(), 0
    while at < len(data):
        block = data[at : at + int(chance.paretovariate(0.5) * 512)]
        framed += b"%x\r\n%b\r\n" % (len(block), block)
        at += len(block)
    return bytes(framed + b"0\r\n\r\n")


def wrong(question: Question, answer: Answer) -> str:
    """What is wrong with an answer of status 200; empty where all is right."""
    number, body = answer.headers.get("x-number"), answer.body
    if number != str(question.number):
        return f"the answer is that of request {number}"
    if question.right is None:
        length = answer.headers.get("content-length")
        return "" if length == str(question.size) else f"Content-Length is {length}, not {question.size}"
    if body == question.right:
        return ""
    if len(body) != len(question.right):
        return f"{len(body)} bytes came, not {len(question.right)}"
    at = next(at for at, (one, other) in enumerate(zip(body, question.right, strict=True)) if one != other)
    return f"byte {at} of {len(body)} and what follows is not of this request: {body[at : at + 40]!r}"
