"""Crashes are told in full while they are few, and counted by cause and request while they are many."""

from __future__ import annotations

from forkserver.master.model.lifecycle import NEVER
from forkserver.master.reporting.crash_reports import LINES_AT_ONCE, SECONDS_PER_LINE, SUMMARY_SECONDS, CrashReports

KILLED = "killed by SIGKILL, sent by another process"


def storm(reports: CrashReports, crashes: int, now: float, request: str = "GET /kill") -> list[bool]:
    return [reports.in_full(KILLED, [request], now) for _ in range(crashes)]


def test_a_few_crashes_are_told_in_full() -> None:
    reports = CrashReports()
    assert all(storm(reports, LINES_AT_ONCE, now=1000))
    assert reports.next_look == NEVER
    assert reports.summary(1000) == ""


def test_a_storm_is_counted_and_told_in_one_line() -> None:
    reports = CrashReports()
    storm(reports, LINES_AT_ONCE, now=1000)
    assert not any(storm(reports, 30, now=1001))
    reports.in_full("killed by SIGSEGV, a crash", [], 1002)
    assert reports.next_look == 1001 + SUMMARY_SECONDS
    assert reports.summary(1011) == (
        f"31 more workers crashed within 10.0 s: {KILLED} (30), killed by SIGSEGV, a crash (1); "
        "they were serving GET /kill (30)"
    )
    assert reports.next_look == NEVER
    assert reports.summary(1012) == ""


def test_lines_in_full_come_back_when_crashes_become_rare() -> None:
    reports = CrashReports()
    storm(reports, LINES_AT_ONCE + 5, now=1000)
    assert storm(reports, 2, now=1000 + SECONDS_PER_LINE) == [True, False]
    assert not reports.many(1000 + SECONDS_PER_LINE * (LINES_AT_ONCE + 2))


def test_names_that_clients_choose_neither_fill_memory_nor_the_line() -> None:
    reports = CrashReports()
    storm(reports, LINES_AT_ONCE, now=1000)
    for number in range(10_000):
        storm(reports, 1, now=1000, request=f"GET /{number}")
    assert len(reports.summary(1010)) < 300
