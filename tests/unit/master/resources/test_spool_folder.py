"""A spool in memory is named at the start, where it could take too much of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkserver.config import settings as table
from forkserver.config.values.numbers import GIB, MIB
from forkserver.master.monitoring import memory_headroom
from forkserver.master.resources import spool_folder


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    path = tmp_path / "mountinfo"
    path.write_text(
        f"20 1 0:5 / /proc rw shared:5 - proc proc rw\n36 35 {number} / /tmp rw master:1 - tmpfs tmpfs rw\n"
    )
    return path


def test_a_spool_in_memory_is_named_with_the_way_out(tmp_path: Path, mounts: Path) -> None:
    settings = table.defaults(spool_dir=str(tmp_path), max_spool=GIB)
    told = spool_folder.warning(settings, str(mounts), 2.0 * GIB)
    assert told is not None
    assert f"{tmp_path} is a tmpfs" in told
    assert "max_spool (1 GiB) is more than a quarter of it (2 GiB); name a directory on a disk" in told


def test_a_small_spool_in_memory_is_no_mistake(tmp_path: Path, mounts: Path) -> None:
    settings = table.defaults(spool_dir=str(tmp_path), max_spool=GIB)
    assert spool_folder.warning(settings, str(mounts), 4.0 * GIB) is None


def test_a_file_system_that_nothing_names_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    settings = table.defaults(spool_dir=str(tmp_path), max_spool=GIB)
    assert spool_folder.warning(settings, str(tmp_path / "empty"), 1.0) is None
    assert spool_folder.file_system(str(tmp_path / "nowhere")) is None


def test_memory_is_what_the_narrowest_control_group_allows(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1024 kB\nMemAvailable: 512 kB\n")
    (tmp_path / "membership").write_text("0::/service\n")
    assert memory_headroom.total(str(tmp_path), str(tmp_path / "membership"), str(tmp_path / "meminfo")) == MIB
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "memory.max").write_text("4096\n")
    assert memory_headroom.total(str(tmp_path), str(tmp_path / "membership"), str(tmp_path / "meminfo")) == 4096
