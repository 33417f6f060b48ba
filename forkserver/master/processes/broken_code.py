"""What is done about code that does not load while it is written, beside that what served before serves on.

A first start that fails is followed by a generation of forkserver's own (waiting.py) where files are watched: it serves
until a file has changed and the application loads. So is the end of the last worker, where a reload has failed and the
files on disk are all that a new one could load. Workers that serve meanwhile are told why the newest code does not
load, or why the settings of a reload do not, for the page that they show to browsers of this machine (error_page.py).
"""

from __future__ import annotations

from typing import Final

from forkserver.config import settings as settings_table
from forkserver.errors import LoadError
from forkserver.ipc import messages
from forkserver.master.model.events import Event, EventKind
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import Worker
from forkserver.master.model.rollout import Rollout
from forkserver.master.processes.launcher import Launcher
from forkserver.master.processes.processes import Processes
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.resources import Resources
from forkserver.worker.development import waiting

# Settings of the application that the waiting generation does not have.
_OF_THE_APPLICATION: Final = (
    "app", "preload", "hooks", "ready_path", "warm_path", "server_class", "handler_class", "log_config",
    "pythonpath", "chdir",
)  # fmt: skip
_BROKEN: Final = (EventKind.NEVER_STARTED, EventKind.REFUSED, EventKind.WENT_BACK, EventKind.MIXED, EventKind.NONE_LEFT)
_NOTHING: Final = messages.ShowFailure(True, "", "")


class BrokenCode:
    """Hears of events of generations; ``launcher`` begins the one that waits."""

    def __init__(
        self,
        resources: Resources,
        rollout: Rollout,
        processes: Processes,
        launcher: Launcher,
        reporter: Reporter,
    ) -> None:
        self._resources = resources
        self._rollout = rollout
        self._poller, _, _, self._table = processes
        self._launcher = launcher
        self._reporter = reporter
        self._failure: messages.ShowFailure | None = None  # of the newest code
        self._failed = 0  # its generation
        self._told: dict[Worker, messages.ShowFailure] = {}

    def waits(self, event: Event) -> bool:
        """Whether ``event`` leaves no code that serves, and a change of files may fix that: then it is waited for.

        A name that leads nowhere in a first start is a fault of the command.
        """
        settings, first = self._resources.settings, event.kind is EventKind.NEVER_STARTED
        if settings.reload_on_change == "off" or not (first or event.kind is EventKind.NONE_LEFT):
            return False
        if first and (event.why.exit_status != LoadError.exit_status or self._rollout.waiting_generation):
            return False
        ours = settings_table.defaults(app=waiting.NAME, preload="off")
        waits = settings.with_values_of(ours, _OF_THE_APPLICATION)
        self._rollout.waiting_generation = self._launcher.begin(Purpose.START, waits)
        reason, details = event.why.reason, self._reporter.untold(event.why.reason, event.why.details)
        self._reporter.reloads.none_left(f"not loaded: {reason}")
        self._resources.log.error(f"not loaded: {reason}; waiting until a file of it changes", details=details)
        return True

    def tell(self, event: Event) -> None:
        """Note what is to be shown after ``event``."""
        if event.kind in _BROKEN:
            self._show(event.generation, event.why.reason, event.why.details)
        elif event.kind is EventKind.SERVES and not self._rollout.waiting:
            self._failure = None

    def settings_refused(self, reason: str) -> None:
        """A reload has failed before any code was loaded: its settings are wrong."""
        self._show(self._rollout.last_generation, f"the settings cannot be loaded: {reason}", "")
        self.told()

    def _show(self, generation: int, reason: str, details: str) -> None:
        """Have all that serves show this, but code that is newer than ``generation``."""
        waiting, current = self._rollout.waiting_generation, self._rollout.current
        loaded = not waiting or (waiting < current and not self._rollout.waits(current))
        self._failure = messages.ShowFailure(loaded, reason, details)
        self._failed = generation
        self.turn()

    def told(self) -> None:
        """The log has what is wrong with the newest code; of code that is being written it tells that each time."""
        if self._failure is not None and self._resources.settings.reload_on_change == "on":
            self._reporter.forget_errors()

    def turn(self) -> None:
        """Have each worker that serves older code show what is wrong with the newest."""
        if self._failure is None and not self._told:
            return
        told, self._told = self._told, {}
        for worker in self._rollout.fleet.serving():
            waits = self._rollout.waits(worker.generation)
            if worker.generation > self._failed and not waits:
                continue  # newer code, which loads
            if self._table.settings_of(worker).error_page == "off":
                continue
            if told.get(worker) is not self._failure:
                self._poller.order(worker, self._failure or _NOTHING)
            if self._failure is not None:
                self._told[worker] = self._failure
