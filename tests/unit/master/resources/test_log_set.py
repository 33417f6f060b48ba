"""The two logs of a master: both move at a reload, or neither does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config.settings import Settings, defaults
from forkserver.errors import ConfigError, ForkserverError
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources import log_set
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


def test_an_upgrade_goes_on_without_the_daemon_of_its_access_log_and_says_so_once(tmp_path: Path) -> None:
    settings = defaults(error_log=str(tmp_path / "error.log"), access_log=f"syslog:{tmp_path}/socket")
    error = ErrorLog(settings.error_log, settings.log_level)
    made = LogSet(settings, error, inherited=True)
    assert (tmp_path / "error.log").read_text().count(
        "cannot be reached: no such file or directory; lines are lost"
    ) == 1
    made.access.close()
    with pytest.raises(ConfigError, match="cannot be reached"):
        LogSet(settings, error)
    error.close()


def test_an_error_log_whose_daemon_is_away_is_told_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log_set.inherited_error_log(defaults(error_log=f"syslog:{tmp_path}/socket"), -1).close()
    assert capfd.readouterr().err.count(f"error_log 'syslog:{tmp_path}/socket': ") == 1


def test_a_trial_makes_the_logs_as_the_program_will_that_goes_on(tmp_path: Path) -> None:
    """It has no descriptor of their files, and makes none; a daemon may be away, a format may not be another's."""
    before = set(os.listdir("/proc/self/fd"))
    log_set.try_on(named(tmp_path, "error.log", "access.log"))
    log_set.try_on(defaults(error_log=f"syslog:{tmp_path}/socket", access_log=f"syslog:{tmp_path}/socket"))
    assert os.listdir(tmp_path) == []
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ConfigError, match="access_log_format"):
        log_set.try_on(defaults(access_log_format="%(no_such)s"))
    with pytest.raises(ValueError, match="no facility"):
        log_set.try_on(defaults(error_log="syslog:local9"))
