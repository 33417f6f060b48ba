"""One answer to ``status``, read: every value has its type, and every text is fit for a terminal.

Where the service's user may listen in the folder that root looks in, anything may answer there. So an answer is read
once and whole, and what is not of the shape of a status is refused here. Fields that an older master does not tell
have the value that says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forkserver.cli.status_table import unreachable
from forkserver.linux.common.counted import are_missing
from forkserver.linux.common.escaping import printable
from forkserver.linux.common.records import NamedTuple

CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
_MOST_CHARS: Final = 2000  # of one text: a terminal shows less


class ForeignStatusError(Exception):
    """What came is no status of a forkserver that this program understands."""


class Histogram(NamedTuple):
    """``buckets`` are counts, of times at most as long as the bound of the same place; the last has the longer ones."""

    buckets: tuple[int, ...]


class ShownCall(NamedTuple):
    """A call of the application that goes on."""

    line: str
    seconds: float
    websocket: bool


class ShownDeath(NamedTuple):
    """A worker that ended without an order or for a call that took too long, ``seconds`` ago."""

    worker: int
    pid: int
    generation: int
    cause: str
    remains: str
    seconds: float


class ShownWorker(NamedTuple):
    """A worker; ``seconds`` since it serves (None before), ``application_seconds`` of its calls that have ended."""

    number: int
    pid: int
    generation: int
    state: str
    seconds: float | None
    requests: int
    connections: int
    parked: int
    unsent: int
    memory: int
    application_seconds: float | None
    calls: tuple[ShownCall, ...]


class Reading(NamedTuple):
    """The service at ``at``, in seconds since it was started; figures are sums since then.

    ``answers`` are counts by class. ``backlogs`` are counts by listener. ``notes`` are what an operator should know.
    """

    at: float
    version: str
    app: str
    master: int
    state: str
    text: str
    generation: int
    generation_seconds: float | None
    wanted: int
    serving: int
    threads: int
    listeners: tuple[str, ...]
    backlogs: tuple[int, ...]
    notes: tuple[str, ...]
    ends: dict[str, int]
    deaths: tuple[ShownDeath, ...]
    answers: dict[str, int]
    request_bytes: int
    answer_bytes: int
    bounds: tuple[float, ...]
    application: Histogram
    waiting: Histogram
    workers: tuple[ShownWorker, ...]


def read(status: Mapping[str, Any]) -> Reading:
    """The answer to ``status``, read. Raises ForeignStatusError."""
    try:
        return _read(status)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ForeignStatusError(f"what answers is no forkserver of this program's version: {error!r}") from None


def _read(status: Mapping[str, Any]) -> Reading:
    figures = status["figures"]
    bounds = tuple(map(_number, figures["bounds"]))
    return Reading(
        at=_number(status["seconds"]),
        version=_text(status["version"]),
        app=_text(status["app"]),
        master=_count(status["master"]["pid"]),
        state=_text(status["state"]),
        text=_text(status["text"]),
        generation=_count(status["generation"] or 0),
        generation_seconds=_number_or_none(status.get("generation_seconds")),
        wanted=_count(status["wanted"]),
        serving=_count(status["serving"]),
        threads=max(1, _count(status.get("threads", 1))),
        listeners=tuple(map(_text, status["listeners"])),
        backlogs=tuple(_count(each or 0) for each in status.get("backlogs", ())),
        notes=tuple(_notes(status)),
        ends={_text(reason): _count(count) for reason, count in status["ends"].items()},
        deaths=tuple(map(_death, status.get("last_deaths", ()))),
        answers={_text(name): _count(count) for name, count in figures["answers"].items()},
        request_bytes=_count(figures["request_bytes"]),
        answer_bytes=_count(figures["answer_bytes"]),
        bounds=bounds,
        application=_histogram(figures["application_seconds"], len(bounds) + 1),
        waiting=_histogram(figures["waiting_seconds"], len(bounds) + 1),
        workers=tuple(map(_worker, status["workers"])),
    )


def _notes(status: Mapping[str, Any]) -> list[str]:
    text, failure = _text(status["text"]), _text(status.get("last_failure") or "")
    notes = [failure] if failure and failure not in text else []
    if status.get("clients_wait"):
        notes.append("clients wait: no worker has a free thread")
    notes += (f"no client can connect at {_text(names)}; {_text(way_out)}" for names, way_out in unreachable(status))
    if lost := status.get("lost_log_lines"):
        notes.append(f"{are_missing(_count(lost), 'line')} in the logs: their reader was stuck, or a disk full")
    return notes


def _worker(worker: Mapping[str, Any]) -> ShownWorker:
    return ShownWorker(
        number=_count(worker["worker"]),
        pid=_count(worker["pid"] or 0),
        generation=_count(worker["generation"]),
        state=_text(worker["state"]),
        seconds=_number_or_none(worker["seconds"]),
        requests=_count(worker["requests"]),
        connections=_count(worker["held"]),
        parked=_count(worker["parked"]),
        unsent=_count(worker["unsent"]),
        memory=_count(worker["memory"]),
        application_seconds=_number_or_none(worker.get("application_seconds")),
        calls=tuple(
            ShownCall(_text(call["request"]), _number(call["seconds"]), bool(call.get("websocket")))
            for call in worker["busy"]
        ),
    )


def _death(death: Mapping[str, Any]) -> ShownDeath:
    return ShownDeath(
        worker=_count(death["worker"]),
        pid=_count(death["pid"]),
        generation=_count(death["generation"]),
        cause=_text(death["cause"]),
        remains=_text(death["remains"]),
        seconds=_number(death["seconds"]),
    )


def _histogram(histogram: Mapping[str, Any], size: int) -> Histogram:
    buckets: Sequence[Any] = histogram["buckets"]
    if len(buckets) != size:
        raise ValueError(f"a histogram has {len(buckets)} buckets, not {size}")
    return Histogram(tuple(map(_count, buckets)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.50} is no text")
    return printable(value[:_MOST_CHARS])


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise TypeError(f"{value!r:.50} is no count")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.50} is no number")
    return float(value)


def _number_or_none(value: Any) -> float | None:
    return None if value is None else _number(value)
