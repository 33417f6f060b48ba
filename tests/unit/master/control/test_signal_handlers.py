"""What each signal to the master asks for."""

from __future__ import annotations

import signal

import pytest

from forkserver.linux.signals import Received
from forkserver.linux.terminal import Terminal
from forkserver.master.shutdown import GROUP_SECONDS
from harness.master import Service


def send(service: Service, signum: signal.Signals, from_kernel: bool = False) -> None:
    service.signals.send(signum, from_kernel)
    service.turn()


@pytest.mark.parametrize(("signum", "wanted"), [(signal.SIGTTIN, 3), (signal.SIGTTOU, 1)])
def test_a_signal_wants_one_worker_more_or_less(service: Service, signum: signal.Signals, wanted: int) -> None:
    send(service, signum)
    assert service.fleet.wanted == wanted


def test_the_last_worker_stays(service: Service) -> None:
    for _ in range(3):
        send(service, signal.SIGTTOU)
    assert service.fleet.wanted == 1


def test_no_more_workers_are_started_than_there_may_be(service: Service) -> None:
    most = service.master._dispatch._table.most_workers
    service.obedient = False
    service.rollout.want_workers(most - 2)
    send(service, signal.SIGTTIN)
    assert service.fleet.wanted == most
    assert f"workers wanted: still {most}, although SIGTTIN" in service.said()
    assert f"max_workers is {most}" in service.said()


def test_hup_reloads(service: Service) -> None:
    send(service, signal.SIGHUP)
    assert service.rollout.reloading
    assert "reload wanted: SIGHUP" in service.said()


def test_hup_of_a_terminal_that_closes_stops(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell and the kernel say it one after the other, and that is one request."""
    monkeypatch.setattr(Terminal, "closed", lambda *_: True)
    send(service, signal.SIGHUP)
    send(service, signal.SIGHUP)
    assert service.fleet.stopping
    assert not service.fleet.quick
    assert "the terminal has closed; finishing open requests" in service.said()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_and_its_twin_are_one_request_and_a_later_one_is_quick(
    service: Service, signum: signal.Signals
) -> None:
    send(service, signum)
    send(service, signum)
    assert service.fleet.stopping
    assert not service.fleet.quick
    service.now += GROUP_SECONDS
    send(service, signum)
    assert service.fleet.quick


def test_quit_stops_at_once(service: Service) -> None:
    send(service, signal.SIGQUIT)
    assert service.fleet.quick


def test_a_signal_of_the_terminal_reaches_the_groups_of_the_application(service: Service) -> None:
    service.obedient = False
    send(service, signal.SIGINT, from_kernel=True)
    everyone = [each.pid for each in (*service.templates, *service.workers)]
    assert [pid for pid, signum in service.children.sent if signum == signal.SIGINT] == everyone


def test_a_signal_of_another_process_is_not_passed_on(service: Service) -> None:
    service.obedient = False
    send(service, signal.SIGINT)
    assert not [pid for pid, signum in service.children.sent if signum == signal.SIGINT]


def test_usr2_while_the_service_stops_is_told_and_left(service: Service) -> None:
    service.signals.send(signal.SIGTERM)
    send(service, signal.SIGUSR2)
    assert "SIGUSR2: no upgrade, the service is draining or stopping" in service.said()


def test_what_came_before_a_signal_is_learnt_first(service: Service) -> None:
    """A worker that has died just before a stop is no worker that the stop waits for."""
    service.end(service.workers[0], signal.SIGSEGV)
    send(service, signal.SIGTERM)
    assert len(service.fleet.workers) == 1
    assert service.said().index("killed by SIGSEGV") < service.said().index("stopping: SIGTERM")


def test_a_signal_without_a_meaning_changes_nothing(service: Service) -> None:
    before = service.said()
    service.master._signal_handlers.obey(Received(signal.SIGCHLD, 0, 0, True), service.now)
    assert service.said() == before
