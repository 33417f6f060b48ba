"""Repeated errors: how often each reason was reported, so that it is stated once in full and then counted.

The caller forgets the reasons once the service is well again, so the next error is stated in full.
"""

from __future__ import annotations


class RepeatedErrors:
    """How often each reason was counted since it was last forgotten."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.last = 0.0  # when a reason was counted last

    def count(self, reason: str, now: float) -> int:
        """How often ``reason`` was counted before; 0 for a new one, which is to be stated in full."""
        before = self._counts.get(reason, 0)
        self._counts[reason] = before + 1
        self.last = now
        return before

    def known(self, reason: str) -> bool:
        """Whether ``reason`` was counted since it was last forgotten."""
        return reason in self._counts

    def forget(self) -> None:
        """Forget every reason."""
        self._counts.clear()
