"""The worker table: the scoreboard row of each worker, and what its generation runs by.

Status, timeouts, recycling and the memory watch ask it. Rows are leased here and given back here, and the number of
workers that serve is written to the scoreboard with each change.
"""

from __future__ import annotations

from typing import Final

from forkserver.config.settings import SURPLUS, Settings
from forkserver.ipc import scoreboard
from forkserver.ipc.scoreboard import Row
from forkserver.master.model.lifecycle import UNHEARING, State, Worker
from forkserver.master.model.rollout import Rollout
from forkserver.master.resources.generation_config import GenerationConfig, GenerationConfigs, GenerationConfigsSnapshot
from forkserver.master.resources.resources import Resources

_ROW_STATES: Final = {
    State.ORDERED: scoreboard.STARTING,
    State.STARTING: scoreboard.STARTING,
    State.SERVING: scoreboard.SERVING,
}


class WorkerTable:
    """Rows by worker, and configurations by generation."""

    def __init__(self, resources: Resources, rollout: Rollout) -> None:
        self._resources = resources
        self._rollout = rollout
        self._fleet = rollout.fleet
        self._configs = GenerationConfigs(resources.board)
        self._rows: dict[Worker, Row] = {}

    def snapshot(self) -> list[GenerationConfigsSnapshot]:
        """What the next program is told."""
        return self._configs.snapshot(self._fleet.generations)

    def restore(self, snapshot: list[GenerationConfigsSnapshot]) -> None:
        """Go on with the configurations and rows of the program before."""
        self._configs.restore(snapshot, self._rollout.current, self._resources.tls_of)
        self._rows = {worker: self.config(worker.generation).board.keep(worker.row) for worker in self._fleet.workers}

    # Generations

    def config(self, generation: int) -> GenerationConfig:
        """What ``generation`` runs by."""
        return self._configs[generation]

    def settings_of(self, worker: Worker) -> Settings:
        """The settings that ``worker`` runs by."""
        return self._configs[worker.generation].settings

    def add(self, generation: int, config: GenerationConfig) -> None:
        """Note what ``generation`` runs by; what is known of generations that have ended is forgotten."""
        self._configs.add(generation, config, self._fleet.generations, self._resources.board)

    @property
    def in_force(self) -> Settings:
        """What workers run by, not what a reload has brought that was refused since."""
        current = self._rollout.current
        return self._configs[current].settings if current else self._resources.settings

    @property
    def most_workers(self) -> int:
        """How many workers the settings allow, and the scoreboard has room for while they are replaced."""
        return min(self.in_force.most_workers, self._configs.fewest_rows(self._fleet.generations) // SURPLUS)

    # Rows

    def __getitem__(self, worker: Worker) -> Row:
        """The row in which ``worker`` writes what it does."""
        return self._rows[worker]

    def lease(self, slot: int, generation: int) -> Row | None:
        """A row for a worker to come; None where every row is taken. ``put`` or ``give_back`` follows."""
        row = self._configs[generation].board.lease()
        if row is not None:
            row.set(scoreboard.SLOT, slot)
            row.set(scoreboard.GENERATION, generation)
        return row

    def give_back(self, generation: int, row: Row) -> None:
        """``row`` is not used after all."""
        self._configs[generation].board.release(row)

    def put(self, worker: Worker, row: Row) -> None:
        """``row`` is that of ``worker``."""
        self._rows[worker] = row

    def show(self, worker: Worker) -> None:
        """Show the worker's pid and state on the scoreboard."""
        row = self._rows[worker]
        row.set(scoreboard.PID, worker.pid)
        row.set(scoreboard.STATE, _ROW_STATES.get(worker.state, scoreboard.DRAINING))
        self._count()

    def release(self, worker: Worker) -> None:
        """``worker`` has ended: its row is free."""
        self.give_back(worker.generation, self._rows.pop(worker))
        self._count()

    def _count(self) -> None:
        self._resources.board.serving = self._fleet.serving_count

    # What is watched

    def watched_calls(self) -> list[tuple[Worker, Row, float]]:
        """The workers that may be in a call, each with its row and how many seconds a call may last."""
        return [(worker, self._rows[worker], self.settings_of(worker).timeout) for worker in self._in_calls()]

    def logged_calls(self) -> list[tuple[Worker, Row, float]]:
        """As ``watched_calls``, but each with how many seconds a call may last until it is logged; 0 for no log."""
        return [(worker, self._rows[worker], self.settings_of(worker).slow_log) for worker in self._in_calls()]

    def _in_calls(self) -> list[Worker]:
        states = (State.SERVING, *UNHEARING, State.DRAINING)
        return [worker for worker in self._fleet.workers if worker.state in states]

    def watched_sizes(self, now: float) -> list[tuple[Worker, int]]:
        """The workers that serve and are not due for recycling, each with the bytes of memory that it may have."""
        return [
            (worker, self.settings_of(worker).max_worker_memory)
            for worker in self._fleet.serving()
            if worker.recycle_at > now
        ]
