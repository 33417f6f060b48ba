"""Memory for further workers: what the machine and the control groups leave, and what one worker takes."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path

import pytest

from forkserver.master.monitoring import memory_headroom

MIB = 1024 * 1024


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemAvailable:   2048 kB\n")
    (tmp_path / "self").write_text("0::/app/service\n")
    (tmp_path / "groups/app/service").mkdir(parents=True)
    return tmp_path


def left(machine: Path) -> float:
    return memory_headroom.available(str(machine / "groups"), str(machine / "self"), str(machine / "meminfo"))


def limit(folder: Path, most: str, used: int, cache: int = 0) -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_file {cache}\n")


def test_without_a_limit_it_is_what_the_machine_has(machine: Path) -> None:
    limit(machine / "groups/app", "max", 5)
    assert left(machine) == 2 * MIB


def test_the_tightest_group_counts_with_the_cache_that_it_would_drop(machine: Path) -> None:
    limit(machine / "groups/app", str(MIB), 1000, cache=400)
    limit(machine / "groups/app/service", str(2 * MIB), 0)
    assert left(machine) == MIB - 600


def test_a_group_that_is_full_has_nothing_left(machine: Path) -> None:
    limit(machine / "groups/app", "1000", 1010)
    assert left(machine) == 0


def test_groups_of_version_1(machine: Path) -> None:
    (machine / "self").write_text("5:cpu,cpuacct:/x\n3:memory:/app\n")
    folder = machine / "groups/memory/app"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("5000\n")
    (folder / "memory.usage_in_bytes").write_text("2000\n")
    (folder / "memory.stat").write_text("total_inactive_file 500\n")
    assert left(machine) == 3500


def test_where_nothing_is_known_there_is_no_limit(tmp_path: Path) -> None:
    assert left(tmp_path) == math.inf
    assert memory_headroom.more_workers(MIB, math.inf) == math.inf
    assert memory_headroom.more_workers(0, MIB) == math.inf


def test_a_tenth_is_left_for_requests() -> None:
    assert memory_headroom.more_workers(MIB, 10 * MIB) == 9
    assert memory_headroom.more_workers(2 * MIB, MIB) == 0


def test_a_process_takes_what_is_its_own() -> None:
    size = 32 * MIB
    before = memory_headroom.private(os.getpid())
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE) as held:  # fresh pages: the allocator may reuse those it has
        for offset in range(0, size, mmap.PAGESIZE):
            held[offset] = 1
        assert memory_headroom.private(os.getpid()) - before > size // 2
    assert memory_headroom.private(2**22 + 1) == 0
