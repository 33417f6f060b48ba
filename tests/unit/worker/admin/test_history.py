"""What the admin process remembers of the last minutes."""

from __future__ import annotations

from typing import Any

from forkserver.worker.admin.history import KEPT_SECONDS, MOST_ENDS, History


def test_samples_are_one_a_second_and_of_the_last_minutes(status: dict[str, Any]) -> None:
    history = History()
    for tick in range(10_000):
        history.note(status | {"seconds": tick / 10})
    times = [each["at"] for each in history.shown()["samples"]]
    assert times[-1] - times[0] == KEPT_SECONDS
    assert len(times) == KEPT_SECONDS + 1


def test_a_sample_has_the_memory_of_all_workers(status: dict[str, Any]) -> None:
    history = History()
    for worker, memory in zip(status["workers"], (7, 0, 5), strict=True):
        worker["memory"] = memory
    history.note(status)
    assert history.shown()["samples"][-1]["memory"] == 12


def test_a_service_that_was_started_anew_begins_anew(status: dict[str, Any]) -> None:
    history = History()
    for seconds in (50.0, 60.0, 1.0, 3.0):
        history.note(status | {"seconds": seconds})
    assert [each["at"] for each in history.shown()["samples"]] == [1.0, 3.0]


def test_ends_that_are_seen_are_bounded_and_have_their_time(status: dict[str, Any]) -> None:
    history = History(lambda: 1e9)
    for count in range(100):
        history.note(status | {"seconds": 2.0 * count, "ends": {"recycled": count}})
    ends = history.shown()["ends"]
    assert len(ends) == MOST_ENDS
    assert ends[-1] == {"time": 1e9, "reason": "recycled", "total": 99}
