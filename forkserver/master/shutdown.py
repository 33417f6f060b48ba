"""How the service ends: gracefully after a delay, gracefully, or at once.

A second request to stop is quick. `timeout` and some process managers send one signal twice, to the master and to its
process group, so what follows the first within ``GROUP_SECONDS`` is the same request. A graceful stop resets no client
that has begun to connect, and draining goes on until a stop. The rollout notes the stop, and
the plan ends the processes.
"""

from __future__ import annotations

from typing import Final

from forkserver.linux.sockets.listening_socket import SYN_SECONDS
from forkserver.master.actions import Actions
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.rollout import Rollout
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.resources import Resources

GROUP_SECONDS: Final = 0.5  # within which one request reaches every process that it is sent to


class Shutdown:
    """What begins a stop, and what must be done on the way."""

    def __init__(
        self, resources: Resources, rollout: Rollout, reporter: Reporter, actions: Actions, table: WorkerTable
    ) -> None:
        self._resources = resources
        self._fleet = rollout.fleet
        self._rollout = rollout
        self._reporter = reporter
        self._actions = actions
        self._table = table
        self._asked = "", -NEVER  # by what, and when

    def ask(self, sender: str, now: float, by: str = "", wait: bool = True) -> None:
        """The first request stops gracefully, the second quickly. ``sender`` is for the log.

        With ``wait`` the stop begins after ``drain_delay``, so that load balancers notice. ``by`` is the signal: what
        comes by the same one in the same moment is the same request.
        """
        fleet, rollout = self._fleet, self._rollout
        if fleet.in_debugger:  # its call would end at its next word only
            self.quickly(f"{sender}, while a debugger is in use", now)
            return
        delay = self._table.in_force.drain_delay if wait else 0.0
        if fleet.departing:
            first, since = self._asked
            if by != first or now >= since + GROUP_SECONDS:
                self.quickly(f"second request, {sender}", now)
            return
        self._asked = by, now
        if delay and rollout.serving_generation and not fleet.draining:
            self._reporter.draining(sender, delay)
            rollout.drain(now + delay)
            self._actions.drain()
        else:
            self._reporter.finishing(sender)
            self._begin(now)

    def quickly(self, why: str, now: float) -> None:
        """Stop at once."""
        if not self._fleet.quick:
            self._reporter.stopping(f"{why}; at once")
            self._rollout.stop_quickly(now)

    def drain(self, sender: str) -> None:
        """Serve on with ``Connection: close``, until a stop is asked for."""
        unfinished = self._rollout.reloading or self._rollout.reload_wanted
        self._rollout.drain(NEVER)
        self._actions.drain()
        self._reporter.serving_on(sender, unfinished)

    def proceed(self, now: float) -> bool:
        """Begin the stop that was put off, when its time has come; whether every worker is to leave now."""
        fleet = self._fleet
        if now >= fleet.stop_at:
            self._resources.log.info("drain_delay is over; finishing open requests")
            self._begin(now)
        leaving = fleet.stopping and (fleet.quick or now >= fleet.retire_at)
        if leaving:
            self._resources.refuse_arrivals(unix=True)
        return leaving

    def _begin(self, now: float) -> None:
        # A client that has begun to connect gets into a queue and is served; closing the listener would reset it.
        filtered = self._resources.refuse_arrivals(unix=False)
        self._rollout.stop(now, now + SYN_SECONDS if filtered else now)
