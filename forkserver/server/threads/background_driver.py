"""The background driver: a thread that turns the loop while the application keeps the main thread in a slow call.

Bodies, downloads, deadlines and orders go on meanwhile, and requests that arrive go to idle siblings. Nothing is
accepted, because it would wait for the call, and the thread never runs the application. While nothing is called it
sleeps. It cannot run while C code holds the interpreter's lock.

Source: https://docs.python.org/3/glossary.html#term-global-interpreter-lock.
"""

from __future__ import annotations

import math
import select
import signal
import threading
from types import FrameType
from typing import Final, Protocol

from forkserver.errors import RequestTimeout
from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS, Row
from forkserver.linux.syscalls import monotonic, monotonic_ns
from forkserver.logs.error_log import ErrorLog
from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.threads.wakeup import Wakeup

_TICK: Final = 5  # milliseconds; a call that lasts longer is slow
_CALM_TICK: Final = 20  # where none has been slow of late: each look costs the main thread a moment of the lock
_ALERT_SECONDS: Final = 10.0  # after a slow call another one is expected
_AGAIN: Final = 0.05  # seconds between two interruptions of a call that has not heard the first
_QUIET_TICKS: Final = 20  # without a call, then it sleeps until there is one
# Ignored by default and used by hardly any program; a system call that the application waits in ends with it.
INTERRUPT: Final = signal.SIGURG


class DrivenLoop(Protocol):
    """The loop, as the background driver sees it."""

    dozing: bool  # the driver is to be woken by the next call
    tended: bool  # the driver turns the loop

    @property
    def loop_lock(self) -> LoopLock: ...
    @property
    def log(self) -> ErrorLog: ...
    def fileno(self) -> int:
        """Readable when something is to be done."""

    def begin_tending(self) -> None:
        """The driver turns the loop from here on."""

    def end_tending(self) -> None:
        """The main thread turns the loop again; calls ``stand_back``."""

    def tend(self) -> float | None:
        """One turn of the driver's; seconds until the next one is needed."""


class BackgroundDriver:
    """The second thread that turns ``loop``. ``row`` shows it the main thread's call; made in the main thread.

    Raises RuntimeError where no thread can be started, and OSError where there is no descriptor for it.
    """

    def __init__(self, loop: DrivenLoop, row: Row) -> None:
        self._loop = loop
        self._words = row.words
        self._wakeup = Wakeup()
        self._ticks = select.poll()
        self._ticks.register(self._wakeup, select.POLLIN)
        self._events = select.poll()
        self._events.register(self._wakeup, select.POLLIN)
        self._events.register(loop.fileno(), select.POLLIN)
        self._over = False
        self._condemned = 0  # since when the call lasts that is to be interrupted
        self._alert_until = 0.0
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="background-driver", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._wakeup.close()
            raise
        signal.signal(INTERRUPT, self._interrupted)

    @property
    def ident(self) -> int:
        """What the interpreter calls its thread."""
        return self._thread.ident or 0

    def rouse(self) -> None:
        """From any thread: end its sleep."""
        self._wakeup.notify()

    def stand_back(self) -> None:
        """With the loop lock: the call is over."""
        self._condemned = 0
        self.rouse()

    def close(self) -> None:
        """End the thread."""
        self._over = True
        self.rouse()
        self._thread.join()
        self._wakeup.close()

    def forget(self) -> None:
        """In a child that the application forked, which has no such thread: leave nothing of it."""
        self._over = True
        self._condemned = 0
        self._wakeup.forget()
        if signal.getsignal(INTERRUPT) == self._interrupted:  # else it is the application's own
            signal.signal(INTERRUPT, signal.SIG_DFL)

    def _run(self) -> None:
        while not self._over:
            try:
                if since := self._slow_call():
                    self._drive(since)
            except BaseException as error:  # the main thread comes back and does what is left undone
                self._loop.loop_lock.let_go()
                self._loop.log.exception("a fault in the background driver", error)
                self._loop.loop_lock.taken  # noqa: B018
                try:
                    if self._loop.tended:
                        self._loop.end_tending()
                finally:
                    self._loop.loop_lock.release()

    def _wait(self, poll: select.poll, milliseconds: float | None) -> None:
        wakeup = self._wakeup.fileno()
        if any(number == wakeup for number, _ in poll.poll(milliseconds)):
            self._wakeup.clear()

    def _slow_call(self) -> int:
        """Wait until the main thread is in a slow call; since when (ns), or 0 when all is over."""
        quiet = 0
        while not self._over:
            since = self._words[ROW_WORDS + BUSY_SINCE]
            if since:
                quiet = 0
                if monotonic_ns() - since >= _TICK * 1_000_000:
                    return since
            elif quiet >= _QUIET_TICKS:
                self._doze()
                quiet = 0
                continue
            else:
                quiet += 1
            self._wait(self._ticks, _TICK if monotonic() < self._alert_until else _CALM_TICK)
        return 0

    def _doze(self) -> None:
        # The flag first: a call that begins before it is seen in the words, one that begins later sees the flag.
        self._loop.dozing = True
        if not self._words[ROW_WORDS + BUSY_SINCE]:
            self._wait(self._ticks, None)
        self._loop.dozing = False

    def _drive(self, since: int) -> None:
        """Turn the loop until the call that began at ``since`` is over."""
        loop = self._loop
        loop.loop_lock.taken  # noqa: B018
        try:
            if self._words[ROW_WORDS + BUSY_SINCE] != since:
                return
            self._alert_until = monotonic() + _ALERT_SECONDS
            loop.begin_tending()
            seconds = loop.tend()
        finally:
            loop.loop_lock.release()
        while self._loop.tended and not self._over:
            if self._condemned:
                signal.pthread_kill(self._main, INTERRUPT)
                seconds = _AGAIN if seconds is None else min(seconds, _AGAIN)
            self._wait(self._events, None if seconds is None else math.ceil(seconds * 1000))
            loop.loop_lock.taken  # noqa: B018
            try:
                if self._loop.tended:
                    seconds = loop.tend()
            finally:
                loop.loop_lock.release()

    # Interrupting

    def interrupt(self, since: int) -> None:
        """Have RequestTimeout raised in the call of ``since``, as far as Python can: C code may not notice."""
        self._condemned = since
        self.rouse()

    def _interrupted(self, _signum: int, _frame: FrameType | None) -> None:
        # Outside: the application's own code, not ours in the middle of something. The driver signals until it hits.
        if self._condemned and self._condemned == self._words[ROW_WORDS + BUSY_SINCE] and self._loop.loop_lock.outside:
            self._condemned = 0
            raise RequestTimeout("the request has lasted longer than timeout")
