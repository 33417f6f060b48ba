"""How a connection begins in this worker: accepted from the kernel, or handed on by a sibling.

A connection of which nothing was read yet is as good in one worker as in another: it has no keys, and its request is in
the kernel. So a retiring worker hands on unread what it takes from a listener's queue, TLS included, and reads only
what no sibling can have. Where a connection comes from a sibling without data, what its client has sent meanwhile has
waited for a worker: it is read before any deadline is judged.
"""

from __future__ import annotations

from forkserver.server.connection.connection import Connection
from forkserver.server.connection.states import BODY, READING, READY
from forkserver.server.handoff.balancer import Balancer
from forkserver.server.handoff.queue import HandedConnection
from forkserver.server.pressure.accept_delay import AcceptDelay
from forkserver.server.proxy.client_address import ProxiedAddress


def begin(connection: Connection, balancer: Balancer | None) -> None:
    """Read what has come with a new connection without asking epoll first: most clients send their request with it.

    In a worker that retires another gets it by way of ``balancer``, where that serves sooner.
    """
    loop = connection.loop
    if loop.context.hooks.verify_request and not connection.is_wanted():
        connection.turn_away()
        return
    if loop.retiring and balancer is not None and balancer.serves_sooner() and balancer.give(connection, b""):
        return
    if connection.interest:  # a PROXY header has come meanwhile: what follows is for the connection to read
        loop.poller.watch_reading(connection)
    connection.readable()
    if connection.state == READING and connection.queue is None:
        connection.wait_in(loop.timeouts.heads)
    _watch(connection)


def go_on(connection: Connection, handed: HandedConnection) -> None:
    """Go on where the worker that has ``handed`` this connection on has stopped, with the data that it has read.

    A whole request was whole ``handed.since`` then; else the rest of it, or the next one, has until the deadline.
    """
    loop = connection.loop
    if isinstance(handed.peer, ProxiedAddress):
        connection.set_client_address(handed.peer)
    if handed.data:
        connection.receive(handed.data, invited=True)  # a worker that has a whole head hands on a whole request
        if connection.state is READY and handed.since:
            loop.calls.backdate(connection, handed.since)
        if connection.queue is loop.timeouts.heads:
            loop.timeouts.put_until(loop.timeouts.heads, connection, handed.deadline)
    else:
        _wait(connection, handed.deadline)
        _read_what_waits(connection)
    _watch(connection)


def _wait(connection: Connection, deadline: float) -> None:
    """Nothing was read of the next request, or of a handshake."""
    timeouts = connection.loop.timeouts
    if timeouts.resting is not timeouts.idle:  # this worker leaves, too
        connection.wait_in(timeouts.resting)
        return
    queue = timeouts.idle if connection.listener.tls is None else timeouts.heads
    connection.wait_in(queue)
    timeouts.put_until(queue, connection, deadline)


def _read_what_waits(connection: Connection) -> None:
    """Read what its client has sent while it was in the queue between workers, and before."""
    timeouts = connection.loop.timeouts
    if not connection.listener.unix:
        AcceptDelay().measure(connection, timeouts.now)
    connection.readable()
    if connection.state is READING and connection.begun and not connection.buffer:
        connection.wait_in(timeouts.heads)  # it is not the client who was late with its part of the handshake


def _watch(connection: Connection) -> None:
    if connection.state in (READING, BODY) and not connection.interest:
        connection.loop.poller.watch_reading(connection)
