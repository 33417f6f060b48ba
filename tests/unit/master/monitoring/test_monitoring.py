"""The master wakes for a look at its workers when there may be something to find, and not before."""

from __future__ import annotations

from forkserver.master.model.lifecycle import NEVER
from forkserver.master.monitoring.memory import LOOK_SECONDS
from harness.master import MakeService, Service


def test_the_next_look_is_when_a_call_of_a_new_worker_could_be_too_long(make_service: MakeService) -> None:
    service = make_service(timeout="7")
    monitoring = service.master._monitoring
    monitoring.timed_out(service.now)
    monitoring.grown(service.now)
    assert monitoring.next_look == NEVER
    service.serve()
    assert monitoring.timeouts.next_look == service.now + 7
    assert monitoring.next_look == service.now + LOOK_SECONDS


def test_without_a_limit_of_memory_there_is_one_look_and_no_other(service: Service) -> None:
    monitoring = service.master._monitoring
    service.now += LOOK_SECONDS
    assert monitoring.grown(service.now) == []
    assert monitoring.next_look == monitoring.timeouts.next_look


def test_a_call_that_is_too_long_is_named_once_and_counts_as_the_reason_of_the_end(make_service: MakeService) -> None:
    service = make_service(timeout="7")
    service.serve()
    service.obedient = False
    service.busy(service.workers[0], b"GET /", 0.0)
    service.now += 8
    monitoring = service.master._monitoring
    assert [each.request for each in monitoring.timed_out(service.now)] == ["GET /"]
    assert monitoring.timed_out(service.now) == []
    assert monitoring.statistics.snapshot().hung == [service.workers[0].pid]
