"""What the person at the keyboard has asked for: sorting, a chosen worker, a question, a page of text.

A key changes the session, and may give a command for the service. Reloading, retiring and stacks are commands; each
waits for its question to be answered with ``y``. Workers are named by pid, so that a worker which came in the place of
the chosen one is never meant.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from forkserver.cli.top import worker_table
from forkserver.cli.top.rates import RecentReadings
from forkserver.cli.top.worker_table import TableRow
from forkserver.linux.common.escaping import printable
from forkserver.linux.common.records import NamedTuple

KEYS: Final = (
    ("up, down, PgUp, PgDn", "choose a worker (also k and j)"),
    ("<  >", "sort by the column to the left or right (also the arrows)"),
    ("i", "turn the order around"),
    ("p, space", "pause, and go on"),
    ("r", "reload settings and code"),
    ("t", "retire the chosen worker: another takes its place first"),
    ("s", "show where the threads of the chosen worker are"),
    ("h, ?", "this help"),
    ("q", "quit"),
)
_PAGE: Final = 10


class View(Enum):
    """What is shown."""

    WORKERS = "workers"
    HELP = "help"
    TEXT = "text"


class Confirmation(NamedTuple):
    """A command that waits for a yes. ``worker`` is the pid that it is about, ``master`` the one it was asked of."""

    text: str
    command: dict[str, Any]
    master: int
    worker: int = 0


class Session:
    """Keys are named: a character, or ``up``, ``down``, ``left``, ``right``, ``page up``, ``page down``, ``escape``."""

    def __init__(self, readings: RecentReadings) -> None:
        self._readings = readings
        self.page = View.WORKERS
        self.by = worker_table.COLUMNS[0]
        self.inverted = False
        self.chosen = 0
        self._place = 0
        self.paused = False
        self.over = False
        self.question: Confirmation | None = None
        self.message = ""
        self.title = ""
        self._text: Sequence[str] = ()
        self._first_line = 0

    def rows(self) -> list[TableRow]:
        """The table's rows in their order. What is chosen stays; if it has ended, what is in its place is."""
        found = [TableRow(worker, rates) for worker, rates in self._readings.workers()]
        rows = worker_table.ordered(found, self.by, self.inverted)
        pids = [row.worker.pid for row in rows]
        if self.chosen in pids:
            self._place = pids.index(self.chosen)
        elif pids and self.chosen:
            self._place = min(self._place, len(pids) - 1)
            self.chosen = pids[self._place]
        return rows

    def key(self, key: str) -> dict[str, Any] | None:
        """Obey ``key``; the command that is to be sent, if any."""
        self.message = ""
        if self.question is not None:
            return self._answered(key)
        if key == "q":
            self.over = True
        elif self.page is not View.WORKERS:
            self._turn_page(key)
        elif act := self._keys().get(key):
            act()
        return None

    def _keys(self) -> dict[str, Callable[[], None]]:
        return {
            "up": lambda: self._choose(-1), "k": lambda: self._choose(-1),
            "down": lambda: self._choose(1), "j": lambda: self._choose(1),
            "page up": lambda: self._choose(-_PAGE), "page down": lambda: self._choose(_PAGE),
            "<": lambda: self._sort(-1), "left": lambda: self._sort(-1),
            ">": lambda: self._sort(1), "right": lambda: self._sort(1),
            "i": self._invert, "p": self._pause, " ": self._pause,
            "h": self._help, "?": self._help,
            "r": self._reload, "t": self._retire, "s": self._stacks,
        }  # fmt: skip

    def notice(self) -> None:
        """A status has come: a question about what has ended meanwhile is taken back."""
        question, now = self.question, self._readings.now
        if question is None or now is None:
            return
        gone = question.worker and question.worker not in [worker.pid for worker in now.workers]
        if gone or question.master != now.master:
            what = f"pid {question.worker}" if gone else "that master"
            self.question, self.message = None, f"nothing was done: {what} is not there any more"

    def show_text(self, title: str, text: str) -> None:
        """Have a page of ``text``."""
        self.page, self.title, self._text, self._first_line = View.TEXT, title, text.splitlines(), 0

    def text_lines(self, columns: int, room: int) -> list[str]:
        """The part of the page of text that ``room`` lines of so many ``columns`` show."""
        wrapped = [
            part
            for each in self._text
            for part in textwrap.wrap(printable(each), columns, subsequent_indent="    ") or [""]
        ]
        self._first_line = max(0, min(self._first_line, len(wrapped) - room))
        return wrapped[self._first_line : self._first_line + room]

    def _answered(self, key: str) -> dict[str, Any] | None:
        question, self.question = self.question, None
        if question is not None and key in ("y", "Y"):
            return question.command
        self.message = "nothing was done"
        return None

    def _turn_page(self, key: str) -> None:
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -_PAGE, "page down": _PAGE, " ": _PAGE}
        if key in moves and self.page is View.TEXT:
            self._first_line += moves[key]  # as far as there is text, which the next frame knows
        elif key not in moves:
            self.page = View.WORKERS

    def _choose(self, step: int) -> None:
        pids = [row.worker.pid for row in self.rows()]
        if pids:
            place = self._place + step if self.chosen else 0
            self._place = max(0, min(place, len(pids) - 1))
            self.chosen = pids[self._place]

    def _sort(self, step: int) -> None:
        columns = worker_table.COLUMNS
        self.by, self.inverted = columns[(columns.index(self.by) + step) % len(columns)], False

    def _invert(self) -> None:
        self.inverted = not self.inverted

    def _pause(self) -> None:
        self.paused = not self.paused

    def _help(self) -> None:
        self.page = View.HELP

    def _reload(self) -> None:
        if (now := self._readings.now) is not None:
            text = f"reload {now.app} (master {now.master})?"
            self.question = Confirmation(text, {"command": "reload", "wait": False}, now.master)

    def _retire(self) -> None:
        self._about_worker("retire", "retire worker {}, pid {}?")

    def _stacks(self) -> None:
        self._about_worker("stacks", "show the stacks of worker {}, pid {}?")

    def _about_worker(self, command: str, text: str) -> None:
        now = self._readings.now
        chosen = [row.worker for row in self.rows() if row.worker.pid == self.chosen != 0]
        if now is None or not chosen:
            self.message = "choose a worker first: up and down"
            return
        number, pid = chosen[0].number, chosen[0].pid
        asked = {"command": command, "worker": f"pid={pid}"}
        self.question = Confirmation(text.format(number, pid), asked, now.master, pid)
