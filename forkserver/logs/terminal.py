"""Both logs for a person at a terminal: aligned, and in colours where the environment does not say otherwise.

Source: https://no-color.org; ECMA-48 section 8.3.117 (SGR) for colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from forkserver.linux.common.escaping import printable
from forkserver.logs.access_format import Format, Line
from forkserver.logs.client_text import cut, escaped
from forkserver.logs.error_format import LogEvent, TextForm, rfc3339

_OF_LEVELS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_OF_STATUSES: Final = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}  # by their first digit
_MOST_CHARS: Final = 2000  # of a request line


class TerminalForm(TextForm):
    """Events of the error log. ``environ`` has the variables that speak of the terminal."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._colours = has_colours(environ)

    def event(self, event: LogEvent) -> str:
        level = _coloured(f"{event.level:8}", _OF_LEVELS[event.level] if self._colours else "")
        text = f"{_clock(event.seconds)} {level} {event.process:14} {event.pid:7} {printable(event.message)}\n"
        return text + "".join(f"  {printable(line)}\n" for line in event.details.splitlines())


class TerminalFormat(Format):
    """Lines of the access log: time, status, milliseconds, bytes, client and request."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._colours = has_colours(environ)

    def write(self, line: Line, most: int) -> str:
        status = _coloured(str(line.status), _OF_STATUSES.get(line.status // 100, "") if self._colours else "")
        milliseconds = "-" if line.seconds is None else f"{line.seconds * 1000:.1f}"
        client, request = (
            cut(escaped(text or "-"), most) for text, most in ((line.peer, 200), (line.request, _MOST_CHARS))
        )
        return f"{_clock(line.now)} {status} {milliseconds:>9} ms {line.size:>9} B {client:15} {request}\n"


def has_colours(environ: Mapping[str, str]) -> bool:
    """Whether the terminal that ``environ`` speaks of is to be written to in colours."""
    return not environ.get("NO_COLOR") and environ.get("TERM", "") not in ("", "dumb")


def _coloured(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _clock(seconds: float) -> str:
    """The time of day in UTC, to the millisecond."""
    return f"{rfc3339(seconds)[11:23]}Z"
