"""Without /proc the master goes on: what it would read there is unknown, and it says so."""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

import psutil
import pytest

from forkserver.config import loading
from forkserver.errors import ForkserverError
from forkserver.linux import process_info, syscalls
from forkserver.master.monitoring.memory import resident
from forkserver.master.reporting import startup_banner
from forkserver.worker import check_config
from forkserver.worker.fork_safety.leftovers import ProcessSnapshot


@pytest.fixture(params=[psutil.NoSuchProcess(1), FileNotFoundError(2, "No such file or directory", "/proc/stat")])
def hidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What psutil raises where /proc is not mounted, or shows processes alone (ProcSubset=pid)."""

    def refuse(*_: Any) -> NoReturn:
        raise request.param

    monkeypatch.setattr(psutil, "Process", refuse)


@pytest.mark.usefixtures("hidden")
def test_processes_that_cannot_be_seen_are_no_fault() -> None:
    assert process_info.living() == []
    assert resident(os.getpid()) == 0
    assert startup_banner.memory([os.getpid()]).processes == 0


def test_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_banner, "PROCESS_FILES", "/nowhere/stat")
    said = [line for line in startup_banner.warnings(loading.load(["raw:app", "-w", "2"], {}), []) if "/proc" in line]
    assert len(said) == 1
    assert said[0].endswith("mount proc at /proc")


def test_a_trial_that_cannot_look_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", "/proc/self/fd")

    monkeypatch.setattr(ProcessSnapshot, "take", unreadable)
    with pytest.raises(ForkserverError, match=r"^/proc/self/fd cannot be read \(No such file or directory\), so what"):
        check_config.load_in_child(loading.load(["raw:app"], {}))


def test_a_trial_that_gets_no_process_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(syscalls, "fork", refuse)
    with pytest.raises(ForkserverError, match=r"^no process to try the application in: Resource temporarily"):
        check_config.load_in_child(loading.load(["raw:app"], {}))
