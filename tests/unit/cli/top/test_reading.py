"""An answer to ``status``, read: what is of another shape is refused, and nothing reaches the terminal unescaped."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from forkserver.cli.top.reading import ForeignStatusError, read
from harness.statuses import call_of, status_of, worker_of

DEATH = {"worker": 1, "pid": 9, "generation": 1, "cause": "killed", "remains": "", "seconds": 2.0}


def full() -> dict[str, Any]:
    worker = worker_of(1, busy=[call_of("GET /", 1.0)])
    return status_of(5.0, workers=[worker], ends={"killed": 1}, last_deaths=[DEATH], unreachable=["unix:/x"])


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        yield from places(each, (*at, name))


def replaced(status: dict[str, Any], at: tuple[Any, ...], value: Any) -> Any:
    status = copy.deepcopy(status)
    found: Any = status
    for name in at[:-1]:
        found = found[name]
    found[at[-1]] = value
    return status


@pytest.mark.parametrize("value", [None, "\x1b[2J", -1, 1e999, 10**400, [], [[]], {}, {"x": 1}, True], ids=repr)
def test_whatever_stands_in_any_place_is_read_or_refused(value: Any) -> None:
    """The service's user can listen where root asks."""
    status = full()
    for at in places(status):
        if at:
            try:
                shown = repr(read(replaced(status, at, value)))
            except ForeignStatusError as error:
                shown = str(error)
            assert "\x1b" not in shown


def test_what_is_missing_is_refused_by_name() -> None:
    status = full()
    del status["workers"]
    with pytest.raises(ForeignStatusError, match="workers"):
        read(status)


def test_an_older_master_is_understood() -> None:
    """0.1.0 had none of these at first."""
    status = full()
    for name in ("threads", "backlogs", "last_deaths", "clients_wait", "unreachable", "lost_log_lines"):
        del status[name]
    del status["workers"][0]["application_seconds"], status["workers"][0]["busy"][0]["websocket"]
    reading = read(json.loads(json.dumps(status)))
    assert (reading.threads, reading.deaths, reading.workers[0].application_seconds) == (1, (), None)


def test_a_path_with_an_escape_is_text() -> None:
    path = "GET /\x1b]0;owned\x07\x9b2J\u202e"
    reading = read(status_of(1.0, workers=[worker_of(1, busy=[call_of(path, 1.0)])]))
    assert reading.workers[0].calls[0].line == r"GET /\x1b]0;owned\x07\x9b2J\u202e"
