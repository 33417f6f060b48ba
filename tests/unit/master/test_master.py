"""A master is constructed and its loop turned, while the test plays its children."""

from __future__ import annotations

import signal

import pytest

from forkserver.errors import LoadError
from forkserver.ipc import messages
from forkserver.linux.sockets.listening_socket import SYN_SECONDS
from forkserver.master.model.lifecycle import State
from harness.master import MakeService, Service


def test_a_start_ends_with_the_banner_and_a_word_to_the_service_manager(service: Service) -> None:
    assert [worker.state for worker in service.fleet.workers] == [State.SERVING] * 2
    assert "2 workers (one import, shared)" in service.said()
    assert [each for each in service.manager.heard if each.startswith("READY=1")]


def test_a_worker_that_dies_is_replaced_in_its_slot(service: Service) -> None:
    first, second = service.workers
    service.end(first, signal.SIGSEGV)
    service.until(lambda: len(service.workers) == 3 and service.rollout.whole())
    assert service.pids() == [second.pid, service.workers[2].pid]
    assert service.worker(service.workers[2].pid).slot == 0
    assert f"pid={first.pid} ended: killed by SIGSEGV, a crash; it is replaced" in service.said()


def test_a_reload_brings_other_workers_and_ends_the_old_ones(service: Service) -> None:
    old = list(service.workers)
    service.reload()
    assert all(each.closed for each in old)
    assert {worker.generation for worker in service.fleet.workers} == {2}
    assert "generation 2 serves: 2 workers" in service.said()
    assert [each.partition("\n")[0] for each in service.manager.heard if "=1" in each][-2:] == [
        "RELOADING=1",
        "READY=1",
    ]


def test_a_reload_whose_settings_are_wrong_changes_nothing(service: Service) -> None:
    before = service.pids()
    service.configure(workers="many")
    service.signals.send(signal.SIGHUP)
    service.until(lambda: "reload failed" in service.said())
    assert service.pids() == before
    assert "'many'" in service.said()


def test_a_stop_ends_workers_and_template_and_then_the_loop(service: Service) -> None:
    service.signals.send(signal.SIGTERM)
    service.turn()
    assert not [each for each in service.workers if each.closed], "clients that have begun to connect are served"
    service.now += SYN_SECONDS
    service.until(lambda: service.fleet.finished)
    assert all(each.closed for each in (*service.templates, *service.workers))
    assert service.master.run() == 0
    assert service.said().endswith("stopped\n")


def test_a_first_start_that_does_not_load_ends_with_its_error(make_service: MakeService) -> None:
    service = make_service()
    service.until(lambda: service.templates)
    service.templates[0].report(messages.LoadFailed(LoadError.exit_status, "no module named 'm'", "Traceback"))
    service.turn()
    service.end(service.templates[0], 256)
    service.until(lambda: service.fleet.finished)
    with pytest.raises(LoadError, match="no module named 'm'"):
        service.master.run()


def test_a_call_that_lasts_too_long_is_ended_by_its_worker(make_service: MakeService) -> None:
    service = make_service(timeout="10")
    service.serve()
    child = service.workers[0]
    service.obedient = False
    service.busy(child, b"GET /slow", 11)
    service.now += 20
    service.until(lambda: any(isinstance(each, messages.Expire) for each in child.orders))
    assert service.worker(child.pid).state is State.HUNG
    assert "GET /slow has taken 31.0 s, longer than it may" in service.said()


def test_a_fault_of_the_masters_own_ends_it_with_a_traceback(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers see end-of-file and finish what they hold."""

    def fault() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(service.master, "turn", fault)
    assert service.master.run() == 1
    assert "the master cannot go on" in service.said()
    assert "RuntimeError: a bug" in service.said()


def test_a_slow_call_is_shown_by_its_worker_and_what_that_says_is_listed(make_service: MakeService) -> None:
    service = make_service(slow_log="2s")
    service.serve()
    child = service.workers[0]
    service.busy(child, b"GET /slow", 0.0)
    service.now += 3
    service.turn()
    (order,) = [each for each in child.orders if isinstance(each, messages.ShowCall)]
    child.report(messages.CallShown(order.thread, order.since, "192.0.2.7", "views.py:7 in report"))
    service.turn()
    (listed,) = service.master._handlers.admin_status(service.now)["slow"]
    assert (listed["client"], listed["place"]) == ("192.0.2.7", "views.py:7 in report")
    assert "slow request" not in service.said(), "the worker has logged it"


def test_a_slow_call_that_its_worker_does_not_show_is_told_by_the_master(make_service: MakeService) -> None:
    service = make_service(slow_log="2s", workers="3")
    service.serve()
    for child, line in zip(service.workers, (b"GET /c", b"hook worker_exit", b"GET /over"), strict=True):
        service.busy(child, line, 0.0)
    service.now += 3
    service.turn()
    service.master._dispatch._table[service.worker(service.workers[2].pid)].end()
    service.now += 2
    service.until(lambda: service.said().count("slow request") == 3)
    first = service.workers[0].pid
    assert f"slow request: worker=1 gen=1 pid={first}: GET /c (3.0 s so far): where it stands cannot be seen" in (
        service.said()
    )
    assert (
        "hook worker_exit (3.0 s so far): where it stands cannot be seen: the worker does not answer; it hears no"
        in (service.said())
    )
    assert "GET /over (3.0 s): it was over before its stack could be written" in service.said()


def test_slow_calls_that_are_too_many_are_counted(make_service: MakeService) -> None:
    service = make_service(slow_log="2s", workers="1")
    service.serve()
    service.now += 10
    for _ in range(90):
        service.busy(service.workers[0], b"GET /slow", 3.0)
        service.now += 0.1
        service.turn()
    service.now += 15
    service.until(lambda: "slow_log: the stacks of " in service.said())
