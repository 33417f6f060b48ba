"""The builder puts a whole master together, which has begun its first generation."""

from __future__ import annotations

import errno
import os

import pytest

from forkserver.errors import ConfigError, ForkserverError
from forkserver.ipc.channel import MasterChannel
from forkserver.master import builder
from forkserver.master.model.generation import Purpose
from harness.master import MakeService
from harness.upgrades import carried


def test_a_first_start_has_begun_a_generation_by_the_settings(make_service: MakeService) -> None:
    service = make_service(workers="3", boot_timeout="9")
    (generation,) = service.fleet.generations.values()
    assert (generation.purpose, generation.wanted, generation.times.boot) == (Purpose.START, 3, 9)
    assert service.rollout.coming == generation.number
    assert service.templates == [], "no process before the first turn"


def test_lines_that_the_logs_lose_are_counted(make_service: MakeService) -> None:
    service = make_service()
    lost = service.resources.log.on_lost
    assert lost is not None
    lost(4)
    assert service.master._monitoring.statistics.lost_lines == 4


def test_a_command_on_the_control_socket_ends_a_wait(make_service: MakeService) -> None:
    service = make_service()
    assert service.resources.control.fileno() in _watched(service.master._dispatch._poller._epoll.fileno())


def test_an_upgrade_that_cannot_go_on_has_the_manager_start_the_service_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After exit status 2, a mistake in the settings, a service unit stays down: RestartPreventExitStatus=2."""

    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("group 'www': no such group here; name another")

    monkeypatch.setattr(builder, "build", refuse)
    with pytest.raises(ForkserverError, match="cannot go on after the upgrade: group 'www'") as caught:
        builder.go_on(carried(os.getpid()), [], {}, terminal=False)
    assert caught.value.exit_status == 1


def _watched(epoll: int) -> set[int]:
    """The descriptors that ``epoll`` watches: proc(5), /proc/self/fdinfo."""
    with open(f"/proc/self/fdinfo/{epoll}", encoding="ascii") as file:
        return {int(line.split()[1]) for line in file if line.startswith("tfd:")}


def test_an_order_that_the_kernel_refuses_does_not_end_the_master(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It concerns one process: what serves is served on, and the next reload tries again."""
    service = make_service()
    service.serve()

    def refuse(*_: object) -> bool:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(MasterChannel, "send", refuse)
        service.master._actions.maintain(True)
        service.master._actions.give_listeners(service.fleet.templates[0])
    for order in ("Maintain", "Guard"):
        assert f"the kernel refuses to send it the order {order}: Cannot allocate memory" in service.said()
    service.reload()
