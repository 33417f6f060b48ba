"""A request of a worker to itself before any client can connect: its answer says whether the application is ready.

The request goes the way of every other one: through a socket pair to a connection of the loop, and to the application.
"""

from __future__ import annotations

import socket
from typing import Final

from forkserver.linux.sockets.plain_socket import socketpair
from forkserver.server.loop.event_loop import EventLoop
from forkserver.server.loop.listener import Listener

_HEAD_BYTES: Final = 64 * 1024


def ask(loop: EventLoop, path: str) -> int:
    """The status code of the answer to ``GET path``, as a client of this machine would get it.

    Raises ConnectionError where there is no answer.
    """
    ours, theirs = socketpair(socket.SOCK_STREAM)
    with ours:
        ours.setblocking(False)
        theirs.setblocking(False)
        server = loop.context.server
        name = f"[{server.server_name}]" if ":" in server.server_name else server.server_name
        host = f"{name}:{server.server_port}"
        ours.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: forkserver\r\nConnection: close\r\n\r\n".encode()
        )
        first = loop.acceptor.listeners[0]
        loop.acceptor.introduce(theirs, ("127.0.0.1", 0), Listener(first.sock, first.names, first.number))
        loop.calls.recycling.allow_one_more()
        loop.poller.watch(
            ours.fileno(), _nothing
        )  # an answer of another thread is nothing that would end the loop's wait
        try:
            return _status(loop, ours)
        finally:
            loop.poller.unwatch(ours.fileno())


def _nothing() -> None:
    """What has come is read between the turns."""


def _status(loop: EventLoop, ours: socket.socket) -> int:
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
