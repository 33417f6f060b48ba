"""Orders that mean the same at any time: the log files that the master has opened again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.ipc import messages
from forkserver.ipc.channel import Arrival, Channel, MasterChannel
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.worker import common_orders
from harness.log_files import LINE, access_log, opened_log


@pytest.fixture
def ends() -> Iterator[tuple[MasterChannel, Channel]]:
    ours, end = MasterChannel.pair()
    theirs = Channel.of([os.dup(number) for number in end.descriptors()])
    end.orders.close()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def error(tmp_path: Path) -> Iterator[ErrorLog]:
    with opened_log(tmp_path / "error") as log:
        yield log


@pytest.fixture
def access(tmp_path: Path) -> Iterator[AccessLog]:
    with access_log(tmp_path / "access") as log:
        yield log


def opened(*paths: Path) -> tuple[int, ...]:
    """Descriptors as they come with the order: the receiver closes them."""
    return tuple(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for path in paths)


@pytest.mark.parametrize(
    ("names", "untouched"), [(["error"], "access"), (["access"], "error"), (["error", "access"], None)]
)
def test_each_log_goes_on_in_its_own_new_file_and_the_master_is_told(
    ends: tuple[MasterChannel, Channel],
    error: ErrorLog,
    access: AccessLog,
    tmp_path: Path,
    names: list[str],
    untouched: str | None,
) -> None:
    """The error log's descriptor comes first, where it comes at all."""
    master, channel = ends
    order = messages.LogFiles(error="error" in names, access="access" in names)
    common_orders.adopt_logs(order, opened(*(tmp_path / f"new {name}" for name in names)), error, access, channel)
    error.info("an event")
    access.add(*LINE)
    access.flush()
    written = {path.name for path in tmp_path.iterdir() if path.read_text()}
    assert written == {*(f"new {name}" for name in names), *filter(None, [untouched])}
    assert "an event" in (tmp_path / ("error" if untouched == "error" else "new error")).read_text()
    assert master.receive() == messages.LogsAdopted()


def test_descriptors_that_were_not_announced_are_closed(
    ends: tuple[MasterChannel, Channel], error: ErrorLog, access: AccessLog, tmp_path: Path
) -> None:
    (number,) = opened(tmp_path / "stray")
    common_orders.adopt_logs(messages.LogFiles(error=False, access=False), (number,), error, access, ends[1])
    error.info("an event")
    access.add(*LINE)
    access.flush()
    assert (tmp_path / "stray").read_text() == ""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_an_order_for_another_process_is_logged_and_its_descriptors_closed(
    ends: tuple[MasterChannel, Channel], error: ErrorLog, access: AccessLog, tmp_path: Path
) -> None:
    (number,) = opened(tmp_path / "stray")
    common_orders.obey_in_passing(Arrival(messages.Guard(), (number,)), error, access, ends[1])
    assert "cannot obey Guard()" in (tmp_path / "error").read_text()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert ends[0].receive() is None
