"""The status line in words."""

from __future__ import annotations

from forkserver.master.control.reload_waiters import ReloadWaiters
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import State
from forkserver.master.reporting.status_text import StatusText
from harness.model import House


def text(house: House) -> StatusText:
    return StatusText(house.rollout, ReloadWaiters())


def test_a_start_says_how_many_workers_serve_already() -> None:
    """A start of many workers takes a while, and the service manager shows the line meanwhile."""
    house = House(2)
    assert text(house).line() == "starting"
    house.load()
    house.become_ready(house.ordered()[0])
    assert text(house).line() == "starting: 1 of 2 workers"


def test_a_worker_that_ends_is_told_with_what_follows() -> None:
    house = House(2)
    house.load()
    house.boot_all()
    assert text(house).line("7 requests") == "generation 1 serves: 2 workers, 7 requests"
    (worker, _) = house.fleet.serving()
    house.kill(worker.slot)
    assert text(house).prospect(worker, house.now) == "it is replaced"
    house.rollout.stop(house.now, house.now)
    assert text(house).prospect(worker, house.now) == "it is not replaced: the service stops"
    assert text(house).line() == "stopping: 1 worker"


def test_while_old_workers_finish_the_newer_generation_takes_new_requests() -> None:
    """A download may last an hour after a reload: that old code still answers is not that it serves."""
    house = House(2)
    house.load()
    house.boot_all()
    house.begin(Purpose.RELOAD)
    house.load()
    while ordered := house.ordered():
        house.become_ready(ordered[0])
    assert len(house.fleet.workers) == 4, "two have been told to leave, and finish"
    assert text(house).line() == (
        "generation 2 takes all new requests: 2 workers; workers of generation 1 finish what they have begun"
    )
    house.leave(State.DRAINING)
    assert text(house).line() == "generation 2 serves: 2 workers"
