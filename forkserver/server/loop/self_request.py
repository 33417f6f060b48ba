"""A request that a worker asks itself before anybody else can: whether it is ready is for the application to say.

It promises that the request goes the way of every other, through the loop to the application. It refuses to judge the
answer.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from forkserver.server.loop.acceptor import Listener

if TYPE_CHECKING:
    from forkserver.server.loop.event_loop import Loop

_HEAD_BYTES: Final = 64 * 1024


def ask(loop: Loop, path: str) -> int:
    """The status code of the answer to ``GET path``, as a client of this machine would get it.

    Raises ConnectionError where there is no answer.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        ours.setblocking(False)
        theirs.setblocking(False)
        server = loop.server
        name = f"[{server.server_name}]" if ":" in server.server_name else server.server_name
        host = f"{name}:{server.server_port}"
        ours.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: forkserver\r\nConnection: close\r\n\r\n".encode()
        )
        first = loop.acceptor.listeners[0]
        loop.acceptor.introduce(theirs, ("127.0.0.1", 0), Listener(first.sock, first.names, first.number))
        loop.allow_one_more()
        loop.watch(ours.fileno(), _nothing)  # an answer of another thread is nothing that would end the loop's wait
        try:
            return _status(loop, ours)
        finally:
            loop.unwatch(ours.fileno())


def _nothing() -> None:
    """What has come is read between the turns."""


def _status(loop: Loop, ours: socket.socket) -> int:
    """Turn the loop until the whole answer is there."""
    came = b""
    while True:
        loop.turn(0)
        try:
            data = ours.recv(_HEAD_BYTES)
        except BlockingIOError:
            loop.turn()
            continue
        if not data:
            break
        came = (came + data)[:_HEAD_BYTES]
    words = came.split(b" ", 2)
    if len(words) < 3 or not words[1].isdigit():
        raise ConnectionError("the connection ended without an answer")
    return int(words[1])
