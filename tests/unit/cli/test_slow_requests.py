"""What ``forkserverctl slow`` shows to a person fits a terminal, loses nothing, and obeys no terminal code."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.cli import slow_requests

CALL: dict[str, Any] = {
    "time": 1_800_000_000.0, "seconds": 3.21, "running": True, "worker": 7, "pid": 4711, "generation": 2,
    "request": "GET /report", "request_id": "an-id", "client": "192.0.2.7", "place": "/srv/views.py:41 in report",
}  # fmt: skip


def shown(*calls: dict[str, Any], limit: float = 2.0, width: int = 80) -> str:
    return slow_requests.table({"ok": True, "limit": limit, "slow": list(calls)}, width)


def test_each_call_is_a_line_with_what_is_known_below_it() -> None:
    first, second = shown(CALL).splitlines()
    assert first.endswith("  3.2 s so far  worker=7  GET /report")
    assert second == "        client 192.0.2.7, request an-id, at /srv/views.py:41 in report"


def test_a_call_that_is_over_has_its_time_and_what_is_not_known_is_left_out() -> None:
    unknown = {"running": False, "client": "", "request_id": "", "place": ""}
    (line,) = shown(CALL | unknown).splitlines()
    assert line.endswith("  3.2 s  worker=7  GET /report")


@pytest.mark.parametrize("width", [80, 100])
def test_it_fits_the_terminal_and_loses_nothing(width: int) -> None:
    long = CALL | {"request": f"GET /{'x' * 190}", "place": f"/srv/{'y' * 250}.py:1 in z"}
    text = shown(long, CALL, width=width)
    assert max(map(len, text.splitlines())) <= width
    packed = "".join(text.split())
    assert "x" * 190 in packed
    assert "y" * 250 in packed


def test_no_code_reaches_the_terminal() -> None:
    assert "\x1b" not in shown(CALL | {"client": "\x1b[2J", "place": "\x1b]0;x\x07"})


def test_an_empty_list_says_why() -> None:
    assert shown() == "no call of the application has passed slow_log (2 s) yet"
    assert shown(limit=0.0).startswith("slow_log is off")
