"""What connects a template to the workers that are being forked.

The process between the two forks (worker_forks.py) sends each worker's pid and pidfd to the template; the workers wait
at a gate until these have been reported to the master.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing

from forkserver.ipc.channel import Channel, close_all
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets.plain_socket import socketpair


class ForkHandshake(NamedTuple):
    """The channel of each worker, a pair of sockets and a pipe.

    Pids and pidfds go from ``theirs`` to ``ours``; ``gate`` ends when no process has ``gatepost`` any more.
    """

    channels: tuple[Channel, ...]
    ours: socket.socket
    theirs: socket.socket
    gate: int
    gatepost: int

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
        self.ours.close()
        self.theirs.close()
        os.close(self.gate)
        os.close(self.gatepost)


def open_handshake(ends: Sequence[tuple[int, ...]]) -> ForkHandshake:
    """The handshake for the workers whose channels have these ``ends``. Raises OSError, with nothing left open."""
    with ExitStack() as opened:
        left = list(ends)
        opened.callback(lambda: close_all(itertools.chain(*left)))
        channels = []
        while left:
            channels.append(opened.enter_context(closing(Channel.of(left.pop(0)))))
        ours, theirs = map(opened.enter_context, socketpair(socket.SOCK_SEQPACKET))
        for end_of_pair in (ours, theirs):
            end_of_pair.setblocking(True)  # the application may have set a default timeout
        made = ForkHandshake(tuple(channels), ours, theirs, *os.pipe())
        opened.pop_all()
    return made
