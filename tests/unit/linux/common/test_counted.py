"""Numbers with their noun."""

from __future__ import annotations

from forkserver.linux.common.counted import are_missing, count_of, grouped_count_of, of_count


def test_one_is_singular_and_all_else_plural() -> None:
    assert [count_of(number, "worker") for number in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]
    assert count_of(2, "process", "processes") == "2 processes"
    assert [grouped_count_of(number, "request") for number in (1, 12_345)] == ["1 request", "12,345 requests"]


def test_the_verb_agrees() -> None:
    assert [of_count(1, whole, "worker", "serve") for whole in (1, 2)] == [
        "1 of 1 worker serves", "1 of 2 workers serve",
    ]  # fmt: skip
    assert [are_missing(number, "line") for number in (1, 1234)] == ["1 line is missing", "1,234 lines are missing"]
