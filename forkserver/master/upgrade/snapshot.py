"""What the next program is told of this one: every fact and every descriptor, in one sealed piece of memory.

It promises a fixed, versioned layout of plain values (plain.py, as JSON), of which nothing is executed when it is read,
and that a program which does not share our layouts refuses it with the reason. It refuses to know when that is due.

A room that holds something over an upgrade adds a field here, and its descriptors to ``descriptors``. Where what a
field means changes, LAYOUT does; a new field with a default needs no new LAYOUT.

Source: memfd_create(2), fcntl(2) on seals.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from forkserver.config import settings as settings_table
from forkserver.errors import ForkserverError
from forkserver.ipc import messages, report_ring, scoreboard
from forkserver.ipc.channel import MasterChannel, OlderChannel
from forkserver.ipc.channel_poller import Process
from forkserver.ipc.serialization import UnreadableError, dump, load
from forkserver.linux import syscalls
from forkserver.master import actions
from forkserver.master.children import NotOursError
from forkserver.master.model.fleet import Roster
from forkserver.master.model.lifecycle import Worker
from forkserver.master.monitoring import statistics
from forkserver.master.monitoring.request_timeouts import RequestTimeouts
from forkserver.master.resources import resources

if TYPE_CHECKING:
    from forkserver.master.master import Master

LAYOUT: Final = 1
_LAYOUTS: Final = {"state": LAYOUT, "messages": messages.PROTOCOL, "scoreboard": scoreboard.LAYOUT}
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class SnapshotError(ForkserverError):
    """A state that this program does not understand."""


class Snapshot(NamedTuple):
    """A master, written down. Processes are named by their place in ``roster.templates`` followed by its workers.

    ``pid`` is the master's, ``new_program`` what the next program calls itself, ``channels`` the descriptors of the
    channels (-1 for none), ``reopening`` who has not yet said that it writes to the new log files (None where nobody
    was asked), ``strangers`` children that ended before they were named, with their wait status, ``overdue`` the calls
    that were named as too long (process, thread, begin in ns), ``memory_kills`` the kernel's that deaths were put
    down to, ``waiting`` the descriptors of clients of the control socket that wait for the end of a reload,
    ``reports`` where the processes report, None for one that does so on its channel (an older program knew
    no other way), ``claims`` the pids that were named for workers and are not verified yet.
    """

    pid: int
    new_program: str
    roster: Roster
    resources: resources.ResourcesSnapshot
    actions: actions.ActionsSnapshot
    statistics: statistics.StatisticsSnapshot
    channels: list[int]
    reopening: list[int] | None
    strangers: dict[int, int]
    overdue: list[tuple[int, int, int]]
    memory_kills: int
    waiting: tuple[int, ...] = ()
    reports: list[report_ring.ReportRingSnapshot | None] = []  # noqa: RUF012  # never changed: the default of a named tuple
    claims: dict[int, int] = {}  # noqa: RUF012

    def settings(self) -> list[settings_table.SettingsSnapshot]:
        """Those that are in force, and those that the current generation's code was loaded with."""
        current = (each.settings for each in self.actions.generation_configs if each.generation == self.roster.current)
        return [self.resources.settings, *current]

    def descriptors(self) -> list[int]:
        """What has to stay open for the next program."""
        channels = [number for number in self.channels if number >= 0]
        channels += [number for each in self.reports if each for number in (each.memory, each.bell)]
        return sorted({*channels, *self.waiting, *self.resources.descriptors(), *self.actions.descriptors()})

    def sealed(self) -> int:
        """A descriptor of this state, closed on exec, that nobody can change any more. Raises OSError."""
        return sealed({"layouts": _LAYOUTS, "state": dump(self)}, "forkserver-state")


def write(master: Master, new_program: str) -> Snapshot:
    """All that ``master`` is, for the next program, which calls itself ``new_program``."""
    at = {process: place for place, process in enumerate(_processes(master.roster))}
    reopening = master.reopening
    return Snapshot(
        pid=os.getpid(),
        new_program=new_program,
        roster=master.roster,
        resources=master.resources.held(),
        actions=master.actions.held(),
        statistics=master.statistics.held(),
        channels=master.links.held(at),
        reopening=None if reopening is None else [at[each] for each in reopening if each in at],
        strangers=master.strangers,
        overdue=[(at[worker], thread, since) for worker, thread, since in master.calls.named if worker in at],
        memory_kills=master.out_of_memory.seen,
        waiting=tuple(master.resources.control.waiting()),
        reports=master.links.held_reports(at),
        claims={at[worker]: pid for worker, pid in master.claims.items() if worker in at},
    )


def take_up(master: Master, carried: Snapshot) -> None:
    """Have ``master`` go on where ``carried`` stands, and bring its workers to this program by a reload."""
    processes = _processes(carried.roster)
    held = carried.reports or [None] * len(processes)
    for process, number, reports_held in zip(processes, carried.channels, held, strict=True):
        if number >= 0:
            master.links.add(process, _channel(number, reports_held))
        if process.pid:
            _hold(master, process)
    claims = ((processes[at], pid) for at, pid in carried.claims.items())
    master.claims = {worker: pid for worker, pid in claims if isinstance(worker, Worker)}
    master.reopening = None if carried.reopening is None else {processes[at] for at in carried.reopening}
    master.strangers = dict(carried.strangers)
    overdue = ((processes[at], thread, since) for at, thread, since in carried.overdue)
    master.calls = RequestTimeouts((each, thread, since) for each, thread, since in overdue if isinstance(each, Worker))
    master.reporter.upgraded(carried.new_program)
    for number in carried.waiting:
        master.handlers.take_up(master.resources.control.take_up(number, syscalls.clock()))
    master.roster.upgrading = False
    master.roster.want_reload()


def _channel(orders: int, held: report_ring.ReportRingSnapshot | None) -> MasterChannel | OlderChannel:
    if held is None:
        return OlderChannel(socket.socket(fileno=orders))
    return MasterChannel.from_held(orders, held)


def _hold(master: Master, process: Process) -> None:
    """Its pidfd anew: a child that is not reaped keeps its number over an exec."""
    try:
        master.children.hold(process, process.pid)
    except (OSError, NotOursError) as error:
        master.resources.log.error(f"{process} gets no signals any more: {error}")


def _processes(roster: Roster) -> list[Process]:
    return [*roster.templates, *roster.workers]


def sealed(content: Any, name: str) -> int:
    """A descriptor of ``content`` as JSON. Raises OSError."""
    number = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(os.dup(number), "wb") as file:
        file.write(json.dumps(content).encode())
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
    return number


# Fields of layout 1 that have had other names.
_RENAMED: Final = {
    "successor": "new_program",
    "effects": "actions",
    "census": "statistics",
    "provisions": "generation_configs",
    "bindings": "listener_set",
    "_fortunes": "_backoffs",
}


def _renamed(plain: Any) -> Any:
    """The state that ``plain`` holds with the names of fields that are used now, for a state of an earlier version."""
    if isinstance(plain, dict):
        return {_RENAMED.get(name, name): _renamed(value) for name, value in plain.items()}
    return [_renamed(each) for each in plain] if isinstance(plain, list) else plain


def read(descriptor: int) -> Snapshot:
    """The state behind ``descriptor``. Raises StateError, which says why it is not understood."""
    try:
        content = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        layouts, plain = content["layouts"], content["state"]
        known = [(name, number, layouts.get(name)) for name, number in _LAYOUTS.items()]
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SnapshotError(f"descriptor {descriptor} holds no state of a running forkserver: {error}") from None
    for name, ours, theirs in known:
        if ours != theirs:
            raise SnapshotError(
                f"the layout of {name} is number {theirs} in the running program, {ours} in this one; restart instead"
            )
    try:
        return load(Snapshot, _renamed(plain))
    except UnreadableError as error:
        raise SnapshotError(f"{error}; restart instead") from None  # it is a newer program's, mostly
