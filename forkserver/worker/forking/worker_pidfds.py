"""The workers of a template, as it knows them: a pidfd each, readable once the worker has ended.

Source: pidfd_open(2).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable

from forkserver.linux import syscalls


class WorkerPidfds:
    """Pidfds of workers that have not ended, as far as was looked."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, numbers: Iterable[int]) -> None:
        self.numbers += numbers

    def forget_ended(self, ready: Iterable[int]) -> None:
        """Close those among ``ready``, which are readable."""
        for number in set(ready).intersection(self.numbers):
            self.numbers.remove(number)
            os.close(number)

    def wait(self, seconds: float) -> None:
        """Wait until all workers have ended, at most so long."""
        over = syscalls.clock() + seconds
        while self.numbers and (left := over - syscalls.clock()) > 0:
            poll = select.poll()
            for number in self.numbers:
                poll.register(number, select.POLLIN)
            self.forget_ended(number for number, _ in poll.poll(left * 1000))

    def kill(self) -> int:
        """Kill the workers that have not ended, and return how many these are."""
        for number in self.numbers:
            syscalls.kill_exactly(number, signal.SIGKILL)
        return len(self.numbers)

    def close(self) -> None:
        """Close all, in a child."""
        for number in self.numbers:
            os.close(number)
        self.numbers = []
