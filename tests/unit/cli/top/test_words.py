"""Figures and texts in the columns that they are allotted."""

from __future__ import annotations

import math

import pytest

from forkserver.cli.top import words


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), (0.0, "0"), (0.004, "<0.01"), (0.0166, "0.017"), (0.25, "0.25"), (9.94, "9.9"), (9.96, "10.0"),
        (99.96, "100"), (1234.4, "1234"), (9999.6, "10k"), (12_345.0, "12.3k"), (999_499.0, "999k"), (2e6, "2M"),
    ],
)  # fmt: skip
def test_a_rate_has_five_characters(value: float | None, shown: str) -> None:
    assert words.rate(value) == shown
    assert len(shown) <= 5


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"), (math.inf, ">100s"), (0.00004, "0.0ms"), (0.0012, "1.2ms"), (0.00996, "10ms"), (0.9994, "999ms"),
        (0.9996, "1.0s"), (12.34, "12.3s"), (99.96, "100s"), (86400.0, "86400s"),
    ],
)  # fmt: skip
def test_a_time_is_as_exact_as_it_is_looked_at(seconds: float | None, shown: str) -> None:
    assert words.elapsed(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (999, "999B"), (1000, "1.0K"), (45 << 20, "45M"), (1200 << 20, "1.2G"), (5 << 50, "5120T")],
)
def test_a_size_has_five_characters(count: float, shown: str) -> None:
    assert words.size(count) == shown


def test_a_text_is_cut_by_the_columns_that_it_takes() -> None:
    """Wide characters take two, combining ones none."""
    assert words.width("日本e\u0301") == 5
    assert words.cut("日本語日本語", 9) == "日本語..."
    assert words.cut("日本語日本語", 8) == "日本..."
    assert words.cut("GET /", 5) == "GET /"
    assert words.cut("GET /x", 5) == "GE..."
    assert words.cut("GET /x", 2) == "GE"
    assert words.to_left("日", 4) + "|" == "日  |"
    assert words.to_right("日", 4) == "  日"
