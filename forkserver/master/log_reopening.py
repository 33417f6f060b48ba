"""Reopening the log files (USR1, log rotation): every process gets the new descriptors, and says when it uses them.

A rotation may compress the old files once no process writes to them, so the master logs that when the last process of
those that were told has answered, or has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from forkserver.ipc import messages
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.master.model.lifecycle import Process, State
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.resources import Resources


class LogReopening:
    """``newest_logs`` says whether a process writes to the logs of the last reload, not to those of what serves."""

    def __init__(
        self,
        resources: Resources,
        poller: ChannelPoller[Process],
        reporter: Reporter,
        newest_logs: Callable[[Process], bool],
    ) -> None:
        self._resources = resources
        self._poller = poller
        self._reporter = reporter
        self._newest_logs = newest_logs
        self._waiting: set[Process] | None = None  # for these to write to the new files; None where none was asked

    def snapshot(self, places: Mapping[Process, int]) -> list[int] | None:
        """What the next program is told: the places of the processes that have not answered yet."""
        return None if self._waiting is None else [places[each] for each in self._waiting if each in places]

    def restore(self, waiting: Sequence[int] | None, processes: Sequence[Process]) -> None:
        """Go on waiting for the processes at these places."""
        self._waiting = None if waiting is None else {processes[at] for at in waiting}

    def begin(self) -> None:
        """Open the files again, and have every process write to them."""
        newest, serving = self._resources.logs.reopen()
        told = []
        for each in self._poller:
            error, access, descriptors = newest if self._newest_logs(each) else serving
            if self._poller.order(each, messages.LogFiles(error, access), descriptors):
                told.append(each)
        # A process that has not started yet answers when it has; that is not waited for.
        self._waiting = {each for each in told if each.state in (State.LOADED, State.SERVING, State.DRAINING)}
        self._tell_end()

    def done(self, process: Process) -> None:
        """``process`` writes to the new files, or to none any more."""
        if self._waiting is not None:
            self._waiting.discard(process)
            self._tell_end()

    def _tell_end(self) -> None:
        if not self._waiting:
            self._waiting = None
            self._reporter.logs_reopened(self._resources.logs.kept)
