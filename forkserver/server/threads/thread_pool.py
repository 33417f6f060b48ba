"""Application threads: ``--threads N`` runs the application in N of them while the main thread turns the loop.

The first thread that is free serves the request that has waited longest (``serve_next``); connections are touched only
with the loop lock. Where the kernel gives fewer threads than wanted, those that there are serve, and the rest are
started later; the loop serves by itself while there is none.

No exception ends a thread. A time limit that is kept by another thread (PyThreadState_SetAsyncExc) may come when the
call is over, and so between two steps of this module: then ``recover`` sees to what is left undone. Where three come
one upon the other the thread may end; ``wake`` has the loop call ``fill``, which starts one in its place, and that one
recovers. A thread that has ended without a word is missed by ``fill`` while requests wait, once a second. Only the
loop's thread starts threads, for no exception comes there.

Since CPython 3.12 the way back to a condition (``while not over``) lies outside the ``try`` around the loop: what comes
there passes by its handlers. So the loops that catch have none; ``tests/harness/way_back.py`` looks at the code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import repeat
from queue import SimpleQueue
from typing import Final

from forkserver.server.threads.thread_starter import ThreadStarter

LOOK_SECONDS: Final = 1.0  # between two looks for threads that have ended without a word


class Pool:
    """Up to ``threads`` threads; each calls ``enlist(number)`` once, then ``serve_next(number)`` while that is true.

    What is raised there, or while a thread waits, is given to ``recover(number, error)``; true: the thread goes on.
    ``clock`` gives seconds for ``starter``; ``wake`` has ``fill`` called soon.
    """

    def __init__(
        self,
        threads: int,
        starter: ThreadStarter,
        clock: Callable[[], float],
        enlist: Callable[[int], object],
        serve_next: Callable[[int], bool],
        recover: Callable[[int, BaseException], bool],
        wake: Callable[[], object],
    ) -> None:
        self._starter = starter
        self._clock = clock
        self._enlist = enlist
        self._serve_next = serve_next
        self._recover = recover
        self._wake = wake
        self._closing = False
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # one for each call; one too many does no harm
        self._threads: list[threading.Thread] = []
        self._wanted = threads
        self._lost: list[int] = []  # numbers of threads that have ended all the same
        self.look_at = clock()  # when ``fill`` next looks for threads that have ended
        self.fill()

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def complete(self) -> bool:
        """Whether all threads that are wanted are there."""
        return len(self._threads) == self._wanted and not self._lost

    def fill(self) -> None:
        """Start the threads that are missing, as far as they can be had."""
        self._look_for_ended()
        while not self.complete:
            instead = f"{len(self)} of {self._wanted} threads" if self._threads else "one thread"
            number = self._lost[-1] if self._lost else len(self)
            start = partial(self._start, number, RuntimeError("it has ended its thread") if self._lost else None)
            thread = self._starter.try_start(start, f"requests are served by {instead}", self._clock())
            if thread is None:
                return
            if self._lost:
                self._lost.remove(number)
                self._threads[number] = thread
            else:
                self._threads.append(thread)

    def _look_for_ended(self) -> None:
        """Miss the threads that have not said that they end: an exception came before their first step, or the last."""
        if (now := self._clock()) < self.look_at:
            return
        self.look_at = now + LOOK_SECONDS
        ended = (number for number, thread in enumerate(self._threads) if not thread.is_alive())
        self._lost += [number for number in ended if number not in self._lost]

    def _start(self, number: int, fault: BaseException | None) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(number, fault), name=f"app-{number}", daemon=True)
        thread.start()
        return thread

    def submit(self) -> None:
        """Let a thread serve one request more."""
        if not self.complete:
            self.fill()
        self.wake_one()

    def wake_one(self) -> None:
        """Let one of the threads that there are serve one request more."""
        self._tokens.put(True)

    def _run(self, number: int, fault: BaseException | None) -> None:
        over, raised = False, fault
        try:
            for _ in repeat(None):
                try:
                    for _ in repeat(None):  # twice: at the end of each round comes what its own ``try`` does not catch
                        try:
                            if fault is not None:
                                raised, fault = fault, None
                                over = not self._go_on(number, raised)
                            raised = None  # it holds what it came through: connections, and their sockets
                            over = over or self._serve(number)
                            if over:
                                return
                        except BaseException as error:
                            fault = error
                except BaseException as error:
                    fault = error
        finally:
            if not over:
                try:
                    self._lost.append(number)  # first, for nothing comes before this is done
                finally:
                    self._wake()

    def _go_on(self, number: int, raised: BaseException) -> bool:
        """See to what ``raised`` has left undone; whether to go on."""
        self._tokens.put(True)  # it may have taken one
        return self._recover(number, raised) and not self._closing

    def _serve(self, number: int) -> bool:
        """Serve until the thread is to end, and give True."""
        self._enlist(number)
        while self._tokens.get() and self._serve_next(number):
            pass
        return True

    def close(self) -> None:
        """End the threads, after what they have in hand."""
        self._closing = True
        for _ in self._threads:
            self._tokens.put(False)
        for thread in self._threads:
            thread.join()
