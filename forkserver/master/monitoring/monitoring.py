"""What the master watches in its workers, and what it counts of them."""

from __future__ import annotations

from typing import Any

from forkserver.master.model.lifecycle import Worker
from forkserver.master.monitoring.exit_causes import OutOfMemory
from forkserver.master.monitoring.memory import LOOK_SECONDS, MemoryWatch
from forkserver.master.monitoring.request_timeouts import RequestTimeouts, TimedOutRequest
from forkserver.master.monitoring.slow_requests import Key, SlowRequest, SlowRequests
from forkserver.master.monitoring.standstill import Standstill
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.processes.worker_table import WorkerTable


class Monitoring:
    """Watches the workers of ``table``."""

    def __init__(self, table: WorkerTable, statistics: Statistics, out_of_memory: OutOfMemory) -> None:
        self._table = table
        self.statistics = statistics
        self.out_of_memory = out_of_memory
        self.timeouts = RequestTimeouts()
        self.slow = SlowRequests()
        self._memory = MemoryWatch()
        self._standstill = Standstill()

    @property
    def next_look(self) -> float:
        """When ``standing_still``, ``timed_out``, ``passed_slow_log`` or ``grown`` may have something to say."""
        return min(self.timeouts.next_look, self.slow.next_look, self._memory.next_look, self._standstill.next_look)

    def began_to_serve(self, worker: Worker, now: float) -> None:
        """Watch ``worker`` from now on."""
        settings = self._table.settings_of(worker)
        self.timeouts.next_look = min(self.timeouts.next_look, now + settings.timeout)
        if settings.slow_log:
            self.slow.next_look = min(self.slow.next_look, now + settings.slow_log)
        self._memory.next_look = min(self._memory.next_look, now + LOOK_SECONDS)

    def standing_still(self, now: float) -> list[tuple[Worker, str]]:
        """Workers that stand still, and how; each is named once. To be asked before ``timed_out``, when that is due."""
        if now < min(self.timeouts.next_look, self._standstill.next_look):
            return []
        return self._standstill.look(self._table.watched_calls(), now)

    def timed_out(self, now: float) -> list[TimedOutRequest]:
        """Calls that last too long; each is named once."""
        if now < self.timeouts.next_look:
            return []
        found = self.timeouts.look(self._table.watched_calls(), now)
        for call in found:
            self.statistics.hung(call.worker)
        return found

    def passed_slow_log(self, now: float) -> list[Key]:
        """Calls that their workers are to log, because they have passed ``slow_log``, or twice as much again."""
        return [] if now < self.slow.next_look else self.slow.look(self._table.logged_calls(), now)

    def unseen_slow_calls(self, now: float) -> list[SlowRequest]:
        """Those that their workers were to log and have not; each is named once."""
        return self.slow.unseen(self._table.logged_calls, now)

    def slow_requests(self, now: float) -> list[dict[str, Any]]:
        """The last ones as plain values, newest first."""
        self.slow.settle(self._table.logged_calls())
        return self.slow.listed(now)

    def grown(self, now: float) -> list[tuple[Worker, str]]:
        """Workers that have more memory than they may, and why they are due for recycling, in words."""
        return [] if now < self._memory.next_look else self._memory.look(self._table.watched_sizes(now), now)
