"""A helper of the master ends by itself, whatever becomes of it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest

from forkserver.logs.error_log import ErrorLog
from forkserver.worker.forking.helper_process import run_to_end


def status_of(run: Callable[[], None]) -> int:
    """What a helper exits with whose life is ``run``."""
    pid = os.fork()
    if not pid:
        run_to_end(run, ErrorLog("-", "error", "helper"), "the helper")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_helper_that_has_done_its_work_exits_with_0() -> None:
    def frozen() -> None:
        assert gc.get_freeze_count(), "the collector would close the master's descriptors"

    assert status_of(frozen) == 0


@pytest.mark.parametrize("error", [ValueError("no such thing"), SystemExit(3), KeyboardInterrupt()])
def test_a_helper_that_fails_says_why_and_no_frame_of_the_masters_goes_on(
    error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert status_of(fail) == 1
    said = capfd.readouterr().err
    assert "error helper" in said
    assert "the helper cannot go on" in said
    assert type(error).__name__ in said
