"""An upgrade from the order to the exec: what is refused leaves the running program as it was."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from forkserver.config import loading
from forkserver.config.invocation import Environment
from forkserver.errors import ConfigError
from forkserver.linux import signals, syscalls
from forkserver.master.model.rollout import Rollout
from forkserver.master.upgrade import upgrade
from forkserver.master.upgrade.new_program import NewProgram
from forkserver.master.upgrade.snapshot import Snapshot, SnapshotError
from forkserver.master.upgrade.upgrade import Order, Upgrade
from harness import reach
from harness.intruder import give
from harness.upgrades import ANSWERS, carried, switched


@pytest.mark.parametrize("text", ["", "1", "try", "try:3", "try:a:b", "go-on:3:4", "go-on:-1", "go-on:"])
def test_a_variable_that_somebody_else_has_set_is_refused(text: str) -> None:
    environ = {"FORKSERVER_UPGRADE": text}
    with pytest.raises(ConfigError, match="unset it"):
        upgrade.take_order(environ)
    assert environ == {}


def test_an_order_is_taken_out_of_the_environment() -> None:
    environ = {"FORKSERVER_UPGRADE": "try:3:4", "HOME": "/"}
    assert upgrade.take_order(environ) == Order(3, 4)
    assert environ == {"HOME": "/"}
    assert upgrade.take_order(environ) is None
    assert upgrade.take_order({"FORKSERVER_UPGRADE": "go-on:5"}) == Order(5, -1)


def test_a_state_that_is_meant_for_another_process_is_refused(memory: Callable[[Any], int]) -> None:
    """Descriptors of another process would be closed, or served, in this one."""
    with pytest.raises(SnapshotError, match="meant for pid 1; unset it"):
        upgrade.adopt(Order(memory(carried(1)), -1))


def asked(memory: Callable[[Any], int], content: Any, argv: list[str]) -> tuple[int, list[str]]:
    """What the trial answers: its exit status, and the verdict."""
    reply = os.memfd_create("reply")
    try:
        status = upgrade.try_on(Order(memory(content), reply), argv, {}, "forkserver 9")
        return status, json.loads(os.pread(reply, 1 << 16, 0))
    finally:
        os.close(reply)


def test_a_program_that_understands_says_its_name_and_its_environment(memory: Callable[[Any], int]) -> None:
    answered = asked(memory, carried(os.getppid()), ["raw:app"])
    assert answered == (0, ["forkserver 9", "", os.path.realpath(sys.prefix)])


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["raw:app", "--workers", "many"], "--workers 'many'"),
        ([], "no application"),
        (["a:b", "--no-such"], "--no-such"),
    ],
)
def test_settings_that_the_next_program_refuses_refuse_it(
    memory: Callable[[Any], int], argv: list[str], why: str
) -> None:
    status, answered = asked(memory, carried(os.getppid()), argv)
    assert (status, answered[0]) == (1, "")
    assert answered[1].startswith("forkserver 9 refuses: ")
    assert why in answered[1]


def test_a_state_without_sense_is_refused(memory: Callable[[Any], int]) -> None:
    content = json.loads(os.pread(memory(carried(os.getppid())), 1 << 20, 0))
    content["state"]["rollout"]["fleet"]["workers"][0]["state"] = "dancing"
    assert asked(memory, content, ["raw:app"])[1][1].endswith(
        "snapshot.rollout.fleet.workers[0].state: 'dancing' is no State; restart instead"
    )


def test_a_fault_of_the_next_program_is_told_with_its_traceback(
    memory: Callable[[Any], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = carried(os.getppid())
    monkeypatch.setattr(loading, "load", lambda *_: 1 / 0)
    _, answered = asked(memory, written, ["raw:app"])
    assert answered[1] == "forkserver 9 fails: division by zero"
    assert "ZeroDivisionError" in answered[2]


class Told:
    """Who hears what becomes of an upgrade."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *words: self.words.append(" ".join([name, *(word for word in words if isinstance(word, str))]))


@pytest.fixture
def rollout() -> Rollout:
    made = carried(0).rollout
    made.serving_generation, made.coming = 1, None
    return made


def wish(rollout: Rollout, words: list[str], environment: Environment | None = None) -> tuple[Upgrade, Told]:
    told = Told()
    command = NewProgram(words, {}, "/", environment)
    return Upgrade(command, rollout, cast("Any", told), lambda _: carried(os.getpid()), cast("Any", told)), told


def tried(made: Upgrade) -> None:
    """Begin the trial that is wanted, and hear of its end."""

    def begin() -> int:
        made.turn(0.0)
        return 0

    signals.run(begin)
    assert made._trial is not None
    assert made.ended(made._trial.pid, os.waitpid(made._trial.pid, 0)[1])


def test_a_refused_upgrade_leaves_all_as_it_was(rollout: Rollout) -> None:
    made, told = wish(rollout, ["/no/such/python"])
    made.want()
    tried(made)
    assert (made.due, made.wanted, made.trying, rollout.upgrading) == (False, False, False, False)
    assert told.words[1].startswith("upgrade_refused cannot run /no/such/python")


@pytest.mark.as_root
def test_a_reload_by_root_executes_no_environment_that_another_user_chooses(rollout: Rollout) -> None:
    """USR2 orders exactly that; HUP, of which nothing is executed but by a switched link, does not."""
    with reach.public_folder() as public:
        environment = switched(public)
        give(public / "current")
        made, told = wish(rollout, ["/usr/bin/env"], environment)
        rollout.want_reload()
        made.turn(0.0)
    assert (made.wanted, rollout.reload_wanted) == (False, False)
    assert len(told.words) == 1
    assert f"root does not execute it at a reload, nobody owns {public}/current; give the folders" in told.words[0]


def test_a_reload_through_a_switched_link_is_an_upgrade(rollout: Rollout, tmp_path: Path) -> None:
    """The master's own dependencies are those that the new code would meet."""
    environment = switched(tmp_path)
    made, told = wish(rollout, ["/no/such/python"], environment)
    rollout.want_reload()
    tried(made)
    assert told.words[0] == f"environment_moved {environment.typed} {tmp_path}/new {environment.real}"
    assert not rollout.reload_wanted, "refused with the upgrade, or it would be tried for ever"
    assert told.words[-1].startswith("settings_refused upgrade refused: cannot run /no/such/python")
    made.turn(0.0)
    assert not made.wanted


def test_a_reload_where_nothing_has_moved_is_none(rollout: Rollout, tmp_path: Path) -> None:
    environment = switched(tmp_path)
    made, told = wish(rollout, ["/no/such/python"], environment._replace(real=str(tmp_path / "new")))
    rollout.want_reload()
    made.turn(0.0)
    assert (made.wanted, rollout.reload_wanted, told.words) == (False, True, [])


@pytest.mark.process
def test_asking_during_a_trial_asks_for_another(rollout: Rollout) -> None:
    """The files were changed again while the trial read them: what it says is not of those."""
    made, _ = wish(rollout, [sys.executable, "-c", ANSWERS])
    made.want()
    tried(made)
    assert made.due
    made.want()
    assert not made.due
    tried(made)
    assert made.due
    assert rollout.upgrading


@pytest.mark.process
@pytest.mark.parametrize("stops", [False, True])
def test_a_trial_that_a_kill_does_not_end_holds_up_neither_a_reload_nor_a_stop(rollout: Rollout, stops: bool) -> None:
    made, told = wish(rollout, [sys.executable, "-c", "import signal; signal.pause()"])
    made.want()

    def begin() -> int:
        made.turn(0.0)
        return 0

    signals.run(begin)
    trial, pid = made._trial, made.pid
    assert trial is not None
    if stops:
        rollout.drain(stop_at=10.0)
    made.turn(trial.deadline)
    assert trial.late
    made.turn(trial.deadline - 1)
    assert made.trying
    made.turn(trial.deadline)
    os.waitpid(pid, 0)
    assert (made.trying, made.pid, made.due, rollout.upgrading) == (False, 0, False, False)
    assert f"give_up the next program (pid {pid})" in told.words
    assert any("has not answered within 30 s" in words for words in told.words) is not stops
    assert not made.ended(pid, signal.SIGKILL), "it is no longer the upgrade's to tell"


def test_a_stop_forgets_an_upgrade(rollout: Rollout) -> None:
    made, told = wish(rollout, ["/no/such/python"])
    made.want()
    rollout.drain(stop_at=10.0)
    made.turn(0.0)
    assert (made.wanted, made.trying) == (False, False)
    made.want()
    assert told.words == ["upgrade_unwanted"]


@pytest.mark.process
def test_an_exec_that_fails_leaves_all_as_it_was(rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial went well, and then somebody took the interpreter away."""
    made, told = wish(rollout, [sys.executable, "-c", ANSWERS])
    made.want()
    tried(made)
    before, here = os.listdir("/proc/self/fd"), os.getcwd()
    reading, writing = os.pipe()
    changed: list[tuple[int, bool]] = []

    def gone(*_: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(syscalls, "execute", gone)
    monkeypatch.setattr(Snapshot, "descriptors", lambda _: [reading, writing])
    monkeypatch.setattr(os, "set_inheritable", lambda number, kept: changed.append((number, kept)))
    made.become(0.0)
    os.chdir(here)
    os.close(reading)
    os.close(writing)
    assert changed[1:3] == [(reading, True), (writing, True)]
    assert changed[4:] == [(reading, False), (writing, False)]
    assert os.listdir("/proc/self/fd") == before
    assert told.words[-2:] == ["stays", "upgrade_refused cannot become the next program: No such file or directory "]
    assert not rollout.upgrading
    assert not made.due
