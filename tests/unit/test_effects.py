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
from forkserver.scoreboard import FREE, STARTING, STATE, Scoreboard
from forkserver.supervision import orphans
from forkserver.supervision.channel import Channel
from forkserver.supervision.effects import Effects
from forkserver.supervision.generations import Purpose
from forkserver.supervision.herald import Herald
from forkserver.supervision.links import Links
from forkserver.supervision.news import Failure, Kind, News
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
            tls=None, log=log, access=AccessLog(None, log.warning), log_files=(False, False),
        )  # fmt: skip
        held = cast("Resources", resources)
        self.roster = Roster(2)
        self.links = Links(self.wake_up)
        self.herald = Herald(held, self.roster, systemd.Notifier({}))
        self.effects = Effects(held, self.roster, self.herald, self.links, cast("Any", None))
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


def test_a_templates_death_is_not_its_successors(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot share its import ends while its successor, of the same title, loads or forks already."""
    first = house.roster.template_started(1, 4711, NOW)
    house.roster.template_cannot_share(first, NOW)
    house.roster.template_started(1, 4712, NOW)
    house.roster.template_exited(first, "exit status 0", NOW)
    killed: list[int] = []
    monkeypatch.setattr(orphans, "titled", lambda _: [4712, 4713])
    monkeypatch.setattr(kernel, "kill", lambda pid, _: killed.append(pid))
    house.effects.end_orphans(first)
    assert killed == []


def test_a_generation_keeps_the_scoreboard_that_its_template_was_given(house: House) -> None:
    """A reload that is refused may have brought another: rows of that would be read while workers write in this."""
    template = house.roster.template_started(1, 4711, NOW)
    house.roster.template_loaded(template)
    ours, theirs = Channel.pair()
    house.links.add(template, ours)
    other = Scoreboard(rows=8)
    cast("Any", house.effects._resources).board = other
    house.act(NOW)
    assert [row.words[STATE] for row in other] == [FREE] * 8
    assert [row.words[STATE] for row in house.board][:3] == [STARTING, STARTING, FREE]
    for worker in list(house.roster.workers):
        house.links.drop(worker)
    theirs.close()
    os.close(other.fd)


def test_a_wait_may_be_longer_than_the_kernel_counts(house: House) -> None:
    """A lifetime of a month, and nothing else to wake for: that must not end the master."""
    os.write(house._woken, b".")
    assert house.links.wait(31 * 86400.0) == []


@pytest.mark.parametrize(("reload_again", "said"), [(False, "READY=1"), (True, "STATUS=reload failed")])
def test_a_refused_reload_is_not_the_end_of_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, reload_again: bool, said: str
) -> None:
    """RELOADING=1 was said of that already, and READY=1 would say that it is over."""
    sent: list[str] = []
    monkeypatch.setattr(systemd.Notifier, "_send", lambda _, message, **__: sent.append(message))
    house.roster._announced = 1
    if reload_again:
        house.effects.begin(Purpose.RELOAD, house.settings)
    else:
        house.roster.coming = None
    house.herald.tell(News(Kind.REFUSED, 1, Failure("it is broken")))
    assert len(sent) == 1
    assert sent[0].startswith(said)
