"""A death line says what is known, and nothing that is guessed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from forkserver.ipc.scoreboard import BUSY_SINCE, OPEN, PARKED, ROW_WORDS, THREAD_WORDS, UNSENT, WAITING, Row
from forkserver.linux import signals
from forkserver.master.model.lifecycle import State
from forkserver.master.monitoring import exit_causes

NOW = 5000.0


@pytest.fixture
def row() -> Row:
    return Row(memoryview(bytearray(4096)), 0, threads=2)


def busy(row: Row, line: bytes, since: float, thread: int = 0) -> None:
    row.begin(line, thread)
    row.words[ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE] = int(since * 1e9)


def killed(number: int) -> int:
    return int(number)  # a wait status holds the signal in its low bits


def exited(code: int) -> int:
    return code << 8


def test_a_kill_of_the_masters_says_why() -> None:
    assert exit_causes.cause(killed(signal.SIGKILL), "it did not hear", False) == (
        "killed by SIGKILL, sent by the master: it did not hear"
    )


def test_a_kill_that_is_nobodys_here_is_somebody_elses() -> None:
    assert exit_causes.cause(killed(signal.SIGKILL), "", False) == "killed by SIGKILL, sent by another process"


def test_memory_is_named_where_the_kernel_has_counted() -> None:
    told = exit_causes.cause(killed(signal.SIGKILL), "", True)
    assert told.startswith("killed by SIGKILL, sent by the kernel: out of memory; raise the memory limit (MemoryMax=")


def test_what_the_master_killed_did_not_run_out_of_memory() -> None:
    assert "sent by the master" in exit_causes.cause(killed(signal.SIGKILL), "it did not hear", True)


def test_a_crash_is_its_own_doing() -> None:
    """Or somebody would be sought who has sent SIGSEGV."""
    assert exit_causes.cause(killed(signal.SIGSEGV), "", False) == "killed by SIGSEGV, a crash"


def test_another_death_than_the_masters_is_not_put_down_to_it() -> None:
    """It was condemned, and crashed before."""
    assert exit_causes.cause(killed(signal.SIGSEGV), "it did not hear", False) == "killed by SIGSEGV, a crash"


def test_an_exit_nobody_ordered_is_its_own() -> None:
    assert exit_causes.cause(exited(3), "", False) == "exit status 3, by itself"


def test_who_was_told_to_leave_while_it_imported_is_nobodys_victim() -> None:
    """It has no handlers then, and the master's own signal ends it."""
    assert exit_causes.cause(killed(signals.LEAVE), "", False, ordered=True) == "killed by SIGRTMIN+4, as it was told"


@pytest.mark.parametrize(
    ("status", "state", "ordered"),
    [
        (exited(0), State.DRAINING, True),
        (killed(signals.LEAVE), State.DRAINING, True),  # while it imported
        (killed(signals.LEAVE_NOW), State.LEAVING, True),
        (killed(signal.SIGTERM), State.DRAINING, False),  # which does nothing to a worker
        (exited(1), State.DRAINING, False),
        (
            exited(120),
            State.DRAINING,
            True,
        ),  # what the application has printed met a full disk, or a pipe without a reader
        (exited(120), State.SERVING, False),
        (exited(3), State.LEAVING, True),  # it has not loaded, and has said why
        (killed(signal.SIGKILL), State.LEAVING, False),
        (killed(signal.SIGKILL), State.KILLED, False),
        (exited(0), State.SERVING, False),
    ],
)
def test_only_who_left_as_told_is_passed_over(status: int, state: State, ordered: bool) -> None:
    assert exit_causes.as_ordered(status, state) is ordered


def test_every_call_is_named_with_its_age_and_all_it_held_is_counted(row: Row) -> None:
    busy(row, b"GET /x", NOW - 3.2)
    busy(row, b"POST /y", NOW - 0.1, thread=1)
    row.words[OPEN], row.words[PARKED], row.words[UNSENT], row.words[WAITING] = 12, 9, 1, 2
    assert exit_causes.remains(row, NOW) == (
        "it was serving GET /x (3.2 s), POST /y (0.1 s); held 12 connections, 1 answer unsent, 2 requests waiting"
    )


def test_what_held_nothing_leaves_no_words(row: Row) -> None:
    assert exit_causes.remains(row, NOW) == ""


def test_an_idle_worker_served_nothing(row: Row) -> None:
    row.words[OPEN] = 1
    assert exit_causes.remains(row, NOW) == "held 1 connection"


# Out of memory


class Group:
    """A control group as the kernel shows it."""

    def __init__(self, folder: Path, line: str, counter: str) -> None:
        self.membership = folder / "cgroup"
        self.membership.write_text(f"5:cpu:/other\n{line}\n")
        self.counter = folder / counter
        self.counter.parent.mkdir(parents=True, exist_ok=True)
        self.root = folder
        self.kills(0)

    def kills(self, number: int) -> None:
        self.counter.write_text(f"low 0\noom 7\noom_kill {number}\n")

    def watch(self) -> exit_causes.OutOfMemory:
        return exit_causes.OutOfMemory(str(self.root), str(self.membership))


@pytest.fixture(
    params=[
        ("0::/system.slice/app", "system.slice/app/memory.events"),
        ("0::/system.slice/app", "memory.events"),  # in a container, which sees its own group as the root
        ("4:memory:/app", "memory/app/memory.oom_control"),
        ("4:cpu,memory:/app", "memory/memory.oom_control"),
    ]
)
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Group:
    return Group(tmp_path, *request.param)


def test_a_kill_that_the_kernel_counts_is_claimed_once(group: Group) -> None:
    group.kills(3)
    watch = group.watch()
    assert not watch.claim(), "what was counted before we came is not ours"
    group.kills(4)
    assert watch.claim()
    assert not watch.claim()


def test_two_that_died_together_are_both_put_down_to_memory(group: Group) -> None:
    watch = group.watch()
    group.kills(2)
    assert [watch.claim() for _ in range(3)] == [True, True, False]


def test_without_a_counter_nothing_is_said_of_memory(tmp_path: Path) -> None:
    assert not exit_causes.OutOfMemory(str(tmp_path), str(tmp_path / "none")).claim()
    (tmp_path / "cgroup").write_text("0::/\n")
    assert not exit_causes.OutOfMemory(str(tmp_path), str(tmp_path / "cgroup")).claim()


def test_a_group_that_is_gone_is_no_error(group: Group) -> None:
    watch = group.watch()
    group.counter.unlink()
    assert not watch.claim()
