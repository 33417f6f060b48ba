"""Application threads: ``--threads N`` runs the application in N of them while the main thread drives the loop.

It promises that whichever thread is free serves the request that has waited longest, and that connections are touched
only with the baton. It refuses to know HTTP. Where the kernel gives fewer threads than wanted, those that there are
serve, and the rest are started later; the loop serves by itself while there is none.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkserver.server.loop.event_loop import Loop


class Pool:
    """Up to ``threads`` threads that serve what stands in ``loop.calls``."""

    def __init__(self, loop: Loop, threads: int) -> None:
        self._loop = loop
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # one for each call; one too many does no harm
        self._threads: list[threading.Thread] = []
        self._wanted = threads
        self.complete = False
        self.fill()

    def __len__(self) -> int:
        return len(self._threads)

    def fill(self) -> None:
        """Start the threads that are missing, as far as they can be had."""
        loop = self._loop
        while len(self._threads) < self._wanted:
            instead = f"{len(self)} of {self._wanted} threads" if self._threads else "one thread"
            thread = loop.threads.try_start(self._start, f"requests are served by {instead}", loop.now)
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
        """There is a call more."""
        if not self.complete:
            self.fill()
        self._tokens.put(True)

    def _run(self, number: int) -> None:
        loop = self._loop
        loop.request_deadline.enlist(number)
        while self._tokens.get():
            with loop.loop_lock:
                if loop.calls:
                    loop.call_next(number)
            if loop.forked:
                return  # it has come back from a call in a child of the worker's, and is all there is of it

    def close(self) -> None:
        """End the threads, after what they have in hand."""
        for _ in self._threads:
            self._tokens.put(False)
        for thread in self._threads:
            thread.join()
