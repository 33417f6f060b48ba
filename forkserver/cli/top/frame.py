"""A frame: all lines that a terminal of so many columns and rows shows, from the readings and the session.

From the top: the service, what an operator should know, figures, the workers, how workers have ended, and the keys.
Where rows are few, the deaths go first and the table of workers keeps what is left.
"""

from __future__ import annotations

import re
import textwrap
from typing import Final

from forkserver.cli import status_table
from forkserver.cli.top import figures, words, worker_table
from forkserver.cli.top.rates import RecentReadings
from forkserver.cli.top.reading import Reading, ShownDeath
from forkserver.cli.top.session import KEYS, Session, View
from forkserver.cli.top.styled import Line, Piece, Style, fitted, line
from forkserver.cli.top.worker_table import TableRow
from forkserver.linux.common.counted import count_of, of_count
from forkserver.linux.common.escaping import printable
from forkserver.linux.common.records import NamedTuple

LEAST_COLUMNS: Final = 60
LEAST_ROWS: Final = 16
_USUAL: Final = re.compile(r"generation \d+ serves: \d+ workers?")
_NOTE_LINES: Final = 2
_BAR: Final = 20
_EXPLAINED: Final = tuple(
    line(text)
    for text in (
        "BUSY is the part of a worker's time, of all its threads, that was in calls of the application.",
        "IN HAND is the oldest call, how long it lasts, and how many more there are.",
    )
)
_BACK: Final = line(Piece("any other key goes back", Style.FAINT))
_HINTS: Final = "q quit  h help  <> sort  p pause  r reload  t retire  s stacks"


class Standing(NamedTuple):
    """How asking goes: ``trouble`` is why there is no answer, and ``since`` so many seconds."""

    interval: float
    trouble: str = ""
    since: float = 0.0


def lines(readings: RecentReadings, session: Session, standing: Standing, columns: int, rows: int) -> list[Line]:
    """At most ``rows`` lines of at most ``columns`` columns."""
    if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
        least = f"{LEAST_COLUMNS}x{LEAST_ROWS}"
        made = [line(f"the terminal is too small: {columns}x{rows}; {least} at least"), line("q quit")]
    elif session.page is View.HELP:
        made = _help()
    elif session.page is View.TEXT:
        made = _text(session, columns, rows)
    else:
        made = _service(readings, session, standing, columns, rows)
    return [fitted(each, columns) for each in made[:rows]]


def everything(readings: RecentReadings, standing: Standing, columns: int) -> list[Line]:
    """The service with all of its workers, for a file or a pipe."""
    session = Session(readings)
    wide = max(columns, LEAST_COLUMNS)
    made = _head(readings, session, standing, wide)
    made += [line(), *worker_table.lines(session.rows(), wide, session.by, 0), *_foot(readings.now, wide, 20)]
    return [fitted(each, wide) for each in made]


def _service(readings: RecentReadings, session: Session, standing: Standing, columns: int, rows: int) -> list[Line]:
    head = _head(readings, session, standing, columns)
    if readings.now is None:
        return head
    keys = _keys(session, columns)
    room = rows - len(head) - 1 - len(keys)
    workers = session.rows()
    spare = max(0, room - len(workers) - 1)
    foot = _foot(readings.now, columns, max(1, spare - 2) if room > 6 else 0)
    if room - len(foot) < 3:
        foot = []
    table = _table(workers, session, columns, room - len(foot))
    blank = [line()] * (room - len(table) - len(foot))
    return [*head, line(), *table, *blank, *foot, *keys]


def _head(readings: RecentReadings, session: Session, standing: Standing, columns: int) -> list[Line]:
    now = readings.now
    trouble = _noted(_trouble(standing), Style.BAD, columns) if standing.trouble else []
    if now is None:
        return trouble or [line("asking the service")]
    notes = [each for note in _notes(now) for each in _noted(note, Style.WARN, columns)]
    how = "paused" if session.paused else f"every {standing.interval:g}s"
    return [
        _with_right(_title(now), Piece(how, Style.WARN if session.paused else Style.FAINT), columns),
        _about(now),
        *trouble,
        *_rolling(now),
        *notes,
        *figures.lines(readings, now, columns),
    ]


def _trouble(standing: Standing) -> str:
    return f"no answer for {status_table.duration(standing.since)}: {_one_line(standing.trouble)}"


def _title(now: Reading) -> Line:
    good = now.state in ("serving", "reloading") and now.serving > 0
    state = Piece(now.state, Style.GOOD if good else Style.BAD)
    return line(Piece(f"forkserver {now.version}  {now.app}", Style.TITLE), f"  master {now.master}  ", state)


def _with_right(left: Line, right: Piece, columns: int) -> Line:
    room = columns - words.width(right.text) - 2
    cut = fitted(left, room)
    used = sum(words.width(piece.text) for piece in cut)
    return (*cut, Piece(" " * (columns - words.width(right.text) - used)), right)


def _about(now: Reading) -> Line:
    age = "" if now.generation_seconds is None else f" for {status_table.duration(now.generation_seconds)}"
    style = Style.PLAIN if now.serving >= now.wanted else Style.WARN
    workers = Piece(of_count(now.serving, now.wanted, "worker", "serve"), style)
    generation = f"generation {now.generation}{age}" if now.generation else "no generation serves yet"
    where = Piece(f"  at {', '.join(now.listeners)}", Style.FAINT)
    return line(f"{generation}  up {status_table.duration(now.at)}  ", workers, where)


def _rolling(now: Reading) -> list[Line]:
    """How a reload goes: also when all new workers serve, and old ones finish what they have begun."""
    newest = max((worker.generation for worker in now.workers), default=0)
    if now.generation and newest > now.generation:
        there = sum(worker.generation == newest and worker.state == "serving" for worker in now.workers)
        done = min(_BAR, _BAR * there // max(1, now.wanted))
        old = sum(worker.generation != newest for worker in now.workers)
        how = f"{of_count(there, now.wanted, 'worker', 'serve')} generation {newest}, {old} to leave"
        return [line(Piece(f"reload: [{'#' * done}{'.' * (_BAR - done)}] {how}", Style.BUSY))]
    return [line(Piece("reload: the new code is being loaded", Style.BUSY))] if now.state == "reloading" else []


def _notes(now: Reading) -> list[str]:
    return [*([] if _USUAL.fullmatch(now.text) else [now.text]), *now.notes]


def _noted(text: str, style: Style, columns: int) -> list[Line]:
    wrapped = textwrap.wrap(text, columns, subsequent_indent="  ", max_lines=_NOTE_LINES, placeholder=" ...")
    return [line(Piece(each, style)) for each in wrapped]


# The workers, and what is below them


def _table(workers: list[TableRow], session: Session, columns: int, room: int) -> list[Line]:
    """The heading and as many ``workers`` as there is ``room`` for, the chosen one among them."""
    pids = [row.worker.pid for row in workers]
    place = pids.index(session.chosen) if session.chosen in pids else 0
    hidden = len(workers) > room - 1
    count = max(1, room - 1 - hidden)
    first = max(0, min(place - count // 2, len(workers) - count))
    shown = workers[first : first + count]
    made = worker_table.lines(shown, columns, session.by, session.chosen)
    if hidden:
        below = len(workers) - first - len(shown)
        made.append(line(Piece(f"{count_of(first, 'worker')} above, {below} below", Style.FAINT)))
    return made


def _foot(now: Reading | None, columns: int, deaths: int) -> list[Line]:
    """How workers have ended, and so many lines of the last ``deaths``."""
    if now is None or not now.ends or not deaths:
        return []
    ends = ", ".join(f"{count:,} {reason}" for reason, count in sorted(now.ends.items()))
    return [
        line(),
        line(Piece(words.cut(f"ended: {ends}", columns))),
        *[each for death in now.deaths for each in _noted(_death(death), Style.FAINT, columns)][:deaths],
    ]


def _death(death: ShownDeath) -> str:
    remains = f"; {death.remains}" if death.remains else ""
    ago = status_table.duration(death.seconds)
    return f"{ago:>6} ago  worker={death.worker} gen={death.generation} pid={death.pid} {death.cause}{remains}"


def _keys(session: Session, columns: int) -> list[Line]:
    if session.question is not None:
        asked = f"{session.question.text}  y yes, any other key no"
        return [line(Piece(words.to_left(asked, columns), Style.QUESTION))]
    if session.message:
        return _noted(_one_line(session.message), Style.TITLE, columns)
    return [line(Piece(_HINTS, Style.FAINT))]


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _help() -> list[Line]:
    keys = [line(Piece(f"  {keys:22}", Style.TITLE), what) for keys, what in KEYS]
    return [line(Piece("forkserverctl top", Style.TITLE)), line(), *keys, line(), *_EXPLAINED, line(), _BACK]


def _text(session: Session, columns: int, rows: int) -> list[Line]:
    room = rows - 2
    shown = [line(each) for each in session.text_lines(columns, room)]
    return [line(Piece(session.title, Style.TITLE)), *shown, *[line()] * (room - len(shown)), _BACK]
