"""Application threads: ``--threads N`` runs the application in N of them while the main thread turns the loop.

The first thread that is free serves the request that has waited longest (``serve_next``); connections are touched only
with the loop lock. Where the kernel gives fewer threads than wanted, those that there are serve, and the rest are
started later; the loop serves by itself while there is none.

No exception ends a thread. A time limit that is kept by another thread (PyThreadState_SetAsyncExc) may come when the
call is over, and so between two steps of this module: then ``recover`` sees to what is left undone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from forkserver.server.threads.thread_starter import ThreadStarter


class Pool:
    """Up to ``threads`` threads; each calls ``enlist(number)`` once, then ``serve_next(number)`` while that is true.

    What is raised there, or while a thread waits, is given to ``recover(number, error)``; true: the thread goes on.
    ``clock`` gives seconds for ``starter``.
    """

    def __init__(
        self,
        threads: int,
        starter: ThreadStarter,
        clock: Callable[[], float],
        enlist: Callable[[int], object],
        serve_next: Callable[[int], bool],
        recover: Callable[[int, BaseException], bool],
    ) -> None:
        self._starter = starter
        self._clock = clock
        self._enlist = enlist
        self._serve_next = serve_next
        self._recover = recover
        self._closing = False
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # one for each call; one too many does no harm
        self._threads: list[threading.Thread] = []
        self._wanted = threads
        self.complete = False
        self.fill()

    def __len__(self) -> int:
        return len(self._threads)

    def fill(self) -> None:
        """Start the threads that are missing, as far as they can be had."""
        while len(self._threads) < self._wanted:
            instead = f"{len(self)} of {self._wanted} threads" if self._threads else "one thread"
            thread = self._starter.try_start(self._start, f"requests are served by {instead}", self._clock())
            if thread is None:
                return
            self._threads.append(thread)
        self.complete = True

    def _start(self) -> threading.Thread:
        number = len(self._threads)
        thread = threading.Thread(target=self._run, args=(number,), name=f"app-{number}", daemon=True)
        thread.start()
        return thread

    def submit(self) -> None:
        """Let a thread serve one request more."""
        if not self.complete:
            self.fill()
        self._tokens.put(True)

    def _run(self, number: int) -> None:
        self._enlist(number)
        fault: BaseException | None = None
        goes_on = True
        while goes_on:  # another exception may come in ``recover``, so that is within the try statement, too
            try:
                if fault is None:
                    goes_on = self._tokens.get() and self._serve_next(number)
                else:
                    raised, fault = fault, None
                    self._tokens.put(True)  # it may have taken one
                    goes_on = self._recover(number, raised) and not self._closing
            except BaseException as error:
                fault = error

    def close(self) -> None:
        """End the threads, after what they have in hand."""
        self._closing = True
        for _ in self._threads:
            self._tokens.put(False)
        for thread in self._threads:
            thread.join()
