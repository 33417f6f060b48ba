"""What a worker makes of orders and signals until it is told to serve."""

from __future__ import annotations

import os
import socket

import pytest

from forkserver.ipc import messages
from forkserver.ipc.channel import close_all
from forkserver.linux import signals
from forkserver.worker.serving import WorkerOrders
from harness.worker_process import StartWorker


def test_listeners_come_with_their_numbers_and_the_ends_of_the_queue(start_worker: StartWorker) -> None:
    waiting = start_worker()
    give, take = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ends = [one.fileno(), two.fileno(), give, take]
        waiting.master.send(messages.Serve(siblings=True, maintenance=False, numbers="7,-9"), ends)
        given = waiting.wait()
        assert isinstance(given, WorkerOrders)
        addresses = [(number, listener.getsockname()) for number, listener in given.listeners]
        assert addresses == [(7, one.getsockname()), (-9, two.getsockname())]
    assert given.handoff is not None
    pairs = zip(given.handoff, (give, take), strict=True)
    assert all(os.path.sameopenfile(ours, theirs) for ours, theirs in pairs)
    for _, listener in given.listeners:
        listener.close()
    close_all((*given.handoff, give, take))


def test_a_stop_announced_before_is_remembered(start_worker: StartWorker) -> None:
    """It would otherwise be the one worker that keeps clients for the next second."""
    waiting = start_worker()
    waiting.master.send(messages.Drain())
    waiting.master.send(messages.Drop(3))
    with socket.create_server(("127.0.0.1", 0)) as one:
        waiting.master.send(messages.Serve(siblings=True, maintenance=False, numbers="1"), [one.fileno()])
        given = waiting.wait()
    assert isinstance(given, WorkerOrders)
    assert (given.drain, given.handoff) == (True, None)
    given.listeners[0][1].close()
    assert ("drain",) in waiting.serving(drain=True).told


@pytest.mark.parametrize("number", [signals.LEAVE, signals.LEAVE_NOW])
def test_a_signal_of_the_masters_ends_the_waiting(start_worker: StartWorker, number: int) -> None:
    waiting = start_worker()
    waiting.noted.send(number)
    assert waiting.wait() == "stop"


def test_an_order_that_comes_with_that_signal_says_why(start_worker: StartWorker) -> None:
    waiting = start_worker()
    waiting.master.send(messages.Retire(1.0, handoff=True, why="reload"))
    waiting.noted.send(signals.LEAVE)
    assert waiting.wait() == "reload"


def test_an_order_to_retire_ends_the_waiting(start_worker: StartWorker) -> None:
    waiting = start_worker()
    waiting.master.send(messages.Retire(1.0, handoff=True, why="fewer workers"))
    assert waiting.wait() == "fewer workers"


def test_the_end_of_the_master_ends_the_waiting(start_worker: StartWorker) -> None:
    waiting = start_worker()
    waiting.master.close()
    assert waiting.wait() == "master gone"


def test_maintenance_holds_from_the_first_request_on(start_worker: StartWorker) -> None:
    """A worker that is born meanwhile must not answer one request with the application before it hears of it."""
    waiting = start_worker()
    waiting.master.send(messages.Maintain(on=False))  # overtaken by what the order to serve says
    with socket.create_server(("127.0.0.1", 0)) as one:
        waiting.master.send(messages.Serve(siblings=True, maintenance=True, numbers="1"), [one.fileno()])
        given = waiting.wait()
    assert isinstance(given, WorkerOrders)
    assert given.maintenance
    given.listeners[0][1].close()
    assert ("maintain", True) in waiting.serving(maintenance=True).told
