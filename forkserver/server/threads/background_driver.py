"""The steward: a thread that turns the loop while the application keeps the main thread in a slow call.

It promises that bodies, downloads, deadlines and orders go on meanwhile, and that requests which have come go to idle
siblings. It accepts nothing, for who is accepted would wait; it never runs the application; while nothing is called it
does not wake. It cannot move while C code holds the interpreter's lock.

Source: https://docs.python.org/3/glossary.html#term-global-interpreter-lock.
"""

from __future__ import annotations

import math
import select
import signal
import threading
from time import monotonic, monotonic_ns
from types import FrameType
from typing import TYPE_CHECKING, Final

from forkserver.errors import RequestTimeout
from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS, Row
from forkserver.server.threads.wakeup import Wakeup

if TYPE_CHECKING:
    from forkserver.server.loop.event_loop import Loop

_TICK: Final = 5  # milliseconds; a call that lasts longer is slow
_CALM_TICK: Final = 20  # where none has been slow of late: each look costs the main thread a moment of the lock
_ALERT_SECONDS: Final = 10.0  # after a slow call another one is expected
_AGAIN: Final = 0.05  # seconds between two interruptions of a call that has not heard the first
_PATIENCE: Final = 20  # ticks without a call, then it sleeps until there is one
# Ignored by default and used by hardly any program; a system call that the application waits in ends with it.
INTERRUPT: Final = signal.SIGURG


class BackgroundDriver:
    """The second driver of ``loop``. ``row`` shows it the main thread's call; made in the main thread.

    Raises RuntimeError where no thread can be started, and OSError where there is no descriptor for it.
    """

    def __init__(self, loop: Loop, row: Row) -> None:
        self._loop = loop
        self._words = row.words
        self._bell = Wakeup()
        self._ticks = select.poll()
        self._ticks.register(self._bell, select.POLLIN)
        self._events = select.poll()
        self._events.register(self._bell, select.POLLIN)
        self._events.register(loop.fileno(), select.POLLIN)
        self._over = False
        self._condemned = 0  # since when the call lasts that is to be interrupted
        self._alert_until = 0.0
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="steward", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._bell.close()
            raise
        signal.signal(INTERRUPT, self._interrupted)

    def rouse(self) -> None:
        """From any thread: end the steward's sleep."""
        self._bell.notify()

    def stand_back(self) -> None:
        """From the main thread, with the baton: its call is over."""
        self._loop.tended = False
        self._condemned = 0
        self._loop.acceptor.let_go()
        self.rouse()

    def close(self) -> None:
        """End the thread."""
        self._over = True
        self.rouse()
        self._thread.join()
        self._bell.close()

    def forget(self) -> None:
        """In a child that the application forked, which has no such thread: leave nothing of it."""
        self._over = True
        self._condemned = 0
        self._bell.forget()
        if signal.getsignal(INTERRUPT) == self._interrupted:  # else it is the application's own
            signal.signal(INTERRUPT, signal.SIG_DFL)

    def _run(self) -> None:
        while not self._over:
            try:
                if since := self._slow_call():
                    self._drive(since)
            except Exception as error:  # ours: the main thread comes back and does what is left undone
                self._loop.log.exception("a fault in the steward", error)
                with self._loop.loop_lock:
                    if self._loop.tended:
                        self.stand_back()

    def _wait(self, poll: select.poll, milliseconds: float | None) -> None:
        bell = self._bell.fileno()
        if any(number == bell for number, _ in poll.poll(milliseconds)):
            self._bell.clear()

    def _slow_call(self) -> int:
        """Wait until the main thread is in a slow call; since when (ns), or 0 when all is over."""
        quiet = 0
        while not self._over:
            since = self._words[ROW_WORDS + BUSY_SINCE]
            if since:
                quiet = 0
                if monotonic_ns() - since >= _TICK * 1_000_000:
                    return since
            elif quiet >= _PATIENCE:
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
        with loop.loop_lock:
            if self._words[ROW_WORDS + BUSY_SINCE] != since:
                return
            self._alert_until = monotonic() + _ALERT_SECONDS
            loop.acceptor.hold()
            loop.tended = True
            seconds = loop.tend()
        while self._loop.tended and not self._over:
            if self._condemned:
                signal.pthread_kill(self._main, INTERRUPT)
                seconds = _AGAIN if seconds is None else min(seconds, _AGAIN)
            self._wait(self._events, None if seconds is None else math.ceil(seconds * 1000))
            with loop.loop_lock:
                if self._loop.tended:
                    seconds = loop.tend()

    # Interrupting

    def interrupt(self, since: int) -> None:
        """Have RequestTimeout raised in the call of ``since``, as far as Python can: C code may not hear of it."""
        self._condemned = since
        self.rouse()

    def _interrupted(self, _signum: int, _frame: FrameType | None) -> None:
        # Outside: the application's own code, not ours in the middle of something. The steward signals until it hits.
        if self._condemned and self._condemned == self._words[ROW_WORDS + BUSY_SINCE] and self._loop.loop_lock.outside:
            self._condemned = 0
            raise RequestTimeout("the request has lasted longer than timeout")
