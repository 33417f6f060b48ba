"""A log's file: opened, reopened, adopted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from forkserver.errors import ConfigError, ForkserverError
from forkserver.logs import log_file
from forkserver.logs.error_log import ErrorLog
from harness.log_files import opened_log


def test_a_log_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    """Found at the first event it would be too late."""
    with pytest.raises(ConfigError) as caught:
        ErrorLog(str(tmp_path / "none" / "log"), "info")
    assert str(caught.value) == (
        f"error_log '{tmp_path}/none/log': cannot be opened: no such file or directory; "
        'fix that, name another file, or give "-" for the standard stream'
    )


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 1), (errno.EMFILE, 1), (errno.EROFS, 2)])
def test_a_full_disk_is_no_mistake_in_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    """After exit status 2 systemd does not start the service again, although the disk has room by then."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(log_file, "open_for_append", refuse)
    with pytest.raises(ForkserverError) as caught:
        ErrorLog(str(tmp_path / "log"), "info")
    assert caught.value.exit_status == status


def test_a_rotated_file_is_left_and_the_number_stays(tmp_path: Path) -> None:
    """faulthandler holds the number, and USR1 must not take it away."""
    path = tmp_path / "log"
    with opened_log(path) as log:
        number = log.fileno()
        log.info("before")
        path.rename(tmp_path / "log.1")
        log.info("between")
        log.reopen()
        log.info("after")
        assert log.fileno() == number
        assert not os.get_inheritable(number)
    assert [line.split()[-1] for line in (tmp_path / "log.1").read_text().splitlines()] == ["before", "between"]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["after"]


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """Writing into a renamed file is better than writing nowhere."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with opened_log(folder / "log") as log:
        folder.rename(tmp_path / "gone")
        with pytest.raises(ConfigError, match="cannot be opened"):
            log.reopen()
        log.info("still here")
    assert "still here" in (tmp_path / "gone" / "log").read_text()


def test_a_descriptor_passed_by_the_master_is_adopted(tmp_path: Path) -> None:
    """A worker without rights cannot open the new file itself."""
    with opened_log(tmp_path / "old") as log:
        passed = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        log.adopt(passed)
        log.info("moved")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(passed)
    assert "moved" in (tmp_path / "new").read_text()


def test_standard_error_stays_what_it_is(tmp_path: Path) -> None:
    """There is nothing to reopen, and what is passed must not leak."""
    log = ErrorLog("-", "info")
    log.reopen()
    passed = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    log.adopt(passed)
    assert log.fileno() == 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed)
