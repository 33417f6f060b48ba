"""When a log writer is started, replaced and ended, and what the master does meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.config import settings as settings_table
from forkserver.linux import signals, systemd
from forkserver.linux.terminal import Terminal
from forkserver.logs import log_output
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import UNENDED_SECONDS, Transitions
from forkserver.master.processes import log_writer
from forkserver.master.processes.log_writer import (
    LEAVE_SECONDS,
    MOST_LEFT,
    LogQueue,
    LogWriter,
    LogWriterSnapshot,
    take_up,
)
from forkserver.master.processes.system import System
from forkserver.master.processes.unended import Unended
from harness.master import PlayedChildren

NOW = 1000.0
FIRST_PID = 2**22 + 1  # above pid_max, proc(5)


class Master:
    """What a log writer has of a master; ``started`` are the logs of the children that were forked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = settings_table.defaults(app="m:a", user="no-such-user")
        logs = SimpleNamespace(error_logs=[], opened=None)
        self.resources = SimpleNamespace(settings=settings, logs=logs, log=None)
        self.logs: list[ErrorLog] = []
        self.open("error.log")
        self.started: list[ErrorLog] = []
        self.refused = False
        self.children = PlayedChildren()
        self.system = System(
            cast("Any", None), Terminal(False), systemd.Notifier({}), self.children, self._spawn, lambda: NOW
        )
        self.fleet = Fleet(1)
        self.unended = Unended(cast("Any", self.resources), Transitions(Rollout(self.fleet)))
        self.writer = LogWriter(cast("Any", self.resources), self.system, self.unended)

    def open(self, name: str) -> None:
        self.logs.append(ErrorLog(str(self.folder / name), "debug", "test"))
        self.resources.log = self.logs[-1]
        self.resources.logs.error_logs = [self.resources.log]

    def _spawn(self, main: Any) -> int:
        if self.refused:
            raise BlockingIOError(11, "no process")
        self.started.append(main.args[0].log)
        return FIRST_PID + len(self.started)

    def said(self, name: str = "error.log") -> str:
        return (self.folder / name).read_text()

    def queued(self) -> str:
        (child,) = self.writer._logs.values()
        child.queue.theirs.setblocking(False)
        text = b""
        try:
            while True:
                text += child.queue.theirs.recv(1 << 16)
        except BlockingIOError:
            return text.decode()


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    queues: list[LogQueue] = []
    monkeypatch.setattr(log_writer, "_queues", SimpleNamespace(add=queues.append))
    monkeypatch.setattr(log_output, "pipes", set)  # those of the tests' own standard streams aside
    made = Master(tmp_path)
    yield made
    log_output._own.writes = log_output._own.opens = True
    for queue in queues:
        queue.close()
    for log in made.logs:
        log.close()


def test_lines_are_the_childs_once_it_is_there(master: Master) -> None:
    master.resources.log.info("before")
    master.writer.turn(NOW)
    master.resources.log.info("after")
    assert master.started == [master.resources.log]
    assert "before" in master.said()
    assert "after" not in master.said()
    assert "after" in master.queued()
    master.writer.turn(NOW)
    assert len(master.started) == 1
    assert master.writer.next_look == NEVER


def test_an_application_of_the_masters_own_user_needs_none(master: Master) -> None:
    master.resources.settings = settings_table.defaults(app="m:a")
    master.writer.turn(NOW)
    master.resources.log.info("written")
    assert "written" in master.said()
    assert not master.started
    assert master.writer.status() is None


def test_a_reload_that_brings_another_user_starts_it(master: Master) -> None:
    user_settings, master.resources.settings = master.resources.settings, settings_table.defaults(app="m:a")
    master.writer.turn(NOW)
    master.resources.settings = user_settings
    master.writer.turn(NOW)
    assert master.writer.status() == FIRST_PID + 1


def test_what_no_process_can_hold_is_written_by_the_master(master: Master) -> None:
    null = ErrorLog(os.devnull, "info")
    master.resources.log, master.resources.logs.error_logs = null, [null]
    master.writer.turn(NOW)
    assert not master.started
    null.close()
    assert log_output.leaves_to_writer(), "a reload may name a file, and the access log may be a pipe"


def test_a_pipe_is_kept_open_by_a_child_also_where_the_master_writes(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The access log's, where the error log is no pipe and no file: the last close of it is not the master's."""
    monkeypatch.setattr(log_output, "pipes", lambda: {1})
    null = ErrorLog(os.devnull, "info")
    master.resources.log, master.resources.logs.error_logs = null, [null]
    master.writer.turn(NOW)
    assert master.started == [null]
    assert master.writer.status() == FIRST_PID + 1
    null.info("by the master itself")
    assert master.queued() == ""
    given = master.writer.snapshot()
    assert given is not None
    assert given.pid == FIRST_PID + 1
    monkeypatch.setattr(log_output, "pipes", set)
    master.writer.turn(NOW)
    assert master.writer.status() is None, "a reload has closed the last one, and its reader waits for the end"
    assert master.writer.next_look == NOW + LEAVE_SECONDS
    null.close()


def test_the_next_program_goes_on_with_a_child_that_keeps_pipes_open(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_output, "pipes", lambda: {1})
    settings = settings_table.defaults(app="m:a", user="no-such-user", error_log=os.devnull)
    queue = LogQueue.make()
    given = LogWriterSnapshot(os.dup(queue.ours.fileno()), os.dup(queue.theirs.fileno()), FIRST_PID)
    log, child = take_up(settings, os.open(os.devnull, os.O_WRONLY), given)
    assert child is not None
    assert LogWriter(
        cast("Any", SimpleNamespace(log=log, logs=master.resources.logs)), master.system, master.unended, child
    ).pids == {FIRST_PID}
    log.close()


def test_until_it_could_be_forked_once_the_master_writes_itself(master: Master) -> None:
    """A start for which there are no processes says so, and runs no code of the application."""
    master.refused = True
    master.writer.turn(NOW)
    assert "cannot fork the log writer: no process; trying again in 0.5 s" in master.said().lower()
    assert master.writer.next_look == NOW + 0.5
    master.refused = False
    master.writer.turn(NOW + 0.5)
    assert log_output.leaves_to_writer()


def test_one_that_ends_is_started_again_and_lines_wait_for_it(master: Master) -> None:
    master.writer.turn(NOW)
    assert master.writer.ended(FIRST_PID + 1, signal.SIGKILL, NOW + 60)
    assert not master.writer.ended(FIRST_PID + 1, signal.SIGKILL, NOW + 60)
    master.resources.log.info("meanwhile")
    master.writer.turn(NOW + 60)
    assert master.writer.pids == {FIRST_PID + 2}
    queued = master.queued()
    assert queued.index("has ended: killed by SIGKILL") < queued.index("meanwhile")


def test_one_that_ends_at_once_is_started_again_after_a_delay(master: Master) -> None:
    master.writer.turn(NOW)
    master.writer.ended(FIRST_PID + 1, 256, NOW + 1)
    master.writer.turn(NOW + 1)
    assert len(master.started) == 1
    master.writer.turn(master.writer.next_look)
    assert len(master.started) == 2


def test_another_file_gets_another_child_and_the_one_before_leaves(master: Master) -> None:
    master.writer.turn(NOW)
    master.open("other.log")
    master.resources.logs.opened(master.resources.log)
    master.resources.log.info("of the other")
    master.writer.turn(NOW)
    assert master.started[1] is master.resources.log
    assert "of the other" in master.queued()
    assert master.writer.next_look == NOW + LEAVE_SECONDS
    master.writer.turn(NOW + LEAVE_SECONDS)
    assert master.children.sent == [(FIRST_PID + 1, signals.LEAVE), (FIRST_PID + 1, signal.SIGKILL)]
    assert master.writer.ended(FIRST_PID + 1, 0, NOW + 6)
    assert master.writer.pids == {FIRST_PID + 2}


def test_the_next_program_takes_up_one_child_and_the_other_of_a_reload_leaves(master: Master) -> None:
    master.writer.turn(NOW)
    before = master.resources.log
    master.open("other.log")
    master.resources.logs.error_logs.append(before)
    master.writer.turn(NOW)
    given = master.writer.snapshot()
    assert given is not None
    assert given.pid == FIRST_PID + 2
    assert master.children.sent == [(FIRST_PID + 1, signals.LEAVE)]


def test_no_order_ends_a_child_that_does_not_await_it_yet(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order of the master's ends a process that has no handler of its own."""
    blocked: list[set[Any]] = []

    def spawn(_main: Any) -> int:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return FIRST_PID

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    master.writer._system = master.system._replace(spawn=spawn)
    master.writer.turn(NOW)
    assert blocked[0] >= {signals.LEAVE, signals.LEAVE_NOW}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_those_that_hang_do_not_pile_up(master: Master) -> None:
    for number in range(MOST_LEFT + 2):
        master.open(f"log-{number}")
        master.writer.turn(NOW)
    assert len(master.writer.pids) == MOST_LEFT
    assert master.writer.next_look == NOW + LEAVE_SECONDS
    master.writer.ended(FIRST_PID + 1, 0, NOW)
    master.writer.turn(NOW)
    assert len(master.started) == MOST_LEFT + 1


def test_those_that_a_kill_does_not_end_are_told_and_do_not_pile_up_either(master: Master) -> None:
    for number in range(MOST_LEFT + 2):
        master.open(f"log-{number}")
        master.writer.turn(NOW)
    master.writer.turn(NOW + LEAVE_SECONDS)
    master.writer.turn(NOW + LEAVE_SECONDS + UNENDED_SECONDS)
    assert len(master.fleet.unended) == MOST_LEFT
    assert len(master.started) == MOST_LEFT
    assert f"the log writer (pid {FIRST_PID + 1}) has not ended 5 s after SIGKILL" in master.queued()
    assert not master.writer.ended(FIRST_PID + 1, signal.SIGKILL, NOW + 60)
    master.writer.turn(NOW + 60)
    assert len(master.started) == MOST_LEFT + 1


def test_one_that_hangs_does_not_hold_up_the_end_nor_ends_before_the_master(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the pipe open, whose last close could wait."""
    monkeypatch.setattr(log_writer, "FLUSH_SECONDS", 0.01)
    master.writer.turn(NOW)
    master.writer.close()
    assert [signum for _, signum in master.children.sent] == [signals.LEAVE_NOW]


def test_the_next_program_goes_on_with_queue_and_child(master: Master) -> None:
    master.writer.turn(NOW)
    master.resources.log.info("of the program before")
    given = master.writer.snapshot()
    assert given is not None
    snapshot = given._replace(ours=os.dup(given.ours), theirs=os.dup(given.theirs))  # in another process
    settings = settings_table.defaults(app="m:a", user="no-such-user", error_log=str(master.folder / "error.log"))
    log, child = take_up(settings, os.dup(master.resources.log.fileno()), snapshot)
    assert child is not None
    log.info("of the next")
    queued = master.queued()
    assert queued.index("of the program before") < queued.index("of the next")
    assert child.pid == FIRST_PID + 1
    log.close()


def test_the_program_after_one_without_a_log_writer_begins_with_a_queue(master: Master) -> None:
    settings = settings_table.defaults(app="m:a", user="no-such-user", error_log=str(master.folder / "error.log"))
    log, child = take_up(settings, os.dup(master.resources.log.fileno()), None)
    assert child is not None
    log.info("first line")
    assert "first line" in child.queue.theirs.recv(1000).decode()
    assert child.pid == 0
    log.close()
