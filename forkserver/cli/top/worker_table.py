"""The table of workers: its columns, which of them a terminal has room for, and by which the rows are sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from forkserver.cli import status_table
from forkserver.cli.top import words
from forkserver.cli.top.rates import WorkerRates
from forkserver.cli.top.reading import ShownWorker
from forkserver.cli.top.styled import Line, Piece, Style, line
from forkserver.linux.common.records import NamedTuple

_LEAST_CALL: Final = 24  # columns for the call in hand
_BAD: Final = ("hung", "deaf", "killed", "stalled", "stopped")


class TableRow(NamedTuple):
    """A worker and what it did in the last interval."""

    worker: ShownWorker
    rates: WorkerRates


class TableColumn(NamedTuple):
    """``rank`` says how long it stays where there is little room: 0 as long as there is a table.

    ``falling`` says that the greatest value is sorted to the top.
    """

    heading: str
    rank: int
    cell: Callable[[TableRow], str]
    key: Callable[[TableRow], Any]
    falling: bool = True
    left: bool = False


def _figure(heading: str, rank: int, figure: Callable[[ShownWorker], int]) -> TableColumn:
    return TableColumn(
        heading, rank, lambda row: status_table.short_figure(figure(row.worker)), lambda row: figure(row.worker)
    )


def _call(row: TableRow) -> str:
    calls = sorted(row.worker.calls, key=lambda call: call.seconds, reverse=True)
    if not calls:
        return ""
    oldest = calls[0]
    kind = "WebSocket " if oldest.websocket else ""
    more = f" +{len(calls) - 1}" if len(calls) > 1 else ""
    return f"{words.elapsed(oldest.seconds):>6}{more} {kind}{oldest.line}"


def _oldest(row: TableRow) -> float:
    return max((call.seconds for call in row.worker.calls), default=-1.0)


COLUMNS: Final = (
    TableColumn("WORKER", 0, lambda row: str(row.worker.number), lambda row: row.worker.number, falling=False),
    TableColumn("PID", 2, lambda row: str(row.worker.pid or "-"), lambda row: row.worker.pid, falling=False),
    TableColumn("GEN", 3, lambda row: str(row.worker.generation), lambda row: row.worker.generation),
    TableColumn("STATE", 0, lambda row: row.worker.state, lambda row: row.worker.state, falling=False, left=True),
    TableColumn(
        "UP",
        4,
        lambda row: "-" if row.worker.seconds is None else status_table.duration(row.worker.seconds),
        lambda row: row.worker.seconds or 0.0,
    ),
    TableColumn("REQ/S", 1, lambda row: words.rate(row.rates.requests), lambda row: row.rates.requests or 0.0),
    TableColumn("BUSY", 1, lambda row: words.share(row.rates.busy), lambda row: row.rates.busy or 0.0),
    TableColumn("MEMORY", 2, lambda row: words.size(row.worker.memory), lambda row: row.worker.memory),
    _figure("REQUESTS", 7, lambda worker: worker.requests),
    _figure("HELD", 5, lambda worker: worker.connections),
    _figure("PARKED", 6, lambda worker: worker.parked),
    _figure("UNSENT", 6, lambda worker: worker.unsent),
    TableColumn("IN HAND", 0, _call, _oldest, left=True),
)


def ordered(rows: Iterable[TableRow], column: TableColumn, inverted: bool) -> list[TableRow]:
    """``rows`` by ``column``, equal ones by number and age; ``inverted`` turns the column's usual order around."""
    by_number = sorted(rows, key=lambda row: (row.worker.number, row.worker.generation))
    return sorted(by_number, key=column.key, reverse=column.falling is not inverted)


def lines(rows: Sequence[TableRow], columns: int, by: TableColumn, chosen: int) -> list[Line]:
    """The heading and a line for each of ``rows``, in so many ``columns``; that of the pid ``chosen`` is marked."""
    shown, widths = _that_fit(rows, columns)
    head = [
        Piece(_aligned(each.heading, each, wide), Style.SORTED if each is by else Style.HEADING)
        for each, wide in zip(shown, widths, strict=True)
    ]
    made = [line(*_with_gaps(head, Style.HEADING))]
    for row in rows:
        cells = [
            Piece(_aligned(words.cut(each.cell(row), wide), each, wide), _style(each, row))
            for each, wide in zip(shown, widths, strict=True)
        ]
        whole = _with_gaps(cells, Style.PLAIN)
        if row.worker.pid == chosen and chosen:
            text = words.to_left("".join(piece.text for piece in whole), columns)
            whole = [Piece(text, Style.CHOSEN)]
        made.append(tuple(whole))
    return made


def _that_fit(rows: Sequence[TableRow], columns: int) -> tuple[list[TableColumn], list[int]]:
    """The columns that there is room for, and their widths; the last one takes what is left."""
    *fixed, last = COLUMNS
    wide = {each: max(len(each.heading), *(words.width(each.cell(row)) for row in rows), 0) for each in fixed}
    while sum(wide[each] + 1 for each in fixed) + _LEAST_CALL > columns and max(each.rank for each in fixed):
        highest = max(each.rank for each in fixed)
        fixed.remove(next(each for each in reversed(fixed) if each.rank == highest))
    widths = [wide[each] for each in fixed]
    return [*fixed, last], [*widths, max(0, columns - sum(widths) - len(widths))]


def _aligned(text: str, column: TableColumn, columns: int) -> str:
    text = words.cut(text, columns)
    return words.to_left(text, columns) if column.left else words.to_right(text, columns)


def _with_gaps(pieces: Sequence[Piece], style: Style) -> list[Piece]:
    gaps = [Piece(" ", style)] * len(pieces)
    return [each for pair in zip(pieces, gaps, strict=True) for each in pair][:-1]


def _style(column: TableColumn, row: TableRow) -> Style:
    if column.heading == "IN HAND":
        return Style.FAINT if all(call.websocket for call in row.worker.calls) else Style.BUSY
    if column.heading != "STATE":
        return Style.PLAIN
    if row.worker.state in _BAD:
        return Style.BAD
    if row.worker.state != "serving":
        return Style.WARN
    return Style.BUSY if row.worker.calls else Style.GOOD
