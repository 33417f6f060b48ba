"""Workers are spent by age and by memory, not all at once, and nobody looks where nobody asked."""

from __future__ import annotations

import math
import os
import subprocess
from typing import NoReturn

import pytest

from forkserver.linux import process_info
from forkserver.master.model.backoff import HEALTHY_SECONDS
from forkserver.master.model.lifecycle import State, Worker
from forkserver.master.monitoring.memory import LOOK_SECONDS, MIB, MemoryWatch, end_of_life, resident


@pytest.fixture
def worker() -> Worker:
    return Worker(slot=0, generation=1, row=0, deadline=math.inf, state=State.SERVING, pid=7, ready_at=0)


def test_a_lifetime_ends_within_its_last_tenth() -> None:
    """Workers of one start would all be replaced in the same second otherwise."""
    assert end_of_life(3600, 100, lambda: 0.0) == 3700
    assert end_of_life(3600, 100, lambda: 1.0) == pytest.approx(100 + 3240)


def test_without_a_lifetime_nobody_ends() -> None:
    assert end_of_life(0, 100) == math.inf


def test_memory_is_not_looked_at_without_need(worker: Worker) -> None:
    memory = MemoryWatch(size=lambda pid: pytest.fail("looked"))
    assert memory.look([(worker, 0)], 100) == []
    assert memory.next_look == math.inf


def test_who_has_grown_too_large_is_named_with_both_figures(worker: Worker) -> None:
    memory = MemoryWatch(size=lambda pid: 200 * MIB)
    assert memory.look([(worker, 300 * MIB)], 100) == []
    assert memory.next_look == 100 + LOOK_SECONDS
    assert memory.look([(worker, 150 * MIB)], 101) == [(worker, "its memory is 200 MiB (max_worker_memory: 150 MiB)")]


def test_one_that_is_too_large_from_the_first_serves_a_while(worker: Worker) -> None:
    """A new one is as large: without a pause the machine would do nothing but fork. The way out is said."""
    memory = MemoryWatch(size=lambda pid: 200 * MIB)
    worker.ready_at = 100
    assert memory.look([(worker, 150 * MIB)], 100) == []
    assert memory.next_look == 100 + LOOK_SECONDS
    ((found, why),) = memory.look([(worker, 150 * MIB)], 100 + HEALTHY_SECONDS)
    assert found is worker
    assert why.endswith("it had 200 MiB when it began to serve, as a new one will: raise the setting")


def test_one_that_grows_is_found_from_the_first_second(worker: Worker) -> None:
    """In five seconds it may fill the machine, and the kernel chooses whom it kills."""
    sizes = iter([100 * MIB, 200 * MIB])
    memory = MemoryWatch(size=lambda pid: next(sizes))
    worker.ready_at = 100
    assert memory.look([(worker, 150 * MIB)], 100) == []
    assert memory.look([(worker, 150 * MIB)], 101) == [(worker, "its memory is 200 MiB (max_worker_memory: 150 MiB)")]


def test_one_that_has_left_is_forgotten(worker: Worker) -> None:
    memory = MemoryWatch(size=lambda pid: 1)
    memory.look([(worker, 150 * MIB)], 100)
    memory.look([], 101)
    assert memory._first == {}


def test_the_figure_is_the_resident_set() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    assert resident(os.getpid()) == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.2)


def test_a_process_that_has_ended_has_no_size() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert resident(gone.pid) == 0


def test_without_proc_nothing_is_known_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", "/proc/1/statm")

    monkeypatch.setattr(process_info, "resident", refuse)
    assert resident(os.getpid()) == 0
