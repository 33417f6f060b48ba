"""Children that the master did not start: named while they live, and no others."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
from pathlib import Path

import pytest

from forkserver.linux import process_info


@pytest.mark.process
def test_a_living_child_is_named_and_one_that_has_ended_is_not() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as living, subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        found = process_info.living()
        living.kill()
    assert living.pid in found
    assert ended.pid not in found, "it only waits to be reaped"


@pytest.mark.process
def test_a_fork_of_this_process_is_no_orphan() -> None:
    """It has the master's own command line, and is about to end (syscalls.close_in_child)."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        assert pid not in process_info.living()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def proc(folder: Path, **stats: str) -> str:
    """A /proc of ours alone and of the children with these lines of stat; that of pid 9 has ended since."""
    (folder / "self").mkdir()
    (folder / "self" / "cmdline").write_text("master")
    for pid, stat in {**stats, "p9": ""}.items():
        (folder / pid[1:]).mkdir()
        if stat:
            (folder / pid[1:] / "stat").write_text(stat)
            (folder / pid[1:] / "cmdline").write_text("other")
    return str(folder)


def test_a_name_with_brackets_and_blanks_does_not_hide_a_child(tmp_path: Path) -> None:
    us = os.getpid()
    found = proc(tmp_path, p7=f"7 (a) Z 1) S {us} 1", p8=f"8 (b) Z {us} 1", p10="10 (c) S 1 1")
    assert process_info.living(found) == [7]


def test_without_proc_no_child_is_known(tmp_path: Path) -> None:
    assert process_info.living(str(tmp_path / "none")) == []


def test_the_resident_set_and_the_share_are_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("900 20 10 1 0 5 0\n")
    (tmp_path / "7" / "smaps_rollup").write_text(
        "5-7 ---p 00000000 00:00 0  [rollup]\nRss:  80 kB\nPss:  12 kB\nPss_Dirty:  9 kB\nSwapPss:  3 kB\n"
    )
    assert process_info.resident(7, str(tmp_path)) == 20 * mmap.PAGESIZE
    assert process_info.proportional(7, str(tmp_path)) == 12 * 1024


def test_the_share_of_this_process_is_a_part_of_its_resident_set() -> None:
    assert 0 < process_info.proportional(os.getpid()) <= process_info.resident(os.getpid()) * 1.2


def test_a_mapping_is_known_by_its_rights_and_its_path(tmp_path: Path) -> None:
    """A path may have blanks in it; memory without a file has none."""
    path = tmp_path / "a file"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0), mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE):
        found = process_info.memory_mappings()
    assert [each.rights for each in found if each.path == str(path)] == ["rw-s"]
    assert "" in {each.path for each in found}
    assert all("-" in each.range for each in found)
