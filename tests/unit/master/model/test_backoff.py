"""What fails is tried again later and later, what was well at once."""

from __future__ import annotations

from forkserver.master.model.backoff import HEALTHY_SECONDS, Backoff, RestartPace, delay


def test_the_delay_doubles_up_to_a_cap() -> None:
    assert [delay(failures) for failures in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_after_a_million_failures_there_is_still_a_delay() -> None:
    assert delay(1_000_000) == 30


def test_one_early_death_costs_nothing_and_the_next_does() -> None:
    backoff = Backoff()
    backoff.died(1.0, now=100)
    assert (backoff.failures, backoff.retry_at) == (0, 0.0)
    backoff.died(1.0, now=101)
    assert (backoff.failures, backoff.retry_at) == (1, 101.5)


def test_who_was_well_when_it_died_has_a_clean_record() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.failed(100)
    backoff.died(HEALTHY_SECONDS, now=200)
    assert (backoff.failures, backoff.retry_at) == (0, 0.0)


def test_a_crash_after_it_was_ready_brings_no_delay() -> None:
    backoff = Backoff()
    for crashes in range(1, 9):
        backoff.crashed(1.0)
        assert (backoff.crashes, backoff.retry_at) == (crashes, 0.0)
    assert backoff.troubled
    backoff.crashed(HEALTHY_SECONDS)
    assert not backoff.troubled


def test_a_pace_allows_a_burst_and_then_its_average() -> None:
    pace, now = RestartPace(per_second=10, burst=3), 1000.0
    taken = []
    for _ in range(6):
        while not pace.room(now):
            now = pace.room_at
        pace.take(now)
        taken.append(round(now - 1000, 6))
    assert taken == [0, 0, 0, 0.1, 0.2, 0.3]
    assert pace.room(now + 3600) == 3, "what was not used is not saved up"


def test_what_was_taken_without_room_leaves_no_debt() -> None:
    pace, now = RestartPace(per_second=10, burst=3), 1000.0
    for _ in range(1000):
        pace.take(now)
    assert pace.room(now) == 0
    assert round(pace.room_at - now, 6) == 0.1


def test_what_has_lived_long_is_started_again_at_once_and_else_after_a_delay_that_grows() -> None:
    backoff = Backoff()
    for times in (1, 2):
        backoff.ended(HEALTHY_SECONDS - 0.1, now=100)
        assert backoff.retry_at == 100 + delay(times)
    backoff.ended(HEALTHY_SECONDS, now=200)
    assert (backoff.failures, backoff.retry_at) == (0, 0.0)
