"""Application threads: ``--threads N`` runs the application in N of them while the main thread drives the loop.

It promises that a connection is touched by one thread at a time: the loop lets go of it, a thread serves it, the loop
takes it back. It refuses to know HTTP.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkserver.serving.connection import Connection
    from forkserver.serving.loop import Loop


class Pool:
    """``threads`` threads that serve connections in the order they were submitted."""

    def __init__(self, loop: Loop, threads: int) -> None:
        self._loop = loop
        self._queue: SimpleQueue[Connection | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"app-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, connection: Connection) -> None:
        """Have the application called for ``connection``."""
        self._queue.put(connection)

    def _run(self, number: int) -> None:
        while (connection := self._queue.get()) is not None:
            try:
                connection.serve(number)
            except BaseException:  # a hook's, or ours: it costs this connection, never the thread
                connection.persistent = False
                try:
                    self._loop.server.handle_error(connection.sock, connection.peer)
                except BaseException as error:
                    self._loop.log.exception("handle_error raised", error)
            self._loop.give_back(connection)

    def close(self) -> None:
        """Let the threads end after what they have in hand."""
        for _ in self._threads:
            self._queue.put(None)
