"""A reason is stated once in full and then counted, until the service is well again."""

from __future__ import annotations

from forkserver.master.reporting.repeated_errors import RepeatedErrors


def test_a_reason_is_counted_until_it_is_forgotten() -> None:
    errors = RepeatedErrors()
    assert [errors.count("no database", now) for now in (1.0, 2.0, 3.0)] == [0, 1, 2]
    assert errors.count("another", 4.0) == 0
    errors.forget()
    assert errors.count("no database", 5.0) == 0


def test_a_reason_is_known_from_its_first_count_on() -> None:
    errors = RepeatedErrors()
    assert not errors.known("no database")
    errors.count("no database", 1.0)
    assert errors.known("no database")
    assert not errors.known("another")


def test_the_time_of_the_last_reason_outlives_the_counts() -> None:
    """It tells whether a worker has been well since."""
    errors = RepeatedErrors()
    errors.count("no database", 4.0)
    errors.forget()
    assert errors.last == 4.0
