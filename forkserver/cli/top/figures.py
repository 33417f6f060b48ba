"""The block of figures: answers by class, percentiles, and the load, of the last interval and of the last minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from forkserver.cli.top import words
from forkserver.cli.top.rates import SHARES, Rates, RecentReadings
from forkserver.cli.top.reading import Reading
from forkserver.cli.top.styled import Line, Piece, Style, line
from forkserver.linux.common.counted import count_of

_MINUTE_TOO: Final = 80  # columns, from which there is room for the minute's percentiles
_HEADINGS: Final = "".join(f"{f'p{share * 100:g}':>6}" for share in SHARES)
_Figure = Callable[[Rates], float]
_ANSWERS: Final[tuple[tuple[str, _Figure, Style], ...]] = (
    ("answers/s", lambda rates: rates.total, Style.PLAIN),
    ("4xx/s", lambda rates: rates.answers.get("4xx", 0.0), Style.PLAIN),
    ("5xx/s", lambda rates: rates.answers.get("5xx", 0.0), Style.BAD),
)
_TIMES: Final[tuple[tuple[str, Callable[[Rates], tuple[float | None, ...]]], ...]] = (
    ("application", lambda rates: rates.application),
    ("waiting", lambda rates: rates.waiting),
)


def lines(readings: RecentReadings, now: Reading, columns: int) -> list[Line]:
    """Five lines in so many ``columns``."""
    last, minute = readings.last, readings.minute
    spans = [_span(rates) for rates in (last, minute)]
    head = f"{'':9}{spans[0]:>7}{spans[1]:>7}  {spans[0]:>11}{_HEADINGS}"
    made = [[_answers(name, figure, style, rates) for rates in (last, minute)] for name, figure, style in _ANSWERS]
    whole = [[Piece(f"{name:9}"), *pieces] for (name, _, _), pieces in zip(_ANSWERS, made, strict=True)]
    for row, (name, times) in zip(whole, _TIMES, strict=False):
        row.append(Piece(f"  {name:11}{_percentiles(times, last)}"))
    if columns >= _MINUTE_TOO:
        head += f"  {spans[1]:>5}{_HEADINGS}"
        for row, (_, times) in zip(whole, _TIMES, strict=False):
            row.append(Piece(f"  {'':5}{_percentiles(times, minute)}"))
    if last is not None:
        received, sent = words.size(last.request_bytes), words.size(last.answer_bytes)
        whole[-1].append(Piece(f"  bodies: {received}/s in, {sent}/s out"))
    return [line(Piece(head, Style.HEADING)), *map(tuple, whole), _load(readings, now)]


def _span(rates: Rates | None) -> str:
    return "-" if rates is None else f"{rates.seconds:.0f}s" if rates.seconds >= 0.95 else f"{rates.seconds:.1f}s"


def _answers(name: str, figure: _Figure, style: Style, rates: Rates | None) -> Piece:
    value = None if rates is None else figure(rates)
    return Piece(f"{words.rate(value):>7}", style if value else Style.PLAIN)


def _percentiles(times: Callable[[Rates], tuple[float | None, ...]], rates: Rates | None) -> str:
    shown = (None,) * len(SHARES) if rates is None else times(rates)
    return "".join(f"{words.elapsed(each):>6}" for each in shown)


def _load(readings: RecentReadings, now: Reading) -> Line:
    busy = [rates.busy for worker, rates in readings.workers() if worker.state == "serving" and rates.busy is not None]
    backlog = sum(now.backlogs)
    connections = sum(worker.connections for worker in now.workers)
    parked = sum(worker.parked for worker in now.workers)
    unsent = sum(worker.unsent for worker in now.workers)
    share = words.share(sum(busy) / len(busy) if busy else None)
    return line(
        f"busy {share} of {count_of(now.serving * now.threads, 'thread')}  ",
        Piece(f"backlog {backlog:,}", Style.WARN if backlog else Style.PLAIN),
        f"  held {connections:,}: {parked:,} parked, {unsent:,} unsent",
    )
