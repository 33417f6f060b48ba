"""The two logs of a master: both move at a reload, or neither does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config.settings import Settings, defaults
from forkserver.errors import ForkserverError
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources.log_set import LogSet


def named(folder: Path, error: str, access: str) -> Settings:
    return defaults(error_log=str(folder / error), access_log=str(folder / access))


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[LogSet]:
    settings = named(tmp_path, "error.log", "access.log")
    made = LogSet(settings, ErrorLog(settings.error_log, settings.log_level))
    yield made
    made.error.close()
    made.access.close()


def test_an_access_log_that_cannot_be_opened_leaves_both_logs(logs: LogSet, tmp_path: Path) -> None:
    before = logs.error, logs.access
    with pytest.raises(ForkserverError, match="missing"):
        logs.change(named(tmp_path, "next.log", "missing/access.log"))
    assert (logs.error, logs.access) == before
    assert not logs.changing


def test_the_same_names_open_no_new_files(logs: LogSet, tmp_path: Path) -> None:
    before = logs.error, logs.access
    logs.change(named(tmp_path, "error.log", "access.log"))
    assert (logs.error, logs.access) == before
    assert not logs.changing
    assert logs.settle(True) is None


def test_logs_of_code_that_fails_give_way_to_the_old_ones(logs: LogSet, tmp_path: Path) -> None:
    before = logs.error, logs.access
    logs.change(defaults(error_log=str(tmp_path / "next.log"), access_log=None))
    assert logs.changing
    assert logs.files == (True, False)
    assert logs.settle(False) == named(tmp_path, "error.log", "access.log")
    assert (logs.error, logs.access) == before
    assert logs.files == (True, True)


def test_a_reload_that_counts_lost_lines_goes_on_counting(logs: LogSet, tmp_path: Path) -> None:
    lost: list[int] = []
    logs.error.on_lost = logs.access.on_lost = lost.append
    logs.change(named(tmp_path, "next.log", "next-access.log"))
    assert logs.error.on_lost == logs.access.on_lost == lost.append
    logs.settle(True)
