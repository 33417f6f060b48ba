"""Application threads: ``--threads N`` runs the application in N of them while the main thread drives the loop.

It promises that whichever thread is free serves the request that has waited longest, and that connections are touched
only with the baton. It refuses to know HTTP.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkserver.serving.loop import Loop


class Pool:
    """``threads`` threads that serve what stands in ``loop.calls``."""

    def __init__(self, loop: Loop, threads: int) -> None:
        self._loop = loop
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # one for each call; one too many does no harm
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"app-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self) -> None:
        """There is a call more."""
        self._tokens.put(True)

    def _run(self, number: int) -> None:
        loop = self._loop
        loop.allowance.enlist(number)
        while self._tokens.get():
            with loop.baton:
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
