"""The program behind ``forkserverctl top``: asks for the status again and again, and draws it.

Between two drawings it waits for a key, an answer or the next question's time. What is shown follows from the readings
and the session; this file only moves answers and keys to them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from forkserver.cli.control_client import UnreachableError
from forkserver.cli.top import frame, styled
from forkserver.cli.top.asking import MasterAnswer, Questions
from forkserver.cli.top.frame import Standing
from forkserver.cli.top.rates import RecentReadings
from forkserver.cli.top.reading import ForeignStatusError, read
from forkserver.cli.top.session import Session

if TYPE_CHECKING:
    from forkserver.cli.top.screen import Screen

STATUS: Final = {"command": "status"}
_SLOW_SECONDS: Final = 2.0  # after which a question without an answer is told
Ask = Callable[[Mapping[str, Any]], dict[str, Any]]


class NoTerminalError(Exception):
    """There is no terminal, or none that curses can draw at; the text has the way out."""


class Top:
    """The readings, the session, and when to ask; ``questions`` asks, ``clock`` gives seconds."""

    def __init__(self, questions: Questions, interval: float, clock: Callable[[], float] = monotonic) -> None:
        self._questions = questions
        self._interval = interval
        self._clock = clock
        self._readings = RecentReadings()
        self.session = Session(self._readings)
        self._asked_at: float | None = None  # the question that is under way
        self._due = 0.0
        self._answered_at = clock()
        self._trouble = ""

    def turn(self) -> float:
        """Take the answers that have come, and ask where it is time; seconds until the next turn at most."""
        for each in self._questions.taken():
            self._take(each)
        now = self._clock()
        if self._asked_at is not None or (self.session.paused and not self._trouble):
            return self._interval
        if now >= self._due:
            self._asked_at, self._due = now, now + self._interval
            self._questions.begin(STATUS)
        return max(0.0, self._due - now)

    def keys(self, names: list[str]) -> None:
        """Obey keys."""
        for name in names:
            if command := self.session.key(name):
                self.session.message = f"{command['command']}: asked"
                self._questions.begin(command)

    def lines(self, columns: int, rows: int) -> list[styled.Line]:
        """The frame as it is now."""
        now = self._clock()
        trouble = self._trouble
        if not trouble and self._asked_at is not None and now - self._asked_at >= _SLOW_SECONDS:
            trouble = "it was asked, and does not answer; is the master stopped?"
        standing = Standing(self._interval, trouble, now - self._answered_at)
        return frame.lines(self._readings, self.session, standing, columns, rows)

    def _take(self, came: MasterAnswer) -> None:
        if came.command is not STATUS:
            self._take_of_command(came)
            return
        self._asked_at = None
        self._trouble = noted(self._readings, came)
        if not self._trouble:
            self._answered_at = self._clock()
            self.session.notice()

    def _take_of_command(self, came: MasterAnswer) -> None:
        name, reply = came.command["command"], came.reply
        if came.trouble or reply.get("ok") is not True:
            self.session.message = f"{name}: {came.trouble or reply.get('error') or 'no reason was told'}"
        elif isinstance(stacks := reply.get("stacks"), str):
            self.session.show_text(f"stacks of worker {reply.get('worker')}, pid {reply.get('pid')}", stacks)
        else:
            self.session.message = f"{name}: {reply.get('text') or 'done'}"


def noted(readings: RecentReadings, came: MasterAnswer) -> str:
    """Note the status that ``came``; the reason where there is none, else empty."""
    if came.trouble:
        return came.trouble
    if came.reply.get("ok") is not True:
        return f"the service refuses: {came.reply.get('error', 'no reason was told')}"
    try:
        readings.note(read(came.reply))
    except ForeignStatusError as error:
        return str(error)
    return ""


def once(ask: Ask, interval: float, columns: int) -> str:
    """One frame as text, of figures between two questions. Raises UnreachableError, and what ``ask`` raises."""
    readings = RecentReadings()
    for wait in (0.0, interval):
        if wait:
            sleep(wait)
        if trouble := noted(readings, MasterAnswer(STATUS, ask(STATUS), "")):
            raise UnreachableError(trouble)
    return "\n".join(map(styled.plain, frame.everything(readings, Standing(interval), columns)))


def run(ask: Ask, interval: float, environ: Mapping[str, str]) -> None:
    """Draw at the terminal until a person quits. Raises NoTerminalError, and what ``ask`` raises at the start."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminalError("top draws at a terminal; --once shows it once as text, status --json is for programs")
    try:
        import curses

        from forkserver.cli.top.screen import Screen
    except ImportError as error:
        raise NoTerminalError(f"this Python has no curses ({error}); top --once shows it once as text") from None
    try:
        curses.setupterm()
        trouble = "" if curses.tigetstr("cup") else "it cannot place text"
    except curses.error as error:
        trouble = str(error)
    if trouble:
        way_out = "set TERM to what the terminal is, or use top --once"
        raise NoTerminalError(f"TERM={environ.get('TERM', '')}: {trouble}; {way_out}")
    ask(STATUS)  # where there is no service, that is told without a frame
    questions = Questions(ask)
    signal.signal(signal.SIGTERM, _leave)  # the terminal must not stay as it is now
    signal.set_wakeup_fd(questions.rope, warn_on_full_buffer=False)
    with Screen(questions.bell, environ) as screen:
        _draw(Top(questions, interval), screen)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _draw(top: Top, screen: Screen) -> None:
    while not top.session.over:
        wait = top.turn()
        screen.draw(top.lines(*screen.size))
        try:
            top.keys(screen.wait(wait))
        except EOFError:  # the terminal has hung up
            return
