"""How often the master is asked."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.ipc.status_channel import NoStatusError
from forkserver.worker.admin.status_cache import FRESH_SECONDS, WAIT_SECONDS, StatusCache


class Master:
    """Notes how long each question waits; ``well`` says whether it answers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.well = True
        self.waits: list[float] = []

    def ask(self, seconds: float) -> dict[str, Any]:
        self.waits.append(seconds)
        if not self.well:
            raise NoStatusError("no answer")
        return {"number": len(self.waits)}


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.fixture
def cache(master: Master) -> StatusCache:
    return StatusCache(master.ask, lambda: master.now)


def test_the_master_is_asked_four_times_a_second_however_many_ask_here(master: Master, cache: StatusCache) -> None:
    for tick in range(1000):
        master.now = 100.0 + tick / 1000
        cache.get()
    assert len(master.waits) == 4
    assert FRESH_SECONDS == 0.25


def test_after_one_wait_in_vain_no_client_waits_until_it_answers(master: Master, cache: StatusCache) -> None:
    """They all wait in one thread: each would make the next wait longer."""
    master.well = False
    for _ in range(3):
        master.now += FRESH_SECONDS
        with pytest.raises(NoStatusError):
            cache.get()
    assert master.waits == [WAIT_SECONDS, 0.0, 0.0]
    master.well = True
    master.now += FRESH_SECONDS
    assert cache.get() == {"number": 4}
