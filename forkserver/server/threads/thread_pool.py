"""Application threads: ``--threads N`` runs the application in N of them while the main thread turns the loop.

The first thread that is free serves the request that has waited longest (``serve_next``); connections are touched only
with the loop lock. Where the kernel gives fewer threads than wanted, those that there are serve, and the rest are
started later; the loop serves by itself while there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from forkserver.server.threads.thread_starter import ThreadStarter


class Pool:
    """Up to ``threads`` threads; each calls ``enlist(number)`` once, then ``serve_next(number)`` while that is true.

    ``clock`` gives seconds for ``starter``.
    """

    def __init__(
        self,
        threads: int,
        starter: ThreadStarter,
        clock: Callable[[], float],
        enlist: Callable[[int], object],
        serve_next: Callable[[int], bool],
    ) -> None:
        self._starter = starter
        self._clock = clock
        self._enlist = enlist
        self._serve_next = serve_next
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
        while self._tokens.get() and self._serve_next(number):
            pass

    def close(self) -> None:
        """End the threads, after what they have in hand."""
        for _ in self._threads:
            self._tokens.put(False)
        for thread in self._threads:
            thread.join()
