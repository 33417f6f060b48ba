"""Beginning a profile: each worker is ordered to sample itself, and the client gets what it reads the samples from.

The samples go past the master: it makes a ring of sealed memory with its bell, and a pair of sockets, for each worker,
hands one half to the worker and the other to the client, and keeps nothing. Neither half can hurt it at its close: the
memory carries no descriptor, the client's socket is shut for reading, so that no worker can send on the other, and the
worker's is closed before any client has got the other. The sockets tell each side of the end of the other.

Source: memfd_create(2), eventfd(2), unix(7), shutdown(2).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Final

from forkserver.ipc import report_ring
from forkserver.ipc.channel import MAX_DESCRIPTORS
from forkserver.ipc.messages import BeginProfile
from forkserver.linux.sockets.plain_socket import socketpair
from forkserver.master.control.protocol import CommandError
from forkserver.master.model.lifecycle import Worker

DESCRIPTORS_EACH: Final = 3  # of a worker, for the client: memory, bell, socket
MOST_PROFILED: Final = 64  # workers of one profile

assert MOST_PROFILED * DESCRIPTORS_EACH <= MAX_DESCRIPTORS

Order = Callable[[Worker, BeginProfile, Iterable[int]], bool]


def begin(workers: list[Worker], order: BeginProfile, send: Order) -> tuple[dict[str, Any], list[int]]:
    """Have ``workers`` begin; what the client is told, and its descriptors, DESCRIPTORS_EACH for each worker named.

    ``send`` says whether an order went. Raises CommandError where no worker has begun.
    """
    begun: list[Worker] = []
    left_out = [(worker, f"{MOST_PROFILED} workers are sampled at most") for worker in workers[MOST_PROFILED:]]
    with ExitStack() as opened:
        descriptors: list[int] = []
        for worker in workers[:MOST_PROFILED]:
            try:
                halves = _begin(worker, order, send)
            except OSError as error:
                raise CommandError(f"no profile can be made: {error.strerror}; ask again in a moment") from None
            if not halves:
                left_out.append((worker, "it takes no orders: it is stopped, or stuck in C code"))
                continue
            begun.append(worker)
            descriptors += halves
            for number in halves:
                opened.callback(os.close, number)
        if not begun:
            raise CommandError("; ".join(f"{worker}: {why}" for worker, why in left_out))
        opened.pop_all()
    shown = [{"worker": each.slot + 1, "pid": each.pid, "generation": each.generation} for each in begun]
    missing = [{"worker": each.slot + 1, "pid": each.pid, "why": why} for each, why in left_out]
    return {"ok": True, "workers": shown, "left_out": missing}, descriptors


def _begin(worker: Worker, order: BeginProfile, send: Order) -> list[int]:
    """The client's half for ``worker``; empty where the order does not go. Raises OSError."""
    with ExitStack() as opened:
        ends = report_ring.make_ends()
        opened.callback(ends.close)
        ours, theirs = socketpair(socket.SOCK_STREAM)
        opened.enter_context(ours)
        ours.shutdown(socket.SHUT_RD)
        with theirs:
            if not send(worker, order, (*ends, theirs.fileno())):
                return []
        opened.pop_all()
        return [*ends, ours.detach()]
