"""Workers that stand still are noticed where the scoreboard does not move, and named once."""

from __future__ import annotations

import pytest

from forkserver.ipc.scoreboard import REQUESTS, Row
from forkserver.linux import process_info
from forkserver.master.model.lifecycle import NEVER, State, Worker
from forkserver.master.monitoring.standstill import AGAIN_SECONDS, LOOK_SECONDS, Standstill

NOW = 1000.0


class Looks:
    """A worker, the row that it writes, and which pids were looked at."""

    def __init__(self) -> None:
        self.worker = Worker(0, 1, 0, NEVER, State.SERVING, pid=41, ready_at=NOW)
        self.row = Row(memoryview(bytearray(4096)), 0, threads=1)
        self.how = ""
        self.pids: list[int] = []
        self.standstill = Standstill(self._standing)

    def _standing(self, pid: int) -> str:
        self.pids.append(pid)
        return self.how

    def at(self, seconds: float) -> list[tuple[Worker, str]]:
        return self.standstill.look([(self.worker, self.row, 30.0)], NOW + seconds)


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.mark.parametrize("how", [process_info.STOPPED, process_info.ENDING])
def test_one_that_stands_still_is_named_once_at_the_second_look(looks: Looks, how: str) -> None:
    looks.at(0)
    looks.how = how
    assert looks.at(30) == []
    assert looks.standstill.next_look == NOW + 30 + AGAIN_SECONDS
    assert looks.at(30 + AGAIN_SECONDS) == [(looks.worker, how)]
    assert looks.at(60) == looks.at(90) == []
    assert looks.standstill.next_look == NEVER


def test_one_that_went_on_is_named_again_when_it_stands_again(looks: Looks) -> None:
    looks.at(0)
    for begin in (30, 90):
        looks.how = process_info.STOPPED
        looks.at(begin)
        assert looks.at(begin + AGAIN_SECONDS) == [(looks.worker, process_info.STOPPED)]
        looks.how = ""
        looks.at(begin + 30)


def test_a_look_at_a_moment_names_nothing(looks: Looks) -> None:
    looks.at(0)
    looks.how = process_info.STOPPED
    looks.at(30)
    looks.how = ""
    assert looks.at(30 + AGAIN_SECONDS) == []


def test_one_that_writes_or_was_looked_at_just_now_is_not_looked_at(looks: Looks) -> None:
    looks.at(0)
    looks.at(LOOK_SECONDS / 2)
    looks.row.set(REQUESTS, 1)
    looks.at(LOOK_SECONDS)
    assert looks.pids == []
    looks.at(2 * LOOK_SECONDS)
    assert looks.pids == [41]
    looks.worker.deadline = NOW + 60  # stopped by a signal, which was told
    looks.at(3 * LOOK_SECONDS)
    assert looks.pids == [41]
