"""What ``forkserverctl status`` shows to a person: the service in some lines, and a table of its workers.

What a client of the service has sent is shown without control characters.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from forkserver.linux.common.counted import are_missing, grouped_count_of
from forkserver.linux.common.escaping import printable

LEAST_WIDTH: Final = 80  # of the status, in columns; also where it goes into a file
_MIB: Final = 1024 * 1024
_FIGURES: Final = ("requests", "held", "parked", "unsent")
_HEADINGS: Final = ("WORKER", "PID", "GEN", "STATE", "UP", *map(str.upper, _FIGURES), "MEMORY", "BUSY WITH")
_LEFT: Final = ("STATE", "BUSY WITH")
_LISTEN_AGAIN: Final = "reload to listen there again"
_SUFFIXES: Final = ("", "k", "M", "G", "T")


def table(status: Mapping[str, Any], width: int) -> str:
    """The answer to ``status`` for a person, in ``width`` columns (80 at least)."""
    serving, seconds = status["text"], duration(status["seconds"])
    answered = grouped_count_of(status["requests"], "request")
    lines = [
        f"forkserver {status['version']}  {status['app']}  master pid={status['master']['pid']}  {status['state']}",
        f"{serving}; up {seconds}; {answered}; at {', '.join(status['listeners'])}",
    ]
    if status["last_failure"] and status["last_failure"] not in serving:
        lines.append(status["last_failure"])
    if status.get("clients_wait"):  # which an older master does not tell
        lines.append("clients wait: no worker has a free thread")
    for names, way_out in unreachable(status):
        why = "the file was removed or replaced, or the socket shut down"
        lines.append(f"no client can connect at {names}: {why}; {way_out}")
    if lost := status.get("lost_log_lines"):  # which an older master does not tell
        lines.append(f"{are_missing(lost, 'line')} in the logs: their reader was stuck, or a disk full")
    if status.get("accelerator") == "C":  # which an older master does not tell
        sent, left = (sum(worker[name] for worker in status["workers"]) for name in ("accelerated", "declined"))
        answers = grouped_count_of(sent, "answer")
        lines.append(f"C extension: {answers} of these workers; {left:,} reads and answers left to Python")
    ends = ", ".join(f"{count} {why}" for why, count in sorted(status["ends"].items()))
    head = [part for line in lines for part in _wrapped(line, width)]
    foot = ["", *_wrapped(f"ended: {ends}", width)] if ends else []
    return "\n".join([*head, "", *_workers(status["workers"], width), *foot])


def unreachable(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The listeners at which no client can connect, those together for which the same helps, and what that is."""
    closed = status.get("unreachable") or ()  # neither is told by an older master
    groups: dict[str, list[str]] = {}
    for name, way_out in zip(
        closed, status.get("unreachable_way_out") or itertools.repeat(_LISTEN_AGAIN), strict=False
    ):
        groups.setdefault(str(way_out), []).append(str(name))
    return ((", ".join(names), way_out) for way_out, names in groups.items())


def _wrapped(line: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        printable(line), width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )


def _workers(workers: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """The table of workers; where it is too wide, calls stand below their workers, and figures are shortened."""
    calls = [", ".join(map(_call, worker["busy"])) for worker in workers]
    whole = _columns([_HEADINGS, *((*_cells(each), busy) for each, busy in zip(workers, calls, strict=True))])
    if _fits(whole, width):
        return whole
    head, *rows = _narrow(workers, width)
    below = (_wrapped(busy, width, " " * 8) for busy in calls)
    return [head, *(line for row, more in zip(rows, below, strict=True) for line in (row, *more))]


def _narrow(workers: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    for short, gap in ((False, 2), (True, 2), (True, 1)):
        made = _columns([_HEADINGS[:-1], *(_cells(each, short) for each in workers)], gap)
        if _fits(made, width):
            break
    return made


def _fits(lines: Sequence[str], width: int) -> bool:
    return max(map(len, lines)) <= width


def _cells(worker: Mapping[str, Any], short: bool = False) -> tuple[str, ...]:
    figures = (short_figure(worker[name]) if short else f"{worker[name]:,}" for name in _FIGURES)
    up = "-" if worker["seconds"] is None else duration(worker["seconds"])
    worker_cells = (str(worker["worker"]), str(worker["pid"] or "-"), str(worker["generation"]), worker["state"], up)
    memory = worker["memory"] / _MIB
    return (*worker_cells, *figures, f"{memory / 1024:.0f} GiB" if short and memory > 9999 else f"{memory:.0f} MiB")


def short_figure(figure: int) -> str:
    """``figure`` in five characters at most: ``9999``, ``1.23M``."""
    value, rank = float(figure), 0
    while round(value) > (999 if rank else 9999) and rank < len(_SUFFIXES) - 1:
        value, rank = value / 1000, rank + 1
    return f"{value:.3g}{_SUFFIXES[rank]}" if rank else str(figure)


def _call(call: Mapping[str, Any]) -> str:
    kind = ", WebSocket" if call.get("websocket") else ""  # which an older master does not tell
    return f"{call['request']} ({call['seconds']:.1f} s{kind})"


def _columns(rows: Sequence[Sequence[str]], gap: int = 2) -> list[str]:
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    left = [heading in _LEFT for heading in _HEADINGS]
    return [
        (" " * gap)
        .join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left[: len(row)], strict=True)
        )
        .rstrip()
        for row in shown
    ]


def duration(seconds: float) -> str:
    """A time as a person says it: ``42s``, ``3h07m``, ``12d04h``."""
    whole = int(seconds)
    for unit, part, size, part_size in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part_size:02}{part}"
    return f"{whole}s"
