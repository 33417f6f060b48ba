"""Whether a lock is free."""

from __future__ import annotations

import threading
from typing import Any

from harness import BOUND


def is_free(lock: Any) -> bool:
    """Whether another thread could have it."""
    found: list[bool] = []

    def look() -> None:
        got = bool(lock.acquire(False))
        found.append(got)
        if got:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(BOUND)
    return found[0]
