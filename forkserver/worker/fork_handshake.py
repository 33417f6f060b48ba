"""What connects a template to a worker that is being forked.

A worker is forked twice: the process between ends at once, so that the worker becomes the child of the master, the
nearest subreaper (prctl(2)), and outlives its template. The process between sends the worker's pid and pidfd to the
template; the worker waits at a gate until its pid has been reported to the master.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing
from typing import NamedTuple

from forkserver.ipc.channel import Channel
from forkserver.linux.sockets.plain_socket import socketpair


class ForkHandshake(NamedTuple):
    """The worker's channel, a pair of sockets and a pipe.

    The worker's pid and pidfd go from ``theirs`` to ``ours``; ``gate`` ends when no process has ``gatepost`` any more.
    """

    channel: Channel
    ours: socket.socket
    theirs: socket.socket
    gate: int
    gatepost: int

    def close(self) -> None:
        for end in (self.channel, self.ours, self.theirs):
            end.close()
        os.close(self.gate)
        os.close(self.gatepost)


def open_handshake(end: tuple[int, ...]) -> ForkHandshake:
    """The handshake for the worker whose channel has that ``end``. Raises OSError, with nothing left open."""
    with ExitStack() as opened:
        channel = opened.enter_context(closing(Channel.of(end)))
        ours, theirs = map(opened.enter_context, socketpair(socket.SOCK_SEQPACKET))
        for end_of_pair in (ours, theirs):
            end_of_pair.setblocking(True)  # the application may have set a default timeout
        made = ForkHandshake(channel, ours, theirs, *os.pipe())
        opened.pop_all()
    return made
