"""Where the threads of this process are, for the log; and where one call of the application is.

It is safe beside threads that run: the interpreter's lock is held while a frame is read. A thread may take the lock
between two frames, and a frame that returns or yields then has lost its caller: they are looked at again where
one has gone on. What faulthandler writes from a signal handler is not safe; it is left for processes in which nothing
else can run any more.

Source: sys._current_frames, https://docs.python.org/3/library/faulthandler.html
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from traceback import FrameSummary
from types import FrameType
from typing import Final

from forkserver.errors import PACKAGE
from forkserver.linux.common.collector import CollectorHeld
from forkserver.linux.common.records import NamedTuple

_OURS: Final = PACKAGE + os.sep
_STDLIB: Final = os.path.dirname(os.__file__)
_BETWEEN: Final = (os.path.join(_STDLIB, "socketserver.py"), os.path.join(_STDLIB, "http", "server.py"))
_INNERMOST, _OUTERMOST = 40, 10  # frames of the application that are shown of a deep stack
_LINE_CHARACTERS: Final = 300
_TRIES: Final = 4

_InnermostFrames = Callable[[], Mapping[int, FrameType]]  # by the threads' idents: sys._current_frames
_Walked = Sequence[tuple[FrameType, int]]  # frames with their lines, the innermost first


class CallStack(NamedTuple):
    """Where a call is: ``text`` has a line for each frame, the innermost first; ``place`` is the application's first.

    ``place`` is empty where the call is in none of the application's frames.
    """

    place: str
    text: str


def thread_stacks() -> str:
    """The stack of each thread, the innermost call last, under the thread's name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = _walk(sys._current_frames)
    found = []
    for ident, frames in stacks.items():
        found.append(f"thread {names.get(ident, ident)}:\n")
        found += traceback.StackSummary.extract(reversed(frames)).format()
    return "".join(found)


def call_stack(ident: int | None, innermost: _InnermostFrames = sys._current_frames) -> CallStack | None:
    """Where the thread ``ident`` is; None where there is no such thread."""
    walked = None if ident is None else _walk(innermost, ident).get(ident)
    return None if walked is None else _described(walked)


def described(frame: FrameType) -> CallStack:
    """The stack that has ``frame`` as its innermost; the server's own frames are folded into one line."""
    with CollectorHeld():
        walked = list(traceback.walk_stack(frame))
    return _described(walked)


def _walk(innermost: _InnermostFrames, only: int | None = None) -> Mapping[int, _Walked]:
    """The frames of each thread, or of ``only`` one, by the threads' idents."""
    stacks: dict[int, _Walked] = {}
    for _ in range(_TRIES):
        with CollectorHeld():
            looked = {ident: frame for ident, frame in innermost().items() if only in (None, ident)}
            marks = {ident: frame.f_lasti for ident, frame in looked.items() if ident != threading.get_ident()}
            stacks = {ident: list(traceback.walk_stack(frame)) for ident, frame in looked.items()}
            now = innermost()
        if all(now.get(ident) is looked[ident] and looked[ident].f_lasti == mark for ident, mark in marks.items()):
            break
    return stacks


def _described(walked: _Walked) -> CallStack:
    frames = list(traceback.StackSummary.extract(iter(walked), lookup_lines=False))
    called = len(frames) - _frames_below(frames)
    application, below = frames[:called], frames[called:]
    place = next((_place(each) for each in application if not _is_ours(each)), "")
    lines = [*_lines(application), *([_folded(below)] if below else [])]
    return CallStack(place, "\n".join(line[:_LINE_CHARACTERS] for line in lines))


def _frames_below(frames: list[FrameSummary]) -> int:
    """How many of ``frames``, from the outermost on, have led to the application."""
    count, outermost = 0, frames[::-1]
    while count < len(outermost) and not _is_ours(outermost[count]):  # the interpreter's own, and the program's script
        count += 1
    if count == len(outermost):
        return 0
    while count < len(outermost) and (_is_ours(outermost[count]) or outermost[count].filename in _BETWEEN):
        count += 1
    return count


def _lines(frames: list[FrameSummary]) -> Iterator[str]:
    if len(frames) > _INNERMOST + _OUTERMOST:
        yield from _each(frames[:_INNERMOST])
        yield f"({len(frames) - _INNERMOST - _OUTERMOST} frames left out)"
        frames = frames[-_OUTERMOST:]
    yield from _each(frames)


def _each(frames: Iterable[FrameSummary]) -> Iterator[str]:
    for ours, group in groupby(frames, _is_ours):
        if ours:
            yield _folded(list(group))
        else:
            yield from (f"{_place(each)}: {each.line}" if each.line else _place(each) for each in group)


def _folded(frames: list[FrameSummary]) -> str:
    count = "1 frame" if len(frames) == 1 else f"{len(frames)} frames"
    return f"(forkserver: {count}, {_place(frames[0]).removeprefix(_OURS)})"


def _place(frame: FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} in {frame.name}"


def _is_ours(frame: FrameSummary) -> bool:
    return frame.filename.startswith(_OURS)
