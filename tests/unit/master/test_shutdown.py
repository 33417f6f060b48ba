"""How a stop begins: one request may come as several signals, a second request is quick."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.rollout import Rollout
from forkserver.master.shutdown import GROUP_SECONDS, Shutdown
from harness.master_parts import Parts
from harness.model import Model

NOW = 1000.0


class Service(Model):
    """What a departure works with; ``said`` is what the operator is told."""

    def __init__(self, drain_delay: float = 0.0) -> None:
        self.said: list[str] = []
        super().__init__(Rollout(Fleet(1)))
        self.rollout.begin(Purpose.START, 1, Times(60.0, 30.0), shares=True)
        self.rollout.serving_generation = 1
        resources = SimpleNamespace(refuse_arrivals=lambda unix: False)
        reporter = SimpleNamespace(
            finishing=lambda who: self.said.append(f"finishing: {who}"),
            stopping=lambda how: self.said.append(f"stopping: {how}"),
            draining=lambda who, seconds: self.said.append(f"draining: {who}"),
        )
        actions = SimpleNamespace(drain=lambda: None)
        table = SimpleNamespace(in_force=SimpleNamespace(drain_delay=drain_delay))
        rest: list[Any] = [reporter, actions, table]
        self.shutdown = Shutdown(cast("Any", resources), self.rollout, *rest)


def test_what_follows_at_once_is_the_same_request() -> None:
    service = Service()
    for later in (0.0, 0.001, GROUP_SECONDS / 2):
        service.shutdown.ask("SIGTERM", NOW + later, "SIGTERM")
    assert service.said == ["finishing: SIGTERM"]
    assert not service.fleet.quick


@pytest.mark.parametrize("drain_delay", [0.0, 10.0])
def test_a_second_request_is_quick(drain_delay: float) -> None:
    service = Service(drain_delay)
    service.shutdown.ask("SIGTERM", NOW, "SIGTERM")
    service.shutdown.ask("SIGTERM", NOW + GROUP_SECONDS, "SIGTERM")
    assert service.said[1:] == ["stopping: second request, SIGTERM; at once"]
    assert service.fleet.quick


def test_another_signal_is_another_request() -> None:
    """TERM of a manager, then Ctrl-C of a person who does not want to wait."""
    service = Service()
    service.shutdown.ask("SIGTERM", NOW, "SIGTERM")
    service.shutdown.ask("SIGINT", NOW, "SIGINT", wait=False)
    assert service.fleet.quick


def test_ctrl_c_does_not_wait_for_load_balancers() -> None:
    """A person sits before it."""
    service = Service(drain_delay=10.0)
    service.shutdown.ask("SIGINT", NOW, wait=False)
    assert service.said == ["finishing: SIGINT"]
    assert service.fleet.stopping


def test_a_term_waits_for_load_balancers() -> None:
    service = Service(drain_delay=10.0)
    service.shutdown.ask("SIGTERM", NOW)
    assert service.said == ["draining: SIGTERM"]
    assert not service.fleet.stopping


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "under way"])
def test_a_reload_that_a_drain_leaves_unfinished_ends_for_systemd(
    parts: Parts, told: list[str], capfd: pytest.CaptureFixture[str], wanted: bool
) -> None:
    """Draining changes nothing any more: neither the reload that is under way, nor one that was to follow, ends."""
    parts.rollout.serving_generation, parts.rollout.coming = 1, None
    heard: list[dict[str, Any]] = []
    parts.reporter.reloads.wait(heard.append)
    if wanted:
        parts.rollout.want_reload()
    else:
        parts.reporter.reloading(parts.launcher.begin(Purpose.RELOAD, parts.settings))
    before = len(told)
    parts.stop().drain("forkserverctl")
    assert [each.partition("\n")[0] for each in told[before:]] == ["RELOADING=1", "READY=1"]
    assert not parts.rollout.reloading
    assert [each["error"] for each in heard] == ["the service is draining, and only a stop may follow"]
    assert "the reload that was under way, or was to follow, is left" in capfd.readouterr().err


def test_a_drain_without_a_reload_is_none_for_systemd(parts: Parts, told: list[str]) -> None:
    parts.rollout.serving_generation, parts.rollout.coming = 1, None
    parts.stop().drain("forkserverctl")
    assert [each.partition("=")[0] for each in told] == ["STATUS"]


def test_a_stop_does_not_wait_for_a_debugger() -> None:
    """Its call ends when a person types so."""
    service = Service()
    worker = service.transitions.worker_ordered(0, 1, row=0, now=NOW)
    worker.in_debugger = True
    service.shutdown.ask("SIGINT", NOW, "SIGINT")
    assert service.said == ["stopping: SIGINT, while a debugger is in use; at once"]
    assert service.fleet.quick
