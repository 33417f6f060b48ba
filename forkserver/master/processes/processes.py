"""What the master has of its processes: channels, pidfds, confirmed pids, rows of the scoreboard."""

from __future__ import annotations

from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.linux.common.records import NamedTuple
from forkserver.master.model.lifecycle import Process, Worker
from forkserver.master.processes.children import Children
from forkserver.master.processes.worker_pids import WorkerPids
from forkserver.master.processes.worker_table import WorkerTable


class Processes(NamedTuple):
    poller: ChannelPoller[Process]
    children: Children
    pids: WorkerPids
    table: WorkerTable

    def release(self, worker: Worker) -> None:
        """Give back what a worker had that has ended, or was given up."""
        self.poller.drop(worker)
        self.children.release(worker)
        self.pids.forget(worker)
        self.table.release(worker)
