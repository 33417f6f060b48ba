"""What fails is tried again later and later, what was well at once."""

from __future__ import annotations

from forkserver.supervision.complaints import Complaints
from forkserver.supervision.health import HEALTHY_SECONDS, Health, delay


def test_the_delay_doubles_up_to_a_cap() -> None:
    assert [delay(failures) for failures in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_after_a_million_failures_there_is_still_a_delay() -> None:
    assert delay(1_000_000) == 30


def test_one_early_death_costs_nothing_and_the_next_does() -> None:
    health = Health()
    health.died(1.0, now=100)
    assert (health.failures, health.retry_at) == (0, 0.0)
    health.died(1.0, now=101)
    assert (health.failures, health.retry_at) == (1, 101.5)


def test_who_was_well_when_it_died_has_a_clean_record() -> None:
    health = Health()
    for _ in range(5):
        health.failed(100)
    health.died(HEALTHY_SECONDS, now=200)
    assert (health.failures, health.retry_at) == (0, 0.0)


def test_a_reason_is_counted_until_it_is_forgotten() -> None:
    complaints = Complaints()
    assert [complaints.count("no database", now) for now in (1.0, 2.0, 3.0)] == [0, 1, 2]
    assert complaints.count("another", 4.0) == 0
    assert complaints.last == 4.0
    complaints.forget()
    assert complaints.count("no database", 5.0) == 0
