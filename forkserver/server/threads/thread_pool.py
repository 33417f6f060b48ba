"""Application threads: ``--threads N`` runs the application in N of them while the main thread turns the loop.

The first thread that is free serves the request that has waited longest (``serve_next``); connections are touched only
with the loop lock. Where the kernel gives fewer threads than wanted, those that there are serve, and the rest are
started later; the loop serves by itself while there is none.

No exception ends a thread. A time limit that is kept by another thread (PyThreadState_SetAsyncExc) may come when the
call is over, and so between two steps of this module: then ``recover`` sees to what is left undone. Where three come
one upon the other the thread may end; ``wake`` has the loop call ``fill``, which starts one in its place, and that one
recovers. Only the loop's thread starts threads, for no exception comes there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from forkserver.server.threads.thread_starter import ThreadStarter


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
        self.fill()

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def complete(self) -> bool:
        """Whether all threads that are wanted are there."""
        return len(self._threads) == self._wanted and not self._lost

    def fill(self) -> None:
        """Start the threads that are missing, as far as they can be had."""
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
        over = False
        try:
            while not over:
                try:
                    while not over:  # twice: at the end of each round comes what its own ``try`` does not catch
                        try:
                            if fault is not None:
                                raised, fault = fault, None
                                over = not self._go_on(number, raised)
                            over = over or self._serve(number)
                        except BaseException as error:
                            fault = error
                except BaseException as error:
                    fault = error
        finally:
            if not over:
                self._lost.append(number)  # first, for nothing comes before this is done
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
