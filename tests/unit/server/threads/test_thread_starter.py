"""Threads that the kernel refuses: told once with the limit, and tried again ever later."""

from __future__ import annotations

import os

import pytest

from forkserver.logs.error_log import ErrorLog
from forkserver.server.threads.thread_starter import FIRST_DELAY, NO_THREAD, ThreadStarter


class Kernel:
    """Gives a thread where there is no ``error``."""

    def __init__(self) -> None:
        self.error: Exception | None = RuntimeError(NO_THREAD)
        self.asked = 0

    def start(self) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return "a thread"


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def starter() -> ThreadStarter:
    return ThreadStarter(ErrorLog("-", "info", "worker=1 gen=1"))


def test_a_refused_thread_is_tried_again_ever_later(
    kernel: Kernel, starter: ThreadStarter, capfd: pytest.CaptureFixture[str]
) -> None:
    tried = []
    for now in range(200):
        before = kernel.asked
        assert starter.try_start(kernel.start, "it goes on without", now) is None
        if kernel.asked > before:
            tried.append(now)
    assert tried == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
    said = capfd.readouterr().err
    assert said.count("it goes on without, and it is tried again") == 1
    assert f" warning worker=1 gen=1 pid={os.getpid()} {NO_THREAD}; " in said


def test_the_first_that_is_given_again_is_told_and_ends_the_delays(
    kernel: Kernel, starter: ThreadStarter, capfd: pytest.CaptureFixture[str]
) -> None:
    for now in (0.0, 1.0):
        starter.try_start(kernel.start, "it goes on without", now)
    kernel.error = None
    for now in (3.0, 3.1):
        assert starter.try_start(kernel.start, "", now) == "a thread"
    assert capfd.readouterr().err.count("threads can be started again") == 1
    kernel.error = OSError("no descriptor")
    assert starter.try_start(kernel.start, "it goes on without", 4.0) is None
    assert "no descriptor; it goes on without" in capfd.readouterr().err
    kernel.error = None
    assert starter.try_start(kernel.start, "", 4.0 + FIRST_DELAY - 0.1) is None
    assert starter.try_start(kernel.start, "", 4.0 + FIRST_DELAY) == "a thread"


def test_another_fault_is_not_taken_for_a_refusal(kernel: Kernel, starter: ThreadStarter) -> None:
    kernel.error = LookupError()
    with pytest.raises(LookupError):
        starter.try_start(kernel.start, "", 0.0)
    kernel.error = None
    assert starter.try_start(kernel.start, "", 0.0) == "a thread"
