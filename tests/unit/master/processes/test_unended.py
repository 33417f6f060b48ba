"""Children that were told to leave and do not are killed, and given up where a kill does not end them."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import UNENDED_SECONDS, Transitions
from forkserver.master.processes.unended import LeavingChildren, Unended
from harness.master import PlayedChildren

NOW = 1000.0
PID = 2**22 + 1  # above pid_max, proc(5)


class Held(PlayedChildren):
    """Children that a kill does not end."""

    def wait(self, process: Any, seconds: float) -> bool:
        return False


class Leaving:
    """One child that was told to leave."""

    def __init__(self, children: PlayedChildren) -> None:
        self.fleet = Fleet(1)
        self.children = children
        resources = SimpleNamespace(log=ErrorLog("-", "debug", "test"))
        unended = Unended(cast("Any", resources), Transitions(Rollout(self.fleet)))
        self.all = LeavingChildren("the helper", children, unended)
        self.child = type("Child", (), {"pid": PID})()
        children.hold(self.child, PID)
        self.all.add(self.child, NOW)


def test_one_that_is_late_is_killed_once_and_given_up_once(capfd: pytest.CaptureFixture[str]) -> None:
    leaving = Leaving(PlayedChildren())
    assert leaving.all.turn(NOW - 1) == []
    assert leaving.all.turn(NOW) == []
    assert leaving.children.sent == [(PID, signal.SIGKILL)]
    assert leaving.all.next_look == NOW + UNENDED_SECONDS
    assert leaving.all.turn(leaving.all.next_look) == [PID]
    assert leaving.all.turn(NOW + 1000) == []
    assert capfd.readouterr().err.count(f"the helper (pid {PID}) has not ended 5 s after SIGKILL") == 1


def test_one_that_gets_no_signals_is_not_told_as_killed() -> None:
    leaving = Leaving(PlayedChildren())
    leaving.children.release(leaving.child)
    assert leaving.all.turn(NOW) == []
    assert leaving.all.next_look == NEVER
    assert leaving.all.pids == {PID}
    assert leaving.fleet.unended == {}


@pytest.mark.parametrize("children", [PlayedChildren(), Held()])
def test_the_end_of_the_master_notes_those_that_stay(children: PlayedChildren) -> None:
    leaving = Leaving(children)
    leaving.all.close()
    assert not leaving.all.pids
    assert leaving.fleet.unended == ({PID: f"the helper (pid {PID})"} if isinstance(children, Held) else {})
