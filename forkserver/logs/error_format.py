"""Forms of the error log's events: text and JSON.

Text has one line for an event, and indented ones for its details. JSON has one object; where that would be longer than
what one write delivers unmixed with others, several, each with its ``part``. The application's own text stays as it is,
but for priorities above that of an error, and in JSON, where each piece of it is an object too.

Source: RFC 3339; sd-daemon(3) and SyslogLevelPrefix= in systemd.exec(5) for priorities.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Final

from forkserver.linux.common.escaping import printable
from forkserver.linux.common.records import NamedTuple
from forkserver.logs.client_text import json_string

# What the journal reads at the head of a line.
PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
# As the daemon reads it of the application's text: a carriage return ends a line in syslog.py, NUL one in the journal.
_ALARM: Final = re.compile(r"(?:^|(?<=[\n\r\0]))<[0-2]>")
_NUMBERS: Final = re.compile(r"(worker|gen)=([0-9]{1,9})")
_OWN_BYTES: Final = 640  # of an object, beside its texts


class RequestFacts(NamedTuple):
    """What an event about a slow request says of it, for formats with fields; ``client`` is empty where not known."""

    request: str
    request_id: str
    client: str
    seconds: float


class LogEvent(NamedTuple):
    """One event; ``seconds`` since 1970, and the name and id of the process. ``details`` are further lines."""

    seconds: float
    level: str
    process: str
    pid: int
    message: str
    details: str = ""
    request_id: str = ""
    about: RequestFacts | None = None


class TextForm:
    """Text, where ``journal`` says so with the priority before each line."""

    def __init__(self, journal: bool = False) -> None:
        self._priorities = PRIORITIES if journal else {}

    def event(self, event: LogEvent) -> str:
        """``event`` as lines."""
        priority = self._priorities.get(event.level, "")
        text = f"{priority}{self._heading(event)} {printable(event.message)}\n"
        for line in event.details.splitlines():
            text += f"{priority}  {printable(line)}\n"
        return text

    def _heading(self, event: LogEvent) -> str:
        return f"{rfc3339(event.seconds)} {event.level} {event.process} pid={event.pid}"

    def application(self, event: LogEvent) -> str:
        """The application's own lines, as ``event`` has them in its message.

        Where priorities are read, an error is the highest one: a user whose text stands in a line raises no alarm.
        """
        return _ALARM.sub(PRIORITIES["error"], event.message) if self._priorities else event.message


class SyslogForm(TextForm):
    """Text without what syslog says itself: time, level and process id."""

    def _heading(self, event: LogEvent) -> str:
        return event.process


class JsonForm(TextForm):
    """Objects of at most ``most`` bytes, with names that stay as they are."""

    def __init__(self, most: int, journal: bool = False) -> None:
        super().__init__(journal)
        self._most = most

    def event(self, event: LogEvent) -> str:
        message = json_string(event.message, self._most // 3)
        if not event.details:
            return self._object("forkserver", event, f'"message":{message}')
        pieces = list(self._pieces(event.details, self._most // 2 - _OWN_BYTES))
        return "".join(
            self._object("forkserver", event, f'"message":{message},"details":{piece}{part}')
            for piece, part in zip(pieces, _parts(len(pieces)), strict=True)
        )

    def application(self, event: LogEvent) -> str:
        pieces = list(self._pieces(event.message.removesuffix("\n"), self._most - 2 * _OWN_BYTES))
        return "".join(
            self._object("application", event, f'"message":{piece}{part}')
            for piece, part in zip(pieces, _parts(len(pieces)), strict=True)
        )

    def _object(self, source: str, event: LogEvent, texts: str) -> str:
        level = f'"{event.level}"' if event.level else "null"
        name = event.process.partition(" ")[0].partition("=")[0]
        numbers = dict(numbers_of(event.process))
        request_id = f',"request_id":{json_string(event.request_id, 128)}' if event.request_id else ""
        if event.about is not None:
            request_id += _facts(event.about)
        return (
            f'{self._priorities.get(event.level, "")}{{"time":"{rfc3339(event.seconds)[:-6]}Z","level":{level},'
            f'"source":"{source}","process":{json_string(name, 64)},"worker":{numbers.get("worker", "null")},'
            f'"generation":{numbers.get("gen", "null")},"pid":{event.pid}{request_id},{texts}}}\n'
        )

    @staticmethod
    def _pieces(text: str, most: int) -> Iterator[str]:
        """``text`` as strings in quotes of ``most`` bytes at most: divided at line ends, a longer line is cut."""
        lines: list[str] = []
        size = 2
        for line in text.split("\n"):
            length = len(json_string(line, most))
            if lines and size + length > most:
                yield json_string("\n".join(lines), most)
                lines, size = [], 2
            lines.append(line)
            size += length
        yield json_string("\n".join(lines), most)


def _facts(about: RequestFacts) -> str:
    client = json_string(about.client, 128) if about.client else "null"
    request = json_string(about.request, 512)
    return f',"request":{request},"client":{client},"seconds":{about.seconds:.3f}'


def _parts(count: int) -> Iterator[str]:
    return (f',"part":{number + 1}' if count > 1 else "" for number in range(count))


def numbers_of(process: str) -> list[tuple[str, str]]:
    """The numbers in the name of a ``process``: of its worker and its generation, as ``worker`` and ``gen``."""
    return _NUMBERS.findall(process)


def rfc3339(seconds: float) -> str:
    """A time since 1970 in UTC to the millisecond; the module datetime is slow to import."""
    milliseconds = int(seconds * 1000)
    whole = time.gmtime(milliseconds // 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{milliseconds % 1000:03}+00:00"
