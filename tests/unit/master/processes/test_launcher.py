"""What is started, from which code, and what happens where the system refuses it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from forkserver.config import settings
from forkserver.ipc.channel import MasterChannel
from forkserver.ipc.scoreboard import FREE, STARTING, STATE, Scoreboard
from forkserver.linux import syscalls
from forkserver.master.model.events import EventKind
from forkserver.master.model.generation import Purpose
from forkserver.master.model.plan import StartTemplate
from forkserver.master.monitoring import memory_headroom
from forkserver.master.monitoring.memory import MIB
from harness.master_parts import BROKEN, NOW, Parts, Unshared


def refuse(number: int) -> Callable[[], Any]:
    def refused() -> Any:
        raise OSError(number, os.strerror(number))

    return refused


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_template_that_cannot_be_forked_is_tried_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    """The machine is full for a moment; neither the start nor a reload fails by that."""
    monkeypatch.setattr(syscalls, "fork", refuse(number))
    before = open_descriptors()
    now = NOW
    for _ in range(3):
        parts.act(now)
        assert parts.plan(now) == []
        now = parts.wake_at(now)
    assert open_descriptors() == before
    assert parts.rollout.take_events() == []
    assert parts.rollout.coming == 1
    said = capfd.readouterr().err
    assert said.count(f"cannot fork a template: {os.strerror(number)}") == 1
    assert said.count("; next try in 0.5 s") == 1
    assert "the same again, 1 time; next try in 1.0 s" in said
    assert "the same again, 2 times; next try in 2.0 s" in said


def test_a_channel_that_cannot_be_had_is_waited_for(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MasterChannel, "pair", refuse(errno.EMFILE))
    parts.act(NOW)
    assert parts.plan(NOW) == []
    assert "no channel for a template: Too many open files (RLIMIT_NOFILE is" in capfd.readouterr().err


def test_a_worker_that_cannot_be_ordered_gives_its_row_back(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    template = parts.transitions.template_started(1, 4711, NOW)
    parts.transitions.template_loaded(template, NOW)
    monkeypatch.setattr(MasterChannel, "pair", refuse(errno.ENFILE))
    parts.act(NOW)
    assert all(parts.board[index].words[STATE] == FREE for index in range(len(parts.board)))
    assert parts.fleet.workers == []
    assert parts.plan(NOW) == []
    assert parts.wake_at(NOW) == NOW + 0.5
    assert "no channel for a worker" in capfd.readouterr().err


def test_a_generation_keeps_the_scoreboard_that_its_template_was_given(parts: Parts) -> None:
    """A reload that is refused may have brought another: rows of that would be read while workers write in this."""
    template = parts.transitions.template_started(1, 4711, NOW)
    parts.transitions.template_loaded(template, NOW)
    ours, theirs = MasterChannel.pair()
    parts.links.add(template, ours)
    other = Scoreboard(rows=8)
    cast("Any", parts.actions._resources).board = other
    parts.act(NOW)
    assert [row.words[STATE] for row in other] == [FREE] * 8
    assert [row.words[STATE] for row in parts.board][:3] == [STARTING, STARTING, FREE]
    for worker in list(parts.fleet.workers):
        parts.links.drop(worker)
    parts.links.drop(template)
    theirs.orders.close()
    os.close(other.fd)


def test_no_template_speaks_plainly_where_keys_could_not_be_read(parts: Parts) -> None:
    encrypted = settings.defaults(app="raw:app", certfile=["/no/such.pem"])
    parts.rollout.coming = None
    parts.launcher.begin(Purpose.START, encrypted)
    parts.act(NOW)
    (news,) = parts.rollout.take_events()
    assert news.kind is EventKind.NEVER_STARTED
    assert "its certificates could not be read at the upgrade; fix them and reload" in news.why.reason
    assert parts.fleet.templates == []


def test_a_dead_template_of_unshared_code_is_replaced_without_an_import(unshared: Unshared) -> None:
    """The files may be broken by now, and its workers load them themselves."""
    parts = unshared.parts
    parts.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    assert unshared.parts.settings.preload == "auto"
    number = unshared.parts.launcher.begin(Purpose.REPLACE, unshared.parts.settings)
    assert not parts.fleet.generations[number].shares


# A link that was switched before a template died


def test_a_crash_deploys_nothing(unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = unshared.parts
    assert parts.rollout.coming is not None
    directory, _ = parts.launcher._folders(parts.rollout.coming)
    assert directory == str(released.parent / "r1")
    assert f"{released} leads to {released.parent}/r2 by now, which only a reload takes" in capfd.readouterr().err
    after = parts.launcher.begin(Purpose.RELOAD, parts.settings)
    assert parts.launcher._folders(after)[0] == str(released)


def test_other_code_is_not_loaded_beside_what_serves(
    unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the release of before was removed, too: then a worker that ends has no successor, as the status says."""
    parts = unshared.parts
    (released.parent / "r1").rmdir()
    generation = parts.rollout.coming
    assert generation is not None
    parts.actions.act(StartTemplate(generation, shares=True), NOW)
    for news in parts.rollout.take_events():
        parts.reporter.tell(news, NOW)
    said = f"no new template: {released.parent}/r1, where its code was, is gone, and {released} leads to"
    assert said in capfd.readouterr().err
    parts.rollout.serving_generation = 1
    assert f"no template, so no worker is replaced: {released.parent}/r1" in parts.reporter.status()
    parts.transitions.worker_exited(unshared.workers[0], "killed by SIGKILL", NOW)
    parts.reporter.worker_ended(unshared.workers[0], "killed by SIGKILL", "", NOW)
    assert "it is not replaced yet: there is no template" in capfd.readouterr().err


def test_where_a_successor_is_loaded_from_is_told_at_its_first_try(
    unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = unshared.parts
    assert parts.rollout.coming is not None
    parts.launcher._folders(parts.rollout.coming)
    assert "warning test" in capfd.readouterr().err
    parts.rollout.generation_failed(parts.rollout.coming, BROKEN, NOW)
    capfd.readouterr()
    parts.launcher._folders(parts.launcher.begin(Purpose.REPLACE, parts.settings))
    told = capfd.readouterr().err
    assert f"{released} leads to {released.parent}/r2 by now" in told
    assert "warning" not in told


def test_other_code_is_loaded_where_nothing_serves_any_more(
    unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = unshared.parts
    (released.parent / "r1").rmdir()
    for worker in unshared.workers:
        parts.transitions.worker_exited(worker, "killed by SIGKILL", NOW)
    assert parts.rollout.coming is not None
    assert parts.launcher._folders(parts.rollout.coming)[0] == str(released)
    assert "without a reload: no worker serves, and" in capfd.readouterr().err


@pytest.mark.parametrize(("left", "first"), [(200 * MIB, 2), (100 * MIB, 1), (20 * MIB, 1)])
def test_a_reload_begins_with_two_imports_where_memory_holds_two_workers_more(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, left: int, first: int
) -> None:
    """None of the new ones has shown its size yet, so they are taken to be as large as those that serve."""
    parts = unshared.parts
    monkeypatch.setattr(memory_headroom, "private", lambda _: 50 * MIB)
    monkeypatch.setattr(memory_headroom, "available", lambda: float(left))
    monkeypatch.setattr(syscalls, "fork", refuse(errno.EAGAIN))
    generation = parts.launcher.begin(Purpose.RELOAD, parts.settings)
    parts.launcher.start_template(generation, False, NOW)
    assert parts.fleet.generations[generation].at_first == first
