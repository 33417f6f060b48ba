"""What the master does when the system refuses it something: it waits, says so once, and nothing is left open."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver import kernel, settings, systemd
from forkserver.logs import AccessLog, ErrorLog
from forkserver.scoreboard import FREE, STATE, Scoreboard
from forkserver.supervision.effects import Effects
from forkserver.supervision.generations import Purpose
from forkserver.supervision.herald import Herald
from forkserver.supervision.links import Links
from forkserver.supervision.messages import Channel
from forkserver.supervision.resources import Resources
from forkserver.supervision.roster import Roster

NOW = 1000.0


class House:
    """A master's hands without a master."""

    def __init__(self) -> None:
        self.wake_up, self._woken = os.pipe()
        self.settings = settings.load(["raw:app", "-w", "2"], {})
        self.board = Scoreboard(rows=8)
        log = ErrorLog("-", "debug", "test")
        resources = SimpleNamespace(
            settings=self.settings, directory=os.getcwd(), started_in=os.getcwd(), board=self.board, listeners=[],
            log=log, access=AccessLog(None, log.warning), lease_row=self.board.lease, log_files=(False, False),
        )  # fmt: skip
        held = cast("Resources", resources)
        self.roster = Roster(2)
        self.links = Links(self.wake_up)
        herald = Herald(held, self.roster, systemd.Notifier({}))
        self.effects = Effects(held, self.roster, herald, self.links, cast("Any", None))
        self.effects.begin(Purpose.START, self.settings)

    def act(self, now: float) -> None:
        for step in self.roster.plan(now):
            self.effects.act(step, now)

    def close(self) -> None:
        self.links.close()
        for end in self.effects._handoff:
            end.close()
        os.close(self.board.fd)
        os.close(self.wake_up)
        os.close(self._woken)
        self.__dict__.clear()  # the scoreboard's memory goes with the last who knows it


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def refuse(number: int) -> Callable[[], Any]:
    def refused() -> Any:
        raise OSError(number, os.strerror(number))

    return refused


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_template_that_cannot_be_forked_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    """The machine is full for a moment; neither the start nor a reload fails by that."""
    monkeypatch.setattr(kernel, "fork", refuse(number))
    before = open_descriptors()
    now = NOW
    for _ in range(3):
        house.act(now)
        assert house.roster.plan(now) == []
        now = house.roster.wake_at(now)
    assert open_descriptors() == before
    assert house.roster.news() == []
    assert house.roster.coming == 1
    said = capfd.readouterr().err
    assert said.count(f"cannot fork a template: {os.strerror(number)}; next try in 0.5 s") == 1
    assert "the same again, 1 time; next try in 1.0 s" in said
    assert "the same again, 2 times; next try in 2.0 s" in said


def test_a_channel_that_cannot_be_had_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Channel, "pair", refuse(errno.EMFILE))
    house.act(NOW)
    assert house.roster.plan(NOW) == []
    assert "no channel for a template: Too many open files; next try in 0.5 s" in capfd.readouterr().err


def test_a_worker_that_cannot_be_ordered_gives_its_row_back(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    template = house.roster.template_started(1, 4711, NOW)
    house.roster.template_loaded(template)
    monkeypatch.setattr(Channel, "pair", refuse(errno.ENFILE))
    house.act(NOW)
    assert all(house.board[index].words[STATE] == FREE for index in range(len(house.board)))
    assert house.roster.workers == []
    assert house.roster.plan(NOW) == []
    assert house.roster.wake_at(NOW) == NOW + 0.5
    assert "no channel for a worker" in capfd.readouterr().err
