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


def test_a_master_that_answers_again_is_heard_again(master: Master, cache: StatusCache) -> None:
    master.well = False
    for _ in range(3):
        master.now += FRESH_SECONDS
        with pytest.raises(NoStatusError):
            cache.get()
    master.well = True
    with pytest.raises(NoStatusError):
        cache.get()
    master.now += FRESH_SECONDS
    assert cache.get() == {"number": 4}
    assert master.waits == [WAIT_SECONDS] * 4
