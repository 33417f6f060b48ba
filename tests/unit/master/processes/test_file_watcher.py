"""When a file watcher is started, replaced and ended, and what it can ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.config import settings as settings_table
from forkserver.linux import systemd
from forkserver.linux.terminal import Terminal
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import UNENDED_SECONDS, Transitions
from forkserver.master.processes.file_watcher import LEAVE_SECONDS, FileWatcherProcess
from forkserver.master.processes.system import System
from forkserver.master.processes.unended import Unended
from forkserver.worker.development.file_watcher import WatcherEnds
from harness.master import PlayedChildren

NOW = 1000.0
FIRST_PID = 2**22 + 1  # above pid_max, proc(5)


class Master:
    """What a file watcher has of a master; ``ends`` are those of each process that was forked."""

    def __init__(self) -> None:
        settings = settings_table.defaults(reload_on_change="on", app="m:a")
        self.resources = SimpleNamespace(settings=settings, log=ErrorLog("-", "debug", "test"), directory="/")
        self.rollout = Rollout(Fleet(1))
        self.ends: list[WatcherEnds] = []
        self.woken: list[int] = []
        self.refused = False
        self.children = PlayedChildren()
        self.unended = Unended(cast("Any", self.resources), Transitions(self.rollout))
        system = System(
            cast("Any", None), Terminal(False), systemd.Notifier({}), self.children, self._spawn, lambda: NOW
        )
        poller = SimpleNamespace(wake_by=self.woken.append)
        self.watcher = FileWatcherProcess(
            cast("Any", self.resources), self.rollout, system, cast("Any", poller), self.unended
        )

    def _spawn(self, main: Any) -> int:
        if self.refused:
            raise BlockingIOError("no process")
        ends = main.args[0].ends
        self.ends.append(WatcherEnds(os.dup(ends.bell), ends.leash.dup(), ends.hears.dup()))
        return FIRST_PID + len(self.ends)

    def change(self, **settings: Any) -> None:
        self.resources.settings = settings_table.defaults(app="m:a", **settings)


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    made.watcher.close()
    for ends in made.ends:
        ends.close()


def test_a_change_asks_for_a_reload_and_ends_the_masters_wait(master: Master) -> None:
    master.watcher.turn(NOW)
    assert not master.rollout.reload_wanted
    assert len(master.woken) == 1
    os.eventfd_write(master.ends[0].bell, 1)
    master.watcher.turn(NOW)
    assert master.rollout.reload_wanted


def test_templates_report_to_it(master: Master) -> None:
    assert master.watcher.reporter() is None
    master.watcher.turn(NOW)
    reporter = master.watcher.reporter()
    assert reporter is not None
    reporter.begun()
    assert master.ends[0].hears.recv(100).startswith(b"B")


def test_one_that_dies_is_started_again_and_the_code_loaded_again(master: Master) -> None:
    """Nothing else would tell the next one which files there are."""
    master.watcher.turn(NOW)
    master.rollout.current = 1
    assert master.watcher.ended(FIRST_PID + 1, signal.SIGKILL, NOW)
    assert master.watcher.reporter() is None
    assert master.watcher.next_look > NOW
    master.watcher.turn(NOW)
    assert master.watcher.pids == set(), "not at once"
    master.watcher.turn(master.watcher.next_look)
    assert master.watcher.pids == {FIRST_PID + 2}
    assert master.rollout.reload_wanted


def test_where_no_process_is_given_it_is_tried_again(master: Master) -> None:
    master.refused = True
    master.watcher.turn(NOW)
    assert master.watcher.pids == set()
    master.refused = False
    master.watcher.turn(master.watcher.next_look)
    assert master.watcher.pids == {FIRST_PID + 1}


def test_other_settings_replace_it_and_off_ends_it(master: Master) -> None:
    master.watcher.turn(NOW)
    master.change(reload_on_change="on", reload_extra_files=["templates"])
    master.watcher.turn(NOW)
    assert master.ends[0].leash.recv(1) == b"", "the end of its channel tells it to leave"
    assert master.watcher.pids == {FIRST_PID + 1, FIRST_PID + 2}, "no template may name one as a worker"
    master.change()
    master.watcher.turn(NOW)
    assert master.ends[1].leash.recv(1) == b""
    assert master.watcher.next_look == NOW + LEAVE_SECONDS
    assert master.watcher.ended(FIRST_PID + 1, 0, NOW)
    assert master.watcher.ended(FIRST_PID + 2, 0, NOW)
    assert master.watcher.next_look == NEVER
    assert not master.watcher.ended(FIRST_PID + 3, 0, NOW)


def test_a_service_that_stops_has_none(master: Master) -> None:
    master.watcher.turn(NOW)
    master.rollout.stop(NOW, NOW)
    master.watcher.turn(NOW)
    assert master.watcher.reporter() is None


def test_one_that_does_not_leave_is_killed_and_given_up(master: Master, capfd: pytest.CaptureFixture[str]) -> None:
    master.watcher.turn(NOW)
    master.change()
    master.watcher.turn(NOW)
    master.watcher.turn(NOW + LEAVE_SECONDS)
    assert master.children.sent == [(FIRST_PID + 1, signal.SIGKILL)]
    master.watcher.turn(NOW + LEAVE_SECONDS + UNENDED_SECONDS)
    assert f"the file watcher (pid {FIRST_PID + 1}) has not ended 5 s after SIGKILL" in capfd.readouterr().err
    assert list(master.rollout.fleet.unended) == [FIRST_PID + 1]
    assert master.watcher.next_look == NEVER
