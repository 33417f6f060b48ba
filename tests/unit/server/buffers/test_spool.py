"""The spool's account: bounded over all workers, never at another's expense, and short of a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from forkserver.config.values.numbers import AUTO_FREE, GIB, MIB
from forkserver.ipc.scoreboard import FREE, SERVING, SPOOLED, STATE, Row
from forkserver.server.buffers.spool import FREE_BYTES, Spool, free_bytes, kept_free, room_beside

TOTAL = 64 * MIB


@pytest.fixture
def board() -> list[Row]:
    rows = [Row(memoryview(bytearray(4096)), index, 1) for index in range(3)]
    for row in rows[:2]:
        row.words[STATE] = SERVING
    return rows


@pytest.fixture
def spools(board: list[Row]) -> tuple[Spool, Spool]:
    return Spool("/nowhere", TOTAL, row=board[0], board=board), Spool("/nowhere", TOTAL, row=board[1], board=board)


def test_one_worker_has_the_whole_spool() -> None:
    assert room_beside(100, []) == 100


def test_half_of_the_spool_is_divided_and_half_is_for_any_worker() -> None:
    assert room_beside(100, [0]) == 75
    assert room_beside(100, [75]) == 25
    assert room_beside(100, [10, 10, 10]) == 100 - 3 * 12


@pytest.mark.parametrize("lie", [101, 2**64 - 1])
def test_a_false_figure_takes_no_reserve_from_others(lie: int) -> None:
    """The scoreboard is written by processes that run application code."""
    assert room_beside(100, [lie]) == 25


def test_all_workers_together_stay_within_max_spool(spools: tuple[Spool, Spool]) -> None:
    first, second = spools
    first.take(48 * MIB)
    second.take(16 * MIB)
    for spool in spools:
        with pytest.raises(OSError, match=r"max_spool \(64 MiB, all workers together\) is used up") as caught:
            spool.take(1)
        assert caught.value.errno == errno.ENOSPC
    first.give(8 * MIB)
    second.take(8 * MIB)


def test_what_one_worker_has_is_seen_by_the_others_until_it_is_given_back(
    spools: tuple[Spool, Spool], board: list[Row]
) -> None:
    spools[0].take(5 * MIB + 1)
    assert board[0].words[SPOOLED] == 6 * MIB
    spools[0].give(5 * MIB + 1)
    assert board[0].words[SPOOLED] == 0


def test_a_row_without_a_process_counts_for_nothing(board: list[Row]) -> None:
    """A worker that was killed gives nothing back itself."""
    board[1].words[SPOOLED] = TOTAL
    board[1].words[STATE] = FREE
    Spool("/nowhere", TOTAL, row=board[0], board=board).take(TOTAL)


def test_nothing_is_spooled_where_too_little_would_stay_free(tmp_path: Path) -> None:
    free = free_bytes(str(tmp_path))
    spool = Spool(str(tmp_path), TOTAL, keep_free=free + GIB)
    with pytest.raises(OSError, match=r"is free on the file system of .*, and spool_keep_free keeps") as caught:
        spool.take(1)
    assert caught.value.errno == errno.ENOSPC
    assert spool.used == 0


def test_what_stays_free_follows_the_size_of_the_file_system(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    size = found.f_blocks * found.f_frsize
    assert kept_free(str(tmp_path), AUTO_FREE) == min(FREE_BYTES, int(size * 0.05))
    assert kept_free(str(tmp_path), 7) == 7


def test_room_is_asked_for_before_a_request_fails() -> None:
    spool = Spool("/nowhere", 10)
    spool.take(10)
    asked = []

    def relief(size: int) -> bool:
        asked.append(size)
        spool.give(5)
        return True

    spool.relief = relief
    spool.take(4)
    assert (asked, spool.used) == ([4], 9)
    spool.relief = lambda size: False
    with pytest.raises(OSError, match="max_spool"):
        spool.take(4)


def test_a_forked_child_of_the_application_says_nothing_in_the_workers_row(board: list[Row]) -> None:
    spool = Spool("/nowhere", TOTAL, row=board[0], board=board)
    spool.forget()
    spool.take(1)
    assert board[0].words[SPOOLED] == 0


def test_a_spool_gives_no_more_than_its_bound() -> None:
    spool = Spool("/nowhere", 10)
    spool.take(10)
    with pytest.raises(OSError, match="max_spool") as caught:
        spool.take(1)
    assert caught.value.errno == errno.ENOSPC
    spool.give(1)
    spool.take(1)


def test_a_spooled_file_has_no_name(tmp_path: Path) -> None:
    """However the worker dies, it leaves nothing on the disk."""
    with Spool(str(tmp_path), 1).open():
        assert list(tmp_path.iterdir()) == []


def test_memory_is_lent_up_to_its_bound_and_to_one_body_a_quarter() -> None:
    spool = Spool("/nowhere", 10, memory=400)
    assert not spool.lend(101)
    assert [spool.lend(100) for _ in range(5)] == [True] * 4 + [False]
    spool.restore(100)
    assert spool.lend(100)
