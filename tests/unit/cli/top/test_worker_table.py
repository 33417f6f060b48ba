"""The table of workers: what there is room for, what comes first."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.cli.top import styled, worker_table
from forkserver.cli.top.styled import Style
from forkserver.cli.top.worker_table import COLUMNS, TableRow
from harness.statuses import call_of, readings_of, status_of, worker_of

BY = {column.heading: column for column in COLUMNS}


def rows(*workers: dict[str, Any]) -> list[TableRow]:
    readings = readings_of(status_of(1.0, workers=list(workers)), status_of(2.0, workers=list(workers)))
    return [TableRow(*each) for each in readings.workers()]


def drawn(columns: int, *workers: dict[str, Any], chosen: int = 0) -> list[str]:
    lines = worker_table.lines(rows(*workers), columns, COLUMNS[0], chosen)
    return [styled.plain(each) for each in lines]


LARGEST = worker_of(
    4096, pid=4194304, generation=12345, state="draining", seconds=86400.0 * 99, requests=12_345_678_901, held=10_000,
    parked=10_000, unsent=10_000, memory=120_000 << 20, busy=[call_of(f"GET /{'x' * 300}", 3.2)] * 2,
)  # fmt: skip


@pytest.mark.parametrize("columns", [60, 80, 100, 132, 300])
def test_it_fits_and_the_call_in_hand_has_room(columns: int) -> None:
    head, row = drawn(columns, LARGEST)
    assert max(len(head), len(row)) <= columns
    assert row[head.index("IN HAND") :].startswith("  3.2s +1 GET /xx")
    assert columns < 110 or "REQUESTS" in head


def test_narrow_it_keeps_what_says_which_worker_and_how_it_is() -> None:
    head, row = drawn(60, LARGEST)
    assert head.split() == ["WORKER", "PID", "STATE", "REQ/S", "BUSY", "IN", "HAND"]
    assert row.split()[:3] == ["4096", "4194304", "draining"]


def test_calls_are_the_oldest_first_and_websockets_are_named() -> None:
    busy = [call_of("GET /new", 0.5), call_of("GET /ws", 61.0, websocket=True)]
    assert "61.0s +1 WebSocket GET /ws" in drawn(132, worker_of(1, busy=busy))[1]


def test_it_is_sorted_by_any_column_and_equal_ones_by_number() -> None:
    found = rows(worker_of(1, memory=5), worker_of(2, memory=9), worker_of(3, memory=5), worker_of(4, state="hung"))
    for column in COLUMNS:
        for inverted in (False, True):
            assert len(worker_table.ordered(found, column, inverted)) == 4
    by_memory = worker_table.ordered(found[:3], BY["MEMORY"], inverted=False)
    assert [row.worker.number for row in by_memory] == [2, 1, 3]
    assert [row.worker.number for row in worker_table.ordered(found[:3], BY["MEMORY"], inverted=True)] == [1, 3, 2]
    assert worker_table.ordered(found, BY["STATE"], inverted=False)[0].worker.number == 4


def test_states_are_styled_by_what_they_mean_and_the_chosen_row_is_marked() -> None:
    lines = worker_table.lines(rows(worker_of(1, state="hung"), worker_of(2)), 80, COLUMNS[0], 102)
    assert {piece.style for piece in lines[0]} == {Style.HEADING, Style.SORTED}
    assert Style.BAD in {piece.style for piece in lines[1]}
    assert [piece.style for piece in lines[2]] == [Style.CHOSEN]
