"""Children that the master did not start: named while they live, and no others."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import psutil
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


def test_a_child_that_ends_while_it_is_looked_at_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        pid = 1

        def status(self) -> str:
            raise psutil.NoSuchProcess(1)

    class Us:
        def children(self) -> list[Ended]:
            return [Ended()]

        def cmdline(self) -> list[str]:
            return [sys.executable]

    monkeypatch.setattr(psutil, "Process", Us)
    assert process_info.living() == []


@pytest.mark.parametrize("error", [psutil.NoSuchProcess(1), FileNotFoundError(2, "No such file", "/proc/stat")])
def test_without_proc_no_child_is_known(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(psutil, "Process", refuse)
    assert process_info.living() == []


def test_a_mapping_is_known_by_its_rights_and_its_path(tmp_path: Path) -> None:
    """A path may have blanks in it; memory without a file has none."""
    path = tmp_path / "a file"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0), mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE):
        found = process_info.memory_mappings()
    assert [each.rights for each in found if each.path == str(path)] == ["rw-s"]
    assert "" in {each.path for each in found}
    assert all("-" in each.range for each in found)
