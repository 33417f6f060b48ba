"""When a worker is due for recycling: after ``max_requests`` of its clients, or where it cannot serve any more.

What that leads to is decided above: the worker tells its master, and is retired when another is ready in its place.
Recycling by memory and by age is the master's (master/monitoring).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from forkserver.ipc.scoreboard import REQUESTS, Row
from forkserver.linux.common.counted import count_of
from forkserver.server.connection.timeouts import NEVER

if TYPE_CHECKING:
    from forkserver.config.settings import Settings


class Recycling:
    """Counts against the limit that ``settings`` have. ``on_due`` is called with the reason, once for each."""

    def __init__(self, settings: Settings) -> None:
        self.on_due: Callable[[str], object] | None = None
        self._most: float = NEVER
        if settings.max_requests:  # drawn apart for each worker, so that they are not recycled together
            self._most = settings.max_requests + random.randint(0, settings.max_requests_jitter)

    def check(self, row: Row | None) -> None:
        """Report once that the requests in ``row`` have reached the limit."""
        if row is None or (served := row.words[REQUESTS]) < self._most:
            return
        self._most = NEVER
        self.ask(f"it has served {count_of(served, 'request')}")

    def ask(self, reason: str) -> None:
        """Have the worker replaced for ``reason``, in words, whatever it has served."""
        if self.on_due is not None:
            self.on_due(reason)

    def allow_one_more(self) -> None:
        """``max_requests`` is about the requests of clients; this one is our own."""
        self._most += 1
