"""What the master does to a process for a step of the plan."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from forkserver.linux import syscalls
from forkserver.master.model.events import Failure
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.plan import AskForLastWords, AskForStacks, Reload
from forkserver.master.monitoring import memory_headroom
from forkserver.master.monitoring.memory import MIB
from forkserver.master.processes.children import Children
from forkserver.worker.template import OOM_MORE
from harness.master_parts import NOW, Parts, Unshared


def test_what_serves_is_spared_and_what_is_loaded_beside_it_is_not(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out during a reload, the kernel is to choose the new generation until it has taken over."""
    scores: dict[int, int] = {}
    monkeypatch.setattr(syscalls, "oom_score", lambda: 5)
    monkeypatch.setattr(syscalls, "set_oom_score", lambda pid, score: scores.update({pid: score}))
    first = parts.transitions.template_started(1, 4711, NOW)
    parts.actions.template_loaded(first, NOW)
    assert scores.pop(4711) == 5 + OOM_MORE
    old = [parts.transitions.worker_ordered(slot, 1, slot, NOW) for slot in (0, 1)]
    for worker in old:
        parts.transitions.worker_announced(worker, 50 + worker.slot, NOW)
        parts.actions.ready(worker, NOW)
    assert scores == {50: 5 + OOM_MORE, 51: 5 + OOM_MORE}
    scores.clear()
    parts.launcher.begin(Purpose.RELOAD, parts.settings)
    parts.actions.template_loaded(parts.transitions.template_started(2, 4712, NOW), NOW)
    assert scores == {}, "it may still have to give way"
    new = parts.transitions.worker_ordered(0, 2, 2, NOW)
    parts.transitions.worker_announced(new, 60, NOW)
    parts.actions.ready(new, NOW)
    assert scores == {60: 5 + OOM_MORE}, "it has taken the slot over"
    parts.rollout.current, parts.rollout.rolling = 2, None
    parts.actions.decided()
    assert scores[4712] == 5 + OOM_MORE


def test_a_score_that_cannot_be_set_is_no_fault(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    """A sandbox without a writable /proc, or a process that has just ended."""
    parts.actions.template_loaded(parts.transitions.template_started(1, 2**30, NOW), NOW)
    assert "oom_score_adj cannot be lowered: No such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize("loads", [False, True])
def test_a_reload_that_fails_goes_back_to_the_directory_of_what_serves(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, loads: bool
) -> None:
    """It has entered the one that the path leads to now, perhaps a release that does not load."""
    returned: list[str] = []
    resources = parts.actions._resources
    for name, value in {"changing": False, "listener_set": SimpleNamespace(drop_at=NEVER), "reload": bool}.items():
        monkeypatch.setattr(resources, name, value, raising=False)
    monkeypatch.setattr(resources, "return_to", returned.append, raising=False)
    parts.actions.template_loaded(parts.transitions.template_started(1, 4711, NOW), NOW)
    parts.actions.act(Reload(), NOW)
    parts.actions.settle_listeners(NOW)
    assert returned == [], "the new code is being loaded there"
    if loads:
        parts.rollout.coming, parts.rollout.current = None, 2
    else:
        parts.rollout.generation_failed(2, Failure("it is broken"), NOW)
    parts.actions.settle_listeners(NOW)
    parts.actions.settle_listeners(NOW)
    assert returned == ([] if loads else [os.getcwd()])


@pytest.mark.parametrize("fault", [MemoryError, RecursionError, OSError])
def test_a_reload_that_meets_a_fault_is_refused_and_does_not_end_the_service(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: type[Exception]
) -> None:
    """Another user may own a file that it reads."""

    def reload() -> None:
        raise fault("too much")

    monkeypatch.setattr(parts.actions, "settle_listeners", lambda _: None)
    monkeypatch.setattr(parts.actions._resources, "reload", reload, raising=False)
    parts.rollout.want_reload()
    parts.actions.act(Reload(), NOW)
    assert not parts.rollout.reload_wanted
    said = capfd.readouterr().err
    assert f"a fault of forkserver's, or of this machine: {fault.__name__}('too much')" in said
    assert "Traceback" in said


@pytest.mark.parametrize(("left", "beside"), [(100 * MIB, 0), (20 * MIB, 1)])
def test_the_first_new_worker_shows_whether_memory_holds_all(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], left: int, beside: int
) -> None:
    monkeypatch.setattr(memory_headroom, "private", lambda _: 50 * MIB)
    monkeypatch.setattr(memory_headroom, "available", lambda: float(left))
    unshared.serving(0, 2)
    assert unshared.parts.fleet.generations[2].beside == beside
    assert ("memory has room for 1 new worker beside" in capfd.readouterr().err) == bool(beside)


def test_a_shared_generation_is_not_measured(unshared: Unshared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers take what they write, which nothing tells before they serve."""
    monkeypatch.setattr(memory_headroom, "available", lambda: pytest.fail("it was measured"))
    unshared.parts.fleet.generations[2].shares = True
    unshared.serving(0, 2)


def test_stacks_are_asked_for_once(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(Children, "signal", lambda _, process, __: sent.append(process.pid))
    monkeypatch.setattr(syscalls, "hears", lambda pid, _: True)
    first, second = unshared.starting(0, 2), unshared.starting(1, 2)
    unshared.parts.actions.act(AskForStacks(first), NOW)
    unshared.parts.actions.act(AskForStacks(second), NOW)
    assert sent == [first.pid]
    assert capfd.readouterr().err.count("its stacks follow") == 1


def test_stacks_that_cannot_come_are_not_announced(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker that a signal has stopped writes nothing before it is killed."""
    monkeypatch.setattr(Children, "signal", lambda _, process, signum: True)
    monkeypatch.setattr(syscalls, "hears", lambda pid, signum: False)
    unshared.parts.actions.act(AskForStacks(unshared.starting(0, 2)), NOW)
    said = capfd.readouterr().err
    assert "it cannot write its stacks (stopped, or SIGUSR2 is blocked), then it is killed" in said
    assert "follow" not in said


@pytest.mark.parametrize(("hears", "says"), [(True, "where it stands follows"), (False, "it cannot say")])
def test_last_words_are_announced_where_they_come(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], hears: bool, says: str
) -> None:
    monkeypatch.setattr(Children, "signal", lambda _, process, signum: True)
    monkeypatch.setattr(syscalls, "hears", lambda pid, signum: hears)
    monkeypatch.setattr(unshared.parts.transitions, "worker_overdue", lambda worker, now: None)
    unshared.parts.actions.act(AskForLastWords(unshared.workers[0]), NOW)
    assert says in capfd.readouterr().err


def test_a_signal_of_the_terminal_is_passed_on_to_each_group(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[object, int]] = []
    monkeypatch.setattr(Children, "signal_group", lambda _, process, signum: sent.append((process, signum)))
    unshared.parts.actions.pass_on(signal.SIGINT)
    assert sent == [(each, signal.SIGINT) for each in (*unshared.parts.fleet.templates, *unshared.parts.fleet.workers)]
    assert sent
