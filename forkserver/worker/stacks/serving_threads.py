"""The threads of a worker that serve, and the frames of those that are at work.

They are the main thread, the background driver, the application threads of ``--threads``, and threads that a server
class of the application's starts for a request (ThreadingMixIn). Other threads of the application serve no request. A
thread is idle while it waits for work in one of our own functions, which is then its innermost. What lies beneath the
function that every turn, or every request, begins in says nothing, and is left out.

Source: sys._current_frames.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, Final

from forkserver.ipc import figures
from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS, THREAD_WORDS, Row
from forkserver.linux.common.collector import CollectorHeld
from forkserver.linux.common.records import NamedTuple
from forkserver.server.context import context_of
from forkserver.server.loop.event_loop import EventLoop
from forkserver.server.loop.worker_server import state_of
from forkserver.server.threads.background_driver import BackgroundDriver
from forkserver.server.wsgi.overrides import is_threading

InnermostFrames = Callable[[], Mapping[int, FrameType]]  # by the threads' idents: sys._current_frames

_DRIVER: Final = BackgroundDriver
_TRIES: Final = 4
_WALKED: Final = 4096  # frames of a stack: it may be as deep as memory holds


class ThreadAtWork(NamedTuple):
    """A thread that is not idle, and its ``frames``, the innermost first.

    ``since`` is when its call has begun (CLOCK_MONOTONIC in ns, 0 where it is in none), ``line`` the method and path
    of the request, empty where there is none or it is not asked for.
    """

    frames: list[FrameType]
    since: int
    line: str


class ServingThreads:
    """The threads of the worker's server ``httpd``; made in the main thread. ``row`` shows their calls.

    ``entry`` is the code of the function that turns the loop: frames from there on are left out.
    """

    def __init__(self, httpd: Any, row: Row, entry: CodeType) -> None:
        self._loop = state_of(httpd).loop
        self._numbers = context_of(httpd).request_deadline.numbers
        self._row = row
        self._main = threading.main_thread().ident or 0
        self._begins = {id(entry), id(_DRIVER._run.__code__)}
        self._idle = {
            id(function.__code__)
            for function in (
                EventLoop._wait,
                _DRIVER._wait,
                _DRIVER._slow_call,
                _DRIVER._doze,
                _DRIVER._drive,
                _DRIVER._run,
            )
        }
        if (module := sys.modules.get("forkserver.server.threads.thread_pool")) is not None:
            pool = {id(module.Pool._run.__code__), id(module.Pool._serve.__code__)}
            self._begins |= pool
            self._idle |= pool
        # Of a server that starts a thread for each request, what such a thread begins with.
        apart = getattr(type(httpd), "process_request_thread", None) if is_threading(type(httpd)) else None
        self._request_entry: CodeType | None = getattr(apart, "__code__", None)

    @property
    def several(self) -> bool:
        """Whether more than one thread calls the application."""
        return self._row.threads > 1 or self._request_entry is not None

    @property
    def lasted(self) -> int:
        """How long all calls of the application lasted together that are over, in ns."""
        return self._row.words[figures.LASTED]

    def at_work(self, innermost: InnermostFrames, lines: bool) -> list[ThreadAtWork]:
        """Those that serve and are not idle, with the ``lines`` of their requests where they are wanted.

        Another thread may take the interpreter's lock from this one, and go on: then it is looked again.
        """
        for _ in range(_TRIES):
            with CollectorHeld():
                stacks = innermost()
                marks = {ident: frame.f_lasti for ident, frame in stacks.items()}
                found = dict(self._found(stacks, lines))
                now = innermost() if found else {}
            if all(now.get(ident) is stacks[ident] and stacks[ident].f_lasti == marks[ident] for ident in found):
                break
        return list(found.values())

    def _found(self, stacks: Mapping[int, FrameType], lines: bool) -> Iterator[tuple[int, ThreadAtWork]]:
        numbers = self._numbers
        idents = {self._main, *list(numbers), self._driver()} - {threading.get_ident()}
        for ident in idents & stacks.keys():
            frame = stacks[ident]
            if id(frame.f_code) not in self._idle and (frames := self._walk(frame)):
                yield ident, self._in_place(frames, numbers.get(ident, self._row.loop), lines)
        if self._request_entry is not None:
            for ident in stacks.keys() - idents:
                frames = self._walk(stacks[ident])
                if frames and frames[-1].f_code is self._request_entry:
                    yield ident, ThreadAtWork(frames, 0, "")

    def _in_place(self, frames: list[FrameType], place: int, lines: bool) -> ThreadAtWork:
        since = self._row.words[ROW_WORDS + place * THREAD_WORDS + BUSY_SINCE]
        busy = self._row.busy(place) if lines and since else None
        return ThreadAtWork(frames, since, busy.line if busy is not None else "")

    def _driver(self) -> int:
        """The ident of the background driver, which is started when it is needed first; 0 while there is none."""
        driver = self._loop.background_driver if self._loop is not None else None
        return 0 if driver is None else driver.ident

    def _walk(self, innermost: FrameType) -> list[FrameType]:
        frames: list[FrameType] = []
        frame: FrameType | None = innermost
        while frame is not None and id(code := frame.f_code) not in self._begins:
            frames.append(frame)
            if code is self._request_entry or len(frames) >= _WALKED:
                break
            frame = frame.f_back
        return frames
