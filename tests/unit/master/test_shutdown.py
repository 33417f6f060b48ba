"""How a stop begins: one request may come as several signals, a second request is quick."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.rollout import Rollout
from forkserver.master.shutdown import GROUP_SECONDS, Shutdown
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
