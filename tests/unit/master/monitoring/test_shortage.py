"""A shortage of processes is told when it begins and when it is over, however often it is met in between."""

from __future__ import annotations

import pytest

from forkserver.master.model.lifecycle import NEVER
from forkserver.master.monitoring.shortage import QUIET_SECONDS, ProcessShortage

FILES = "Too many open files (RLIMIT_NOFILE is 64; raise LimitNOFILE= of the unit)"


@pytest.fixture
def shortage() -> ProcessShortage:
    return ProcessShortage()


def test_where_nothing_is_refused_there_is_nothing_to_say(shortage: ProcessShortage) -> None:
    assert (shortage.next_look, shortage.over(1000.0), shortage.why) == (NEVER, "", "")


def test_a_reason_is_stated_once_whatever_was_to_be_done(shortage: ProcessShortage) -> None:
    assert shortage.refused(f"no channel for a worker: {FILES}", 0.0) == f"no channel for a worker: {FILES}"
    assert shortage.refused(f"cannot hold a worker: {FILES.replace('64', '65')}", 0.0) == ""
    another = "cannot fork a worker: Resource temporarily unavailable"
    assert shortage.refused(another, 0.0) == another


def test_a_number_is_told_ever_more_rarely(shortage: ProcessShortage) -> None:
    """A refusal and a success in turn, for an hour: that was two lines a second."""
    said = [shortage.refused(f"cannot hold a worker: {FILES}", half / 2) for half in range(7200)]
    told = [each for each in said if each]
    assert told[:4] == [
        f"cannot hold a worker: {FILES}",
        *(f"the same again, {times}" for times in ("1 time", "2 times", "4 times")),
    ]
    assert len(told) < 20


def test_its_end_is_told_with_the_count(shortage: ProcessShortage) -> None:
    for now in (0.0, 3.0, 5.0):
        shortage.refused(f"cannot hold a worker: {FILES}", now)
    assert shortage.over(5.0 + QUIET_SECONDS - 0.1) == ""
    assert shortage.next_look == 5.0 + QUIET_SECONDS
    said = shortage.over(5.0 + QUIET_SECONDS)
    assert said == "new processes are given again: refused 3 times within 5.0 s, and not in the last 10 s"
    assert (shortage.over(100.0), shortage.next_look) == ("", NEVER)
    assert shortage.refused(f"cannot hold a worker: {FILES}", 100.0) == f"cannot hold a worker: {FILES}"
