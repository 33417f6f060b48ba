"""The terminal: draws lines by curses, and tells keys by name.

It waits for keys, for a change of the terminal's size and for a byte at ``bell`` in one place. The size is the kernel's
at each drawing; SIGWINCH only ends the wait. A terminal that has hung up ends the program.

Source: curses(3), poll(2), https://no-color.org.
"""

from __future__ import annotations

import curses
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forkserver.cli.top.styled import Line, Style

_ESCAPE_MS: Final = 25  # after which an escape is a key of its own
_COLOURS: Final = {
    Style.GOOD: curses.COLOR_GREEN,
    Style.BUSY: curses.COLOR_CYAN,
    Style.WARN: curses.COLOR_YELLOW,
    Style.BAD: curses.COLOR_RED,
}
_ATTRIBUTES: Final = {
    Style.PLAIN: curses.A_NORMAL,
    Style.TITLE: curses.A_BOLD,
    Style.FAINT: curses.A_DIM,
    Style.HEADING: curses.A_UNDERLINE,
    Style.SORTED: curses.A_UNDERLINE | curses.A_BOLD,
    Style.GOOD: curses.A_NORMAL,
    Style.BUSY: curses.A_NORMAL,
    Style.WARN: curses.A_BOLD,
    Style.BAD: curses.A_BOLD,
    Style.CHOSEN: curses.A_REVERSE,
    Style.QUESTION: curses.A_REVERSE | curses.A_BOLD,
}
_NAMES: Final = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "page up",
    curses.KEY_NPAGE: "page down",
    27: "escape",
}
_HUNG_UP: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Screen:
    """Use it in a ``with`` block: at its end the terminal is as it was. ``bell`` is a pipe or socket to watch."""

    def __init__(self, bell: int, environ: Mapping[str, str]) -> None:
        self._bell = bell
        self._colours = not environ.get("NO_COLOR")
        self._window: Any = None
        self._styles = dict(_ATTRIBUTES)
        self._poll = select.poll()
        self._encoding = "ascii"

    def __enter__(self) -> Screen:
        curses.set_escdelay(_ESCAPE_MS)
        self._window = curses.initscr()
        try:
            self._prepare()
        except BaseException:
            curses.endwin()
            raise
        return self

    def _prepare(self) -> None:
        curses.noecho()
        curses.cbreak()
        self._window.keypad(True)
        self._window.nodelay(True)
        self._encoding = self._window.encoding
        if self._colours and curses.has_colors():
            curses.start_color()
            curses.use_default_colors()
            for number, (style, colour) in enumerate(_COLOURS.items(), 1):
                curses.init_pair(number, colour, -1)
                self._styles[style] = _ATTRIBUTES[style] | curses.color_pair(number)
        if curses.tigetstr("civis"):
            curses.curs_set(0)
        signal.signal(signal.SIGWINCH, lambda number, frame: None)  # in place of curses', which a wait does not end for
        self._poll.register(sys.stdin.fileno(), select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)

    def __exit__(self, *_: object) -> None:
        curses.endwin()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        size = os.get_terminal_size(sys.stdout.fileno())
        return size.columns, size.lines

    def draw(self, lines: Sequence[Line]) -> None:
        """Show ``lines`` in place of what is there."""
        columns, rows = self.size
        if (rows, columns) != self._window.getmaxyx():
            curses.resizeterm(rows, columns)
            self._window.clear()
        self._window.erase()
        for row, pieces in enumerate(lines[:rows]):
            self._window.move(row, 0)
            self._draw_line(pieces)
        self._window.refresh()

    def _draw_line(self, pieces: Line) -> None:
        for piece in pieces:
            text = piece.text.encode(self._encoding, "backslashreplace").decode(self._encoding)
            try:
                self._window.addstr(text, self._styles[piece.style])
            except (
                curses.error
            ):  # at the last place of the screen; or the terminal has wider characters than we know of
                return

    def wait(self, seconds: float) -> list[str]:
        """Wait for so many ``seconds`` at most; the names of the keys that were pressed. Raises EOFError."""
        ready = self._poll.poll(max(0.0, seconds) * 1000)
        if any(events & _HUNG_UP for number, events in ready if number != self._bell):
            raise EOFError
        keys = []
        while (code := self._window.getch()) != curses.ERR:
            if name := _NAMES.get(code, chr(code) if 32 <= code < 127 else ""):
                keys.append(name)
        return keys
