"""Processors that control groups pay for."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from forkserver.config import loading
from forkserver.linux import cgroups


def _cgroup(root: Path, files: dict[str, str]) -> tuple[str, str]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root / "fs"), str(root / "membership")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"membership": "0::/a/b\n", "fs/a/cpu.max": "150000 100000\n", "fs/a/b/cpu.max": "max 100000\n"}, 1.5),
        ({"membership": "0::/\n", "fs/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "membership": "5:memory:/m\n4:cpu,cpuacct:/c\n0::/\n",
                "fs/cpu/c/cpu.cfs_quota_us": "300000\n",
                "fs/cpu/c/cpu.cfs_period_us": "100000\n",
                "fs/cpu/cpu.cfs_quota_us": "-1\n",
                "fs/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ({"membership": "0::/a\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_tightest_control_group_counts(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    """A container of two processors on a machine of sixty-four must not start sixty-four workers."""
    assert cgroups.quota(*_cgroup(tmp_path, files)) == expected


def test_auto_is_at_least_one_and_at_most_what_affinity_allows(tmp_path: Path) -> None:
    """A tenth of a processor still needs a worker."""
    tight = _cgroup(tmp_path, {"membership": "0::/\n", "fs/cpu.max": "10000 100000\n"})
    assert cgroups.usable(*tight) == 1
    assert cgroups.usable(str(tmp_path / "none"), str(tmp_path / "none")) == len(os.sched_getaffinity(0))
    assert loading.load(["-w", "auto"], {}).workers == cgroups.usable()
