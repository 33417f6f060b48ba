"""Misspelt names."""

from __future__ import annotations

import pytest

from forkserver.config.values.spelling import misspelt, nearest


@pytest.mark.parametrize(("word", "meant"), [("wokers", "workers"), ("wrokers", "workers"), ("log-config", None)])
def test_only_a_slip_of_the_fingers_is_a_misspelling(word: str, meant: str | None) -> None:
    assert misspelt(word, ["workers", "config"]) == meant


def test_a_guess_may_be_further_away() -> None:
    assert nearest("aplication", ["application", "app"]) == "application"
