"""The command ``profile``: has the master begin, reads what the workers write until they are through, and shows it.

The master hands three descriptors for each worker over with its answer (master/control/profiling.py). Where the client
closes them, the workers stop: after Ctrl-C, what was taken until then is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from forkserver.cli.control_client import UnreachableError, ask
from forkserver.cli.profile import options, summary
from forkserver.cli.profile.collapsed import collapsed
from forkserver.cli.profile.flame_graph import flame_graph
from forkserver.cli.profile.profile import StackTimes, merged
from forkserver.cli.profile.recording import Recording
from forkserver.cli.profile.speedscope import speedscope
from forkserver.linux.common.counted import are_missing, count_of
from forkserver.linux.common.records import NamedTuple

GRACE_SECONDS: Final = 5.0  # for a worker to tell its end: it may be in C code that holds the interpreter's lock
_ANSWER_SECONDS: Final = 10.0
_DESCRIPTORS: Final = 3  # of each worker
_SILENT: Final = (
    "it has not told its end: it is stopped, or in C code that holds the interpreter's lock; py-spy looks from outside"
)

Say = Callable[[str], object]


class ProfileRefusedError(Exception):
    """The master refuses, with the reason."""


class Taken(NamedTuple):
    """What was taken: of each worker that has begun, under its name."""

    title: str
    parts: Sequence[tuple[str, StackTimes]]
    notes: Sequence[str]

    def whole(self) -> StackTimes:
        return merged(times for _, times in self.parts)


def run(path: str, chosen: argparse.Namespace, say: Say, complain: Say) -> bool:
    """Have the master behind ``path`` begin, show the profile by ``say`` or in a file, and notes by ``complain``.

    Returns whether there is one. Raises ProfileRefusedError, OutputError, UnreachableError, TimeoutError, and
    KeyboardInterrupt after showing what had come.
    """
    new = chosen.output is not None and options.open_output(chosen.output)
    shown = False
    try:
        recordings, notes = _begin(path, chosen)
        interrupted = _collect(recordings, chosen.seconds + GRACE_SECONDS)
        taken = _taken(recordings, notes, chosen)
        for note in taken.notes:
            complain(note)
        if taken.parts:
            _show(taken, chosen, say)
            shown = True
    finally:
        if new and not shown:
            os.unlink(chosen.output)
    if interrupted:
        raise KeyboardInterrupt
    return shown


def _begin(path: str, chosen: argparse.Namespace) -> tuple[list[Recording], list[str]]:
    """The workers that have begun, and what is to be said of the others.

    Raises ProfileRefusedError, UnreachableError and TimeoutError.
    """
    command: dict[str, Any] = {name: getattr(chosen, name) for name in chosen.fields} | {"command": "profile"}
    command |= {} if chosen.worker is None else {"worker": chosen.worker}
    descriptors: list[int] = []
    recordings: list[Recording] = []
    reply = ask(path, command, chosen.timeout or _ANSWER_SECONDS, descriptors)
    try:
        if reply.get("ok") is not True:
            raise ProfileRefusedError(str(reply.get("error", "no reason given")))
        workers = reply["workers"]
        if len(descriptors) != len(workers) * _DESCRIPTORS:
            raise ValueError
        for told in workers:
            memory, bell, link = descriptors[:_DESCRIPTORS]
            recordings.append(Recording(told, memory, bell, link, chosen.paths))
            del descriptors[:_DESCRIPTORS]
        notes = left_out(reply["left_out"])
    except (LookupError, TypeError, ValueError, OSError):
        for recording in recordings:
            recording.close()
        why = "what answers there sends no profile"
        raise UnreachableError(f"{path}: {why}; name another with --socket PATH") from None
    finally:
        for number in descriptors:
            with suppress(OSError):  # one of a recording that could not be made
                os.close(number)
    return recordings, notes


def _collect(recordings: Sequence[Recording], seconds: float) -> bool:
    """Read until each worker has told its end, or ``seconds`` are over; whether Ctrl-C was pressed. Closes them."""
    try:
        _read(recordings, monotonic() + seconds)
    except KeyboardInterrupt:
        return True
    finally:
        for recording in recordings:
            recording.close()
    return False


def _read(recordings: Sequence[Recording], until: float) -> None:
    poll = select.poll()
    readers = {}
    for recording in recordings:
        for number, events in ((recording.bell, select.POLLIN), (recording.link, 0)):
            readers[number] = recording
            poll.register(number, events)
    while readers and (left := until - monotonic()) > 0:
        for number, event in poll.poll(left * 1000):
            if number not in readers:
                continue  # of one that has just told its end
            recording = readers[number]
            recording.read()
            if number == recording.link and event and not recording.ended:
                recording.end("it has ended" if recording.begun else "it has ended, or is of a program without this")
            if recording.ended:
                for each in (recording.bell, recording.link):
                    del readers[each]
                    poll.unregister(each)
    for recording in dict.fromkeys(readers.values()):
        recording.end(_SILENT)


def _taken(recordings: Sequence[Recording], notes: Sequence[str], chosen: argparse.Namespace) -> Taken:
    of = recordings[0].name if len(recordings) == 1 else f"{len(recordings)} workers"
    told = [f"{recording.name}: {recording.why}" for recording in recordings if recording.why]
    told += [f"{recording.name}: {are_missing(recording.lost, 'sample')}" for recording in recordings if recording.lost]
    parts = [(recording.name, recording.times()) for recording in recordings if recording.begun]
    title = f"profile of {of}, {chosen.seconds:g} s at {chosen.rate} Hz"
    return Taken(title, parts, [*notes, *told])


def _show(taken: Taken, chosen: argparse.Namespace, say: Say) -> None:
    """Raises OutputError."""
    form = options.form_of(chosen.format, chosen.output)
    times = taken.whole()
    note = f"{count_of(times.samples, 'sample')}, {times.total / 1e9:.2f} s of threads at work"
    if form is None:
        if chosen.json:
            say(json.dumps({"ok": True, "notes": taken.notes, **summary.as_json(times)}, indent=2))
        else:
            width = max(80, shutil.get_terminal_size().columns)
            say(f"{taken.title}: {note}\n\n{summary.summary(times, chosen.paths, width)}")
        return
    if form == options.SVG:
        text = flame_graph(taken.title, note, times)
    elif form == options.SPEEDSCOPE:
        several = [("all", times), *taken.parts] if len(taken.parts) > 1 else taken.parts
        text = speedscope(taken.title, several)
    else:
        text = collapsed(times)
    if chosen.output is None:
        say(text.removesuffix("\n"))
        return
    options.write_output(chosen.output, text)
    say(f"{taken.title}: {note}; written to {chosen.output}")


def left_out(told: list[dict[str, Any]]) -> list[str]:
    """A line for each reason why workers are not sampled. Raises LookupError, TypeError and ValueError."""
    by_reason: dict[str, list[int]] = {}
    for each in told:
        by_reason.setdefault(str(each["why"]), []).append(int(each["worker"]))
    return [
        f"{f'worker={workers[0]} is' if len(workers) == 1 else f'{len(workers)} workers are'} left out: {why}"
        for why, workers in by_reason.items()
    ]
