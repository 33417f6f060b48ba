"""What has been complained of, so that the same reason is stated once and then counted.

It promises that a reason comes up whole again once things have been well in between. It refuses to know words.
"""

from __future__ import annotations


class RepeatedErrors:
    """How often each reason has been heard of late."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.last = 0.0  # when something was complained of last

    def count(self, reason: str, now: float) -> int:
        """How often ``reason`` was heard before; 0 for one that is new, and is to be stated whole."""
        before = self._counts.get(reason, 0)
        self._counts[reason] = before + 1
        self.last = now
        return before

    def known(self, reason: str) -> bool:
        """Whether ``reason`` was heard of late."""
        return reason in self._counts

    def forget(self, reason: str | None = None) -> None:
        """``reason``, or each, is no cause any more."""
        if reason is None:
            self._counts.clear()
        else:
            self._counts.pop(reason, None)
