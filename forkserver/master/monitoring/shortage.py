"""A time in which the kernel refuses processes or descriptors: told when it begins, counted, and told when it is over.

In such a time refusals and successes take turns, for each process that ends makes room for another. So a success ends
nothing: the shortage is over when nothing was refused for ``QUIET_SECONDS``. A reason of the kernel's is stated once in
a shortage, with its figures. Its number is told when the shortage has lasted twice as long as the last time.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from forkserver.linux.common.counted import count_of
from forkserver.master.model.lifecycle import NEVER

QUIET_SECONDS: Final = 10.0  # longer than the longest wait for the next try, backoff.LAST_FORK_DELAY
_FIRST_SECONDS: Final = 0.25  # until a number is told: several that fail in one try are no news


class ProcessShortage:
    """Refusals by reason. ``why`` is the last one, empty where there is no shortage.

    ``next_look`` is when ``over`` has something to say.
    """

    def __init__(self) -> None:
        self.next_look = NEVER
        self.why = ""
        self._since = 0.0
        self._told_again = 0.0  # seconds after ``_since`` from which on a number is told
        self._reasons: Counter[str] = Counter()

    def refused(self, why: str, now: float) -> str:
        """Count a refusal; returns what is to be said of it, empty for nothing.

        ``why`` is ``WHAT: REASON (FIGURES)``, of which the reason is counted.
        """
        if not self.why:
            self._since, self._told_again = now, _FIRST_SECONDS
        self.why, self.next_look = why, now + QUIET_SECONDS
        reason = why.partition(": ")[2].partition(" (")[0] or why
        self._reasons[reason] += 1
        before = self._reasons[reason] - 1
        if not before:
            return why
        if now - self._since < self._told_again:
            return ""
        self._told_again = 2 * (now - self._since)
        return f"the same again, {count_of(before, 'time')}"

    def over(self, now: float) -> str:
        """That it is over, in words; empty where it is not, or where there was none."""
        if now < self.next_look:
            return ""
        lasted = self.next_look - QUIET_SECONDS - self._since
        times = f"{count_of(self._reasons.total(), 'time')} within {lasted:.1f} s"
        self.next_look, self.why = NEVER, ""
        self._reasons.clear()
        return f"new processes are given again: refused {times}, and not in the last {QUIET_SECONDS:g} s"
