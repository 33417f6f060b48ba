"""When an admin process is started, replaced and ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.config import settings as settings_table
from forkserver.config.invocation import Environment
from forkserver.ipc.status_channel import TAKE_SECONDS, StatusEnds
from forkserver.linux import systemd
from forkserver.linux.sockets import accept_queue
from forkserver.linux.terminal import Terminal
from forkserver.logs.error_log import ErrorLog
from forkserver.master.control.admin_socket import AdminSocket, of_settings
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import UNENDED_SECONDS, Transitions
from forkserver.master.processes.admin_process import (
    HUNG_SECONDS,
    LEAVE_SECONDS,
    LOOK_SECONDS,
    WORKERS_FIRST_SECONDS,
    AdminProcess,
)
from forkserver.master.processes.system import System
from forkserver.master.processes.unended import Unended
from harness.master import PlayedChildren

NOW = 1000.0
FIRST_PID = 2**22 + 1  # above pid_max, proc(5)


class Master:
    """What an admin process has of a master; ``ends`` are those of each process that was forked."""

    def __init__(self) -> None:
        self.log = ErrorLog("-", "debug", "test")
        settings = settings_table.defaults(admin_bind="127.0.0.1:0", app="m:a")
        self.resources = SimpleNamespace(
            settings=settings, log=self.log, admin=AdminSocket(of_settings(settings, self.log)), directory="/",
            started_in="/", environment=Environment("/", "/"), open_files=SimpleNamespace(soft_limit=1024),
        )  # fmt: skip
        self.ends: list[StatusEnds] = []
        self.children = PlayedChildren()
        self.refused = False
        system = System(
            cast("Any", None), Terminal(False), systemd.Notifier({}), self.children, self._spawn, lambda: NOW
        )
        self.fleet = Fleet(1)
        self.unended = Unended(cast("Any", self.resources), Transitions(Rollout(self.fleet)))
        self.admin = AdminProcess(cast("Any", self.resources), system, self.unended)
        self.statuses = 0

    def _spawn(self, main: Any) -> int:
        if self.refused:
            raise BlockingIOError("no process")
        ends = main.args[0].ends
        self.ends.append(StatusEnds(os.dup(ends.bell), ends.answers.dup()))
        return FIRST_PID + len(self.ends)

    @property
    def pid(self) -> int | None:
        status = self.admin.status()
        return status["pid"] if status else None

    def turn(self, now: float, serving: bool = True) -> None:
        self.admin.turn(now, serving, self._status)

    def _status(self, _now: float) -> dict[str, Any]:
        self.statuses += 1
        return {"ok": True, "text": "x" * 1_000_000}


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    made.admin.close()
    made.resources.admin.close()
    for ends in made.ends:
        ends.close()


def test_the_workers_come_first(master: Master) -> None:
    """But where they take long, probes are answered."""
    master.turn(NOW, serving=False)
    assert master.pid is None
    assert master.admin.next_look == NOW + WORKERS_FIRST_SECONDS
    master.turn(NOW + WORKERS_FIRST_SECONDS, serving=False)
    assert master.pid == FIRST_PID + 1


def test_it_is_started_again_with_a_delay_that_grows(master: Master) -> None:
    now, delays = NOW, []
    for _ in range(4):
        master.turn(now)
        assert master.pid is not None
        assert master.admin.ended(master.pid, signal.SIGSEGV, now)
        delays.append(master.admin.next_look - now)
        now = master.admin.next_look
    assert delays == sorted(set(delays))


def test_one_that_has_lived_is_started_again_at_once(master: Master) -> None:
    master.turn(NOW)
    assert master.pid is not None
    assert master.admin.ended(master.pid, signal.SIGKILL, NOW + 60)
    master.turn(NOW + 60)
    assert master.pid == FIRST_PID + 2


def test_other_settings_and_reopened_logs_replace_it_while_the_old_one_finishes(master: Master) -> None:
    master.turn(NOW)
    master.admin.logs_reopened()
    master.turn(NOW)
    assert master.pid == FIRST_PID + 2
    assert master.ends[0].answers.recv(1) == b"", "the end of its channel tells it to leave"
    master.resources.settings = settings_table.defaults(admin_bind="127.0.0.1:0", app="m:a", admin_hosts=["x"])
    master.turn(NOW)
    assert master.pid == FIRST_PID + 3
    assert master.admin.pids == {FIRST_PID + 1, FIRST_PID + 2, FIRST_PID + 3}, "no template may name one as a worker"


def test_one_that_does_not_leave_is_killed(master: Master) -> None:
    master.turn(NOW)
    master.resources.admin.move(None)
    master.turn(NOW)
    assert master.admin.status() is None
    assert master.admin.next_look == NOW + LEAVE_SECONDS
    master.turn(NOW + LEAVE_SECONDS)
    assert master.children.sent == [(FIRST_PID + 1, signal.SIGKILL)]
    assert master.admin.ended(FIRST_PID + 1, signal.SIGKILL, NOW + LEAVE_SECONDS)
    assert not master.admin.pids


def test_one_that_a_kill_does_not_end_is_told_and_counts_no_longer(
    master: Master, capfd: pytest.CaptureFixture[str]
) -> None:
    master.turn(NOW)
    master.resources.admin.move(None)
    master.turn(NOW)
    master.turn(NOW + LEAVE_SECONDS)
    assert master.admin.next_look == NOW + LEAVE_SECONDS + UNENDED_SECONDS
    for _ in range(2):
        master.turn(NOW + LEAVE_SECONDS + UNENDED_SECONDS)
    assert capfd.readouterr().err.count(f"the admin process (pid {FIRST_PID + 1}) has not ended 5 s after SIGKILL") == 1
    assert master.fleet.unended == {FIRST_PID + 1: f"the admin process (pid {FIRST_PID + 1})"}
    assert not master.admin.pids
    assert not master.admin.ended(FIRST_PID + 1, signal.SIGKILL, NOW + 60), "it is no longer this part's to tell"


def test_one_that_asks_and_takes_no_answer_is_replaced(master: Master) -> None:
    master.turn(NOW)
    os.eventfd_write(master.ends[0].bell, 1)
    master.turn(NOW)
    assert master.statuses == 1
    master.turn(NOW + TAKE_SECONDS)
    assert master.pid == FIRST_PID + 2


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How many clients wait for the admin process."""
    count: list[int | None] = [0]
    monkeypatch.setattr(accept_queue, "length", lambda _listening: count[0])
    return count


def pass_time(master: Master, seconds: float) -> None:
    now = NOW
    while now < NOW + seconds:
        assert now < master.admin.next_look <= now + LOOK_SECONDS
        now = master.admin.next_look
        master.turn(now)


def test_one_that_takes_no_clients_is_replaced_and_killed(
    master: Master, waiting: list[int | None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its own user can hold it up, by a FIFO in place of a file for example."""
    master.turn(NOW)
    waiting[0] = 3
    pass_time(master, HUNG_SECONDS)
    assert master.pid == FIRST_PID + 2
    assert "pid 4194306, hangs: 3 clients wait, and it has taken none for 30 s" in capfd.readouterr().err
    master.turn(NOW + HUNG_SECONDS + LEAVE_SECONDS)
    assert master.children.sent == [(FIRST_PID + 1, signal.SIGUSR2), (FIRST_PID + 1, signal.SIGKILL)]


@pytest.mark.parametrize("clients", [0, None])
def test_one_for_which_no_client_waits_stays(master: Master, waiting: list[int | None], clients: int | None) -> None:
    """Or the kernel does not tell."""
    master.turn(NOW)
    waiting[0] = clients
    pass_time(master, 3 * HUNG_SECONDS)
    assert master.pid == FIRST_PID + 1


def test_one_that_serves_many_clients_stays(master: Master, waiting: list[int | None]) -> None:
    """Some wait at each look, and it asks for the status, which it does for the requests that it serves."""
    master.turn(NOW)
    waiting[0] = 9
    theirs = master.ends[0].answers
    theirs.setblocking(False)
    now = NOW
    while now < NOW + 3 * HUNG_SECONDS:
        now += LOOK_SECONDS
        os.eventfd_write(master.ends[0].bell, 1)
        for _ in range(9):  # the answer is taken piece by piece
            master.turn(now)
            with suppress(BlockingIOError):
                while theirs.recv(1 << 20):
                    pass
    assert master.pid == FIRST_PID + 1


def test_no_process_to_be_had_is_tried_again(master: Master, capfd: pytest.CaptureFixture[str]) -> None:
    master.refused = True
    master.turn(NOW)
    assert master.pid is None
    assert "cannot fork the admin process" in capfd.readouterr().err
    master.refused = False
    master.turn(master.admin.next_look)
    assert master.pid == FIRST_PID + 1


def test_the_end_of_another_process_is_not_its(master: Master) -> None:
    master.turn(NOW)
    assert not master.admin.ended(FIRST_PID, 0, NOW)
