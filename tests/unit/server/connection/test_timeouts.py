"""When the loop looks for what has expired, by a clock that the test sets."""

from __future__ import annotations

from forkserver.config import settings
from forkserver.server.connection.timeouts import NEVER, Timeouts


def timeouts(woken: list[bool]) -> Timeouts:
    return Timeouts(settings.defaults(), clock=lambda: 100.0, wake=lambda: woken.append(True))


def test_the_first_deadline_of_all_queues_is_the_next() -> None:
    found = timeouts([])
    assert found.next_at == NEVER
    found.put(found.idle, "idle")
    found.put(found.expired, "expired")
    assert found.next_at == 100.0 + found.expired.seconds
    found.expired.discard("expired")
    found.reckon(NEVER)
    assert found.next_at == 100.0 + found.idle.seconds


def test_an_earlier_deadline_wakes_only_a_loop_that_sleeps_longer() -> None:
    woken: list[bool] = []
    found = timeouts(woken)
    found.put_until(found.heads, "one", 150.0)
    assert not woken, "it is awake"
    found.sleeps_until = 150.0
    found.put_until(found.heads, "two", 160.0)
    assert not woken
    found.put_until(found.heads, "three", 140.0)
    assert woken == [True]


def test_a_retiring_worker_waits_only_a_moment_for_the_next_request() -> None:
    found = timeouts([])
    found.retire()
    assert found.resting is found.parting
    assert found.park_seconds < 0
