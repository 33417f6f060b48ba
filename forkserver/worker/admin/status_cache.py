"""The status of the service as the admin process has it: asked of the master at most four times a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from forkserver.ipc.status_channel import NoStatusError
from forkserver.linux.syscalls import monotonic

FRESH_SECONDS: Final = 0.25
WAIT_SECONDS: Final = 2.0  # for the master to answer


class StatusCache:
    """``ask(seconds)`` asks the master and waits so long, but not where it owes an answer; ``clock`` gives seconds."""

    def __init__(self, ask: Callable[[float], dict[str, Any]], clock: Callable[[], float] = monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._status: dict[str, Any] = {}
        self._error: NoStatusError | None = None
        self._until = -1.0

    def get(self) -> dict[str, Any]:
        """The status, at most ``FRESH_SECONDS`` old. Raises NoStatusError."""
        if self._clock() >= self._until:
            self._renew()
        if self._error is not None:
            raise self._error
        return self._status

    def _renew(self) -> None:
        try:
            self._status, self._error = self._ask(WAIT_SECONDS), None
        except NoStatusError as error:
            self._error = error
        self._until = self._clock() + FRESH_SECONDS
