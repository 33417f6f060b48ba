"""Counts answers in the worker's row of the scoreboard; in a script nowhere."""

from __future__ import annotations

from forkserver.ipc.scoreboard import Row


class AnswerCounter:
    """Counts in ``row``."""

    __slots__ = ("_row",)

    def __init__(self, row: Row | None) -> None:
        self._row = row

    def add(self, status: int, size: int, request_size: int = 0) -> None:
        """An answer with a body of ``size`` bytes was given to a request with one of ``request_size``."""
        if self._row is not None:
            self._row.answer(status, size, request_size)

    def forget(self) -> None:
        """In a child that the application forked: the row is the worker's."""
        self._row = None
