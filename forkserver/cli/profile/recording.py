"""What one worker writes of a profile, read from its ring as it comes.

The worker runs code of the application, and this program may be root's: what it writes is bytes, bounded in size and
number, checked record by record, and made printable. The first that cannot be meant ends the reading; what was taken
before counts.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from forkserver.cli.profile.profile import MOST_STACKS, NO_REQUEST, OTHERS, Function, Stack, StackTimes
from forkserver.ipc import profile_records, report_ring
from forkserver.ipc.messages import MessageError
from forkserver.ipc.profile_records import (
    ProfiledCall,
    ProfiledFunction,
    ProfiledPath,
    ProfileEnd,
    ProfileLoss,
    ProfileRecord,
    ProfileSample,
    decode_records,
)
from forkserver.ipc.report_ring import Inbox, ReportRingSnapshot
from forkserver.linux import syscalls
from forkserver.linux.common.escaping import printable

_BYTES: Final = report_ring.HEADER_BYTES + report_ring.RING_BYTES
_MOST: Final = 2**53  # ns of a stack, and of whatever is counted: what JSON has exactly


class Recording:
    """The worker that ``told`` names, which writes to the ring of ``memory`` and ``bell`` while ``link`` is open.

    ``ended`` says that nothing more comes, ``why`` why that was too early, empty where it was not. ``begun`` says
    whether it has begun to sample. Takes the descriptors over. Raises OSError where they are no ring.
    """

    def __init__(self, told: Mapping[str, Any], memory: int, bell: int, link: int, paths: bool) -> None:
        self.name = f"worker={int(told['worker'])} pid={int(told['pid'])}"
        self.ended = self.begun = False
        self.why = ""
        self.lost = 0
        self.link = link
        self._paths = paths
        if os.fstat(memory).st_size != _BYTES or _seals(memory) & syscalls.SEALS != syscalls.SEALS:
            raise OSError(f"{self.name}: what the master has sent is no ring of a profile")
        self._inbox = Inbox(ReportRingSnapshot(memory, bell, 0, 0))
        self._functions: list[Function] = []
        self._calls: list[tuple[int, int]] = [(0, 0)]
        self._lines: list[str] = [NO_REQUEST]
        self._weights: Counter[tuple[int, int]] = Counter()  # by path and call
        self._samples = 0

    @property
    def bell(self) -> int:
        """Readable when something has come."""
        return self._inbox.ends.bell

    def read(self) -> None:
        """Take what has come."""
        try:
            while not self.ended and (frame := self._inbox.take_frame()) is not None:
                for record in decode_records(frame):
                    self._take(record)
                if not self._inbox.waiting:
                    return
        except (MessageError, OSError) as error:
            self.end(f"what it writes is no profile: {error}")

    def end(self, why: str) -> None:
        """Nothing more is read of it."""
        self.ended, self.why = True, self.why or printable(why)

    def _take(self, record: ProfileRecord) -> None:
        """Raises MessageError."""
        match record:
            case ProfileSample(call, path, weight):
                self._add(call, path, weight)
            case ProfiledCall(parent, function):
                bounds = len(self._calls), len(self._functions), profile_records.MOST_CALLS
                if not (parent < bounds[0] <= bounds[2] and function < bounds[1]):
                    raise MessageError(f"{record} where {bounds[0]} calls and {bounds[1]} functions are known")
                self._calls.append((parent, function))
            case ProfiledFunction(line, module, name, file):
                if len(self._functions) > profile_records.MOST_FUNCTIONS + 1:
                    raise MessageError(f"more than {profile_records.MOST_FUNCTIONS} functions")
                self.begun = True
                self._functions.append(Function(printable(module), printable(name), printable(file), line))
            case ProfiledPath(line):
                if len(self._lines) > profile_records.MOST_PATHS:
                    raise MessageError(f"more than {profile_records.MOST_PATHS} paths")
                self._lines.append(printable(line))
            case ProfileLoss(samples):
                self.lost = min(self.lost + samples, _MOST)
            case ProfileEnd(why):
                self.end(why)

    def _add(self, call: int, path: int, weight: int) -> None:
        if call >= len(self._calls) or path >= len(self._lines):
            raise MessageError(f"a sample of call {call} and path {path}, which are not known")
        key = (path, call)
        if key not in self._weights and len(self._weights) >= MOST_STACKS:
            key = (0, 0)
        self._weights[key] = min(self._weights[key] + weight, _MOST)
        self._samples += 1

    def times(self) -> StackTimes:
        """What has come so far; with paths each stack begins with its request's."""
        found = StackTimes()
        for (path, call), weight in self._weights.items():
            stack = self._stack(call) or (Function("", OTHERS),)
            found.add((Function("", self._lines[path]), *stack) if self._paths else stack, weight, 0)
        found.samples = self._samples
        return found

    def _stack(self, call: int) -> Stack:
        functions: list[Function] = []
        while call and len(functions) < profile_records.DEEPEST:  # each parent is smaller
            call, function = self._calls[call]
            functions.append(self._functions[function])
        return tuple(reversed(functions))

    def close(self) -> None:
        """Close everything; the worker sees it, and stops sampling. A second call does nothing."""
        self._inbox.close()
        if self.link >= 0:
            os.close(self.link)
            self.link = -1


def _seals(memory: int) -> int:
    return fcntl.fcntl(memory, fcntl.F_GET_SEALS)
