"""Every request of the corpus is read as its index says, however its bytes arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.corpus import CORPUS, GOOD, INDEX, Request, bytewise, raw, read

ARRIVALS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda data: [data],
    "bytewise": bytewise,
    "behind": lambda data: [GOOD + data],  # another request came before it
}
arrivals = pytest.mark.parametrize("arrival", ARRIVALS)
GOOD_TARGET = "/good-behind"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the check that every test has: bytes leave no process and no descriptor, and these are thousands."""


@pytest.mark.parametrize("kind", ["reject", "accept"])
def test_the_index_names_every_file_and_no_other(kind: str) -> None:
    """A case that nobody feeds promises nothing."""
    assert {path.stem for path in (CORPUS / kind).iterdir()} == set(INDEX[kind])


@arrivals
@pytest.mark.parametrize("name", INDEX["reject"])
def test_a_bad_request_is_refused_with_its_status(name: str, arrival: str) -> None:
    """By its own bytes: a refusal that waits for more would wait for the attacker."""
    stream = read(ARRIVALS[arrival](raw("reject", name)))
    assert stream.refused == INDEX["reject"][name]
    assert [request.target for request in stream.requests if request.target != GOOD_TARGET] == []


@arrivals
@pytest.mark.parametrize("name", INDEX["reject"])
def test_nothing_behind_a_bad_request_is_answered(name: str, arrival: str) -> None:
    """Where one reader sees a good request behind a bad one, another sees a body: that is smuggling."""
    stream = read(ARRIVALS[arrival](raw("reject", name) + GOOD))
    assert stream.refused == INDEX["reject"][name]
    assert len(stream.requests) == (arrival == "behind")


@arrivals
@pytest.mark.parametrize("name", INDEX["accept"])
def test_a_good_request_is_read_as_it_is_meant(name: str, arrival: str) -> None:
    """Strictness that refuses what clients do send is a fault too."""
    stream = read(ARRIVALS[arrival](raw("accept", name)))
    assert stream.refused is None
    assert not stream.unfinished
    check(stream.requests[-1], INDEX["accept"][name])
    assert len(stream.requests) == 1 + (arrival == "behind")


@arrivals
@pytest.mark.parametrize("name", INDEX["accept"])
def test_a_request_behind_a_good_one_is_the_next(name: str, arrival: str) -> None:
    """A body that is read too short or too long makes a request of what is none (the CL.0 family)."""
    stream = read(ARRIVALS[arrival](raw("accept", name) + GOOD))
    assert stream.refused is None
    assert not stream.unfinished
    check(stream.requests[-2], INDEX["accept"][name])
    assert stream.requests[-1].target == GOOD_TARGET
    assert stream.requests[-1].environ == {"HTTP_HOST": "good.example"}


def check(request: Request, expected: dict[str, Any]) -> None:
    expected = dict(expected)
    for key, value in expected.pop("environ", {}).items():
        assert request.environ[key] == value
    for key in expected.pop("absent", []):
        assert key not in request.environ
    if "body" in expected:
        assert request.body == expected.pop("body").encode("latin-1")
    assert {key: getattr(request, key) for key in expected} == expected
