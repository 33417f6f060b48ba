"""The callers that wait for the end of a reload, and how the last reload went.

A question waits for the next reload that begins, and then for that reload's generation. It is answered once: when that
generation or a later one serves, when it fails, or when the service stops. The reporter tells of these events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Reply = Callable[[dict[str, Any]], object]


class ReloadWaiters:
    """``last_failure`` is why the last reload or upgrade was refused, in words; empty once another reload has begun.

    Where no code is left that loads, it is why.
    """

    def __init__(self) -> None:
        self.last_failure = ""
        self._asked: list[Reply] = []  # for a reload that has not begun
        self._waiting: dict[int, list[Reply]] = {}  # by generation
        self._latest = 0  # generation that a reload has begun

    @property
    def waiting(self) -> int:
        """How many wait, or have waited and gone."""
        return len(self._asked) + sum(map(len, self._waiting.values()))

    def wait(self, reply: Reply) -> None:
        """Have ``reply`` called with the end of the next reload that begins."""
        self._asked.append(reply)

    def began(self, generation: int) -> None:
        """A reload has read the settings, and brings ``generation``."""
        self._waiting[generation], self._asked = self._asked, []
        self._latest = generation
        self.last_failure = ""

    def refused(self, why: str) -> None:
        """The settings to reload with are wrong: no generation was begun."""
        asked, self._asked = self._asked, []
        _answer_failed(asked, why, "")
        self.last_failure = why

    def upgrade_refused(self, why: str) -> None:
        """The next program cannot take over; callers that wait for a reload go on waiting."""
        self.last_failure = why

    def none_left(self, why: str) -> None:
        """No code serves, and none loads: what a reload of before has left to serve is not true any more."""
        self.last_failure = why

    def failed(self, generation: int, why: str, details: str) -> None:
        """``generation`` does not serve: why, in a sentence, and its traceback.

        This may be heard after the next reload has begun, which is then the last one.
        """
        _answer_failed(self._waiting.pop(generation, ()), why, details)
        if generation >= self._latest:
            self.last_failure = why

    def serves(self, generation: int, how: str) -> None:
        """No answer comes from before ``generation`` any more."""
        for number in [each for each in self._waiting if each <= generation]:
            for reply in self._waiting.pop(number):
                reply({"ok": True, "generation": generation, "text": how})

    def stop(self, why: str) -> None:
        """Nothing begun will come to an end."""
        waiting = [*self._asked, *(reply for replies in self._waiting.values() for reply in replies)]
        self._asked, self._waiting = [], {}
        for reply in waiting:
            reply({"ok": False, "error": why})


def _answer_failed(waiting: Iterable[Reply], why: str, details: str) -> None:
    for reply in waiting:
        reply({"ok": False, "error": why, "details": details})
