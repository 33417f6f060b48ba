"""The snapshot: every fact and every descriptor of a master, for the next program, in one sealed piece of memory.

Facts become plain values (serialization.py) and then JSON, so that reading executes nothing. ``LAYOUT`` is the version:
a program that does not share our layouts refuses the snapshot with the reason. A part that holds something over an
upgrade adds a field here, and its descriptors to ``descriptors``. Where the meaning of a field changes, LAYOUT does; a
new field with a default needs no new LAYOUT. Fields that were renamed or moved since are read from their old places.

Source: memfd_create(2), fcntl(2) on seals.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any, Final

from forkserver.config import loading
from forkserver.errors import ForkserverError
from forkserver.ipc import messages, scoreboard
from forkserver.ipc.report_ring import ReportRingSnapshot
from forkserver.ipc.serialization import UnreadableError, dump, load
from forkserver.linux.common.records import NamedTuple, field_names
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.slow_requests import SlowRequestSnapshot
from forkserver.master.monitoring.statistics import StatisticsSnapshot
from forkserver.master.processes.log_writer import LogWriterSnapshot
from forkserver.master.resources.generation_config import GenerationConfigsSnapshot
from forkserver.master.resources.resources import ResourcesSnapshot

LAYOUT: Final = 1
_LAYOUTS: Final = {"state": LAYOUT, "messages": messages.PROTOCOL, "scoreboard": scoreboard.LAYOUT}
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class SnapshotError(ForkserverError):
    """A state that this program does not understand."""


class Snapshot(NamedTuple):
    """A master, written down. Processes are named by their place in the fleet: its templates, then its workers.

    ``pid`` is the master's, ``new_program`` what the next program calls itself, ``channels`` the descriptors of the
    channels (-1 for none), ``reopening`` those that have not yet said that they write to the new log files (None where
    none was asked), ``strangers`` children that ended before they were named, with their wait status, ``overdue`` the
    calls that were named as too long (process, thread, begin in ns), ``memory_kills`` the kernel's that deaths were put
    down to, ``waiting`` the descriptors of clients of the control socket that wait for the end of a reload,
    ``reports`` where the processes report, None for one that does so on its channel (an older program knew
    no other way), ``claims`` the pids that were named for workers and are not verified yet, ``slow_requests`` the last
    ones, ``log_writer`` the child that writes the error log, or keeps pipes open.
    """

    pid: int
    new_program: str
    rollout: Rollout
    resources: ResourcesSnapshot
    handoff: tuple[int, int]
    generation_configs: list[GenerationConfigsSnapshot]
    statistics: StatisticsSnapshot
    channels: list[int]
    reopening: list[int] | None
    strangers: dict[int, int]
    overdue: list[tuple[int, int, int]]
    memory_kills: int
    waiting: tuple[int, ...] = ()
    reports: list[ReportRingSnapshot | None] = []  # noqa: RUF012  # never changed: the default of a named tuple
    claims: dict[int, int] = {}  # noqa: RUF012
    slow_requests: list[SlowRequestSnapshot] = []  # noqa: RUF012
    log_writer: LogWriterSnapshot | None = None

    def settings(self) -> list[loading.SettingsSnapshot]:
        """Those that are in force, and those that the current generation's code was loaded with."""
        current = (each.settings for each in self.generation_configs if each.generation == self.rollout.current)
        return [self.resources.settings, *current]

    def descriptors(self) -> list[int]:
        """What has to stay open for the next program."""
        channels = [number for number in self.channels if number >= 0]
        channels += [number for each in self.reports if each for number in (each.memory, each.bell)]
        boards = (each.board for each in self.generation_configs)
        if self.log_writer is not None:
            channels += [self.log_writer.ours, self.log_writer.theirs]
        return sorted({*channels, *self.waiting, *self.handoff, *boards, *self.resources.descriptors()})

    def sealed(self) -> int:
        """A descriptor of this state, closed on exec, that cannot be changed any more. Raises OSError."""
        return sealed({"layouts": _LAYOUTS, "state": dump(self)}, "forkserver-state")


def sealed(content: Any, name: str) -> int:
    """A descriptor of ``content`` as JSON. Raises OSError."""
    number = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(os.dup(number), "wb") as file:
        file.write(json.dumps(content).encode())
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
    return number


# Fields of layout 1 that have had other names.
_RENAMED: Final = {
    "roster": "rollout",
    "successor": "new_program",
    "census": "statistics",
    "provisions": "generation_configs",
    "bindings": "listener_set",
    "_fortunes": "backoffs",
    "_backoffs": "backoffs",
    "_refused_since": "no_process_since",
    "_last": "last_generation",
    "_announced": "serving_generation",
    "_news": "pending_events",
    "given": "activated",
    "spent_at": "recycle_at",
    "spent_why": "recycle_why",
}
_ONCE_PRIVATE: Final = frozenset(
    ("_outdated_before", "_was_ready", "_going_back", "_back_by", "_others_crashed_at", "_load_failure")
)
_OF_FLEET: Final = frozenset(field_names(Fleet))


def _renamed(plain: Any) -> Any:
    """What ``plain`` holds with the names of fields that are used now, for a state of an earlier version."""
    if isinstance(plain, dict):
        return {_RENAMED.get(name, name): _renamed(value) for name, value in plain.items()}
    return [_renamed(each) for each in plain] if isinstance(plain, list) else plain


def _of_now(plain: Any) -> Any:
    """The state ``plain`` as this version writes it: fleet and rollout were one before, and so were two others."""
    state = _renamed(plain)
    rollout = state.get("rollout") if isinstance(state, dict) else None
    if isinstance(rollout, dict) and _OF_FLEET & rollout.keys():
        fields = {name.removeprefix("_") if name in _ONCE_PRIVATE else name: value for name, value in rollout.items()}
        fleet = {name: fields.pop(name) for name in _OF_FLEET & fields.keys()}
        state["rollout"] = {"fleet": fleet, **fields}
    for name in ("effects", "actions"):
        if isinstance(state, dict) and isinstance(fields := state.pop(name, None), dict):
            state |= fields
    return state


def read(descriptor: int) -> Snapshot:
    """The state behind ``descriptor``. Raises SnapshotError, which says why it is not understood."""
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
        return load(Snapshot, _of_now(plain))
    except UnreadableError as error:
        raise SnapshotError(f"{error}; restart instead") from None  # it is a newer program's, mostly
