"""A state is read as it was written, by this version and by later ones, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkserver.config import loading
from forkserver.errors import ForkserverError
from forkserver.ipc import messages, report_ring, scoreboard
from forkserver.ipc.scoreboard import Scoreboard
from forkserver.ipc.serialization import dump, load
from forkserver.master.upgrade import snapshot
from forkserver.master.upgrade.snapshot import Snapshot, SnapshotError
from forkserver.server.handoff import queue
from harness.upgrades import carried

LAYOUTS = Path(__file__).with_name("state-layout-1.json")


def test_a_state_is_read_as_it_was_written(memory: Callable[[Any], int]) -> None:
    written = carried(42)
    read = snapshot.read(memory(written))
    assert dump(read) == dump(written)
    assert loading.from_snapshot(read.resources.settings) == loading.load(["raw:app", "-w", "2"], {})


def test_a_state_says_where_children_report(memory: Callable[[Any], int]) -> None:
    """None is for a child of an older program, which reports on its channel."""
    written = carried(42)._replace(reports=[report_ring.ReportRingSnapshot(10, 11, 500, 9), None], claims={1: 103})
    read = snapshot.read(memory(written))
    assert (read.reports, read.claims) == (written.reports, written.claims)
    assert {10, 11} <= set(read.descriptors())


def test_nobody_can_change_a_state_that_is_written(memory: Callable[[Any], int]) -> None:
    number = memory(carried(42))
    with pytest.raises(PermissionError):
        os.pwrite(number, b"x", 0)
    assert not os.get_inheritable(number)


@pytest.mark.parametrize("name", ["state", "messages", "scoreboard"])
def test_another_layout_is_refused_by_its_number(memory: Callable[[Any], int], name: str) -> None:
    """Old workers talk to the new master, and write into memory that it reads."""
    content = json.loads(os.pread(memory(carried(42)), 1 << 20, 0))
    content["layouts"][name] = 99
    with pytest.raises(SnapshotError, match=f"layout of {name} is number 99 .* restart instead"):
        snapshot.read(memory(content))


@pytest.mark.parametrize("content", [[], {}, {"layouts": {}}, {"layouts": 3, "state": {}}, "x"])
def test_what_is_no_state_is_refused(memory: Callable[[Any], int], content: Any) -> None:
    with pytest.raises(SnapshotError, match="no state of a running forkserver"):
        snapshot.read(memory(content))


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    with pytest.raises(SnapshotError, match="no state"):
        snapshot.read(987654)


def test_a_state_of_an_earlier_version_is_understood() -> None:
    """As long as LAYOUT stays the same: a field that is added needs a default, one that is removed another LAYOUT."""
    plain = json.loads(LAYOUTS.read_text())
    assert plain["layouts"]["state"] == snapshot.LAYOUT, "write the file of the new layout beside this test"
    read = load(Snapshot, snapshot._of_now(plain["state"]))
    assert read.rollout.fleet.workers[0].pid == 102
    assert loading.from_snapshot(read.resources.settings).workers == 2


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    """A setting that is new has its default, one that is gone is left out."""
    held = loading.snapshot(loading.load(["raw:app", "-w", "7"], {}))
    del held.values["threads"]
    held.values["long_gone"] = 1
    read = loading.from_snapshot(held)
    assert (read.workers, read.threads) == (7, 1)
    assert not hasattr(read, "long_gone")


def test_the_protocol_has_a_number_for_each_shape_of_a_message() -> None:
    """Workers of two programs talk to one master and hand connections to each other. A change of shape needs
    another messages.PROTOCOL, so that the trial refuses it; then set this digest anew.
    """
    shapes = [(code, fixed.format, list(each._fields)) for code, (each, fixed) in sorted(messages._WIRE.items())]
    told = repr((shapes, queue._HEAD.format, messages._LENGTH.format))
    assert (messages.PROTOCOL, hashlib.sha256(told.encode()).hexdigest()[:16]) == (4, "a041a335834144a5")


def test_the_scoreboard_has_a_number_for_each_layout() -> None:
    """A word that moves needs another scoreboard.LAYOUT; one in the room to grow, which older programs leave zero,
    does not. Then set this digest anew.
    """
    public = sorted((name, value) for name, value in vars(scoreboard).items() if name.isupper() and name[0] != "_")
    words = [value for _, value in public if isinstance(value, int)]
    assert (scoreboard.LAYOUT, hashlib.sha256(repr(words).encode()).hexdigest()[:16]) == (5, "74527b027a13ea0c")


def test_a_scoreboard_is_taken_over_with_what_is_written_in_it() -> None:
    made = Scoreboard(rows=3, threads=2)
    made[1].words[scoreboard.REQUESTS] = 7
    same = Scoreboard.restore(made.fd)
    assert (same.rows, same.threads, same[1].words[scoreboard.REQUESTS]) == (3, 2, 7)
    same[2].words[scoreboard.PID] = 41
    assert made[2].words[scoreboard.PID] == 41
    os.close(made.fd)


def test_what_is_no_scoreboard_is_refused(memory: Callable[[Any], int]) -> None:
    with pytest.raises(ForkserverError, match=f"no scoreboard of layout {scoreboard.LAYOUT}"):
        Scoreboard.restore(memory({}))
