"""The stacks of one profile by their numbers: each function, call and path is told once, when it is first met.

``new`` has what is not told yet, as records (ipc/profile_records.py). The table is bounded: a function, a call or a
path beyond the bounds is counted with others. Functions are known by the identity of their code, which is kept as long
as the table: comparing two of them would compare all that is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType, FrameType
from typing import Final

from forkserver.ipc import profile_records
from forkserver.ipc.profile_records import ProfiledCall, ProfiledFunction, ProfiledPath, ProfileRecord
from forkserver.linux.common.escaping import printable

OTHERS: Final = "(others)"  # function or path beyond the bounds
LEFT_OUT: Final = "(calls left out)"
UNSEEN: Final = "(unseen: the interpreter's lock or the processor was taken)"
_HALF: Final = profile_records.DEEPEST // 2
_CHARACTERS: Final = 200  # of a name: it may be generated


class StackTable:
    """Numbers of stacks and of paths; ``unseen`` is the stack of what is known to have been, and was not seen."""

    def __init__(self) -> None:
        self.new: list[bytes] = []
        self._functions: dict[int, int] = {}  # by the identity of their code
        self._codes: list[CodeType] = []  # so that no other code gets the identity of one of these
        self._calls: dict[tuple[int, int], int] = {}  # by caller and function
        self._known: dict[tuple[int, int], int] = {}  # by caller and the identity of the code
        self._paths: dict[str, int] = {}
        self._count = 0  # of functions
        self._left_out = self._add_function(ProfiledFunction(0, "", LEFT_OUT, ""))
        self._others = self._add_function(ProfiledFunction(0, "", OTHERS, ""))
        self.unseen = self._call(0, self._add_function(ProfiledFunction(0, "", UNSEEN, "")))

    def stack(self, frames: Sequence[FrameType]) -> int:
        """The number of the stack that has ``frames``, the innermost first; 0 for none."""
        call = 0
        if len(frames) <= profile_records.DEEPEST:
            return self._below(call, frames)
        call = self._below(call, frames[-_HALF:])
        return self._below(self._call(call, self._left_out) or call, frames[: _HALF - 1])

    def _below(self, call: int, frames: Sequence[FrameType]) -> int:
        known = self._known
        for frame in reversed(frames):
            below = known.get((call, id(frame.f_code))) or self._call_of(call, frame)
            if not below:
                break  # no room: the time is the caller's
            call = below
        return call

    def _call_of(self, parent: int, frame: FrameType) -> int:
        """The number of the call of ``frame`` beneath ``parent``, which may be new; 0 where there is no room for it."""
        identity = id(frame.f_code)
        function = self._functions.get(identity)
        call = self._call(parent, self._meet(frame) if function is None else function)
        if call and identity in self._functions:
            self._known[parent, identity] = call
        return call

    def path(self, line: str) -> int:
        """The number of the request line ``line``, which has no query."""
        known = self._paths.get(line)
        if known is not None:
            return known
        if len(self._paths) >= profile_records.MOST_PATHS - 1:
            line = OTHERS
            if line in self._paths:
                return self._paths[line]
        number = self._paths[line] = len(self._paths) + 1
        self._tell(ProfiledPath(line))
        return number

    def _meet(self, frame: FrameType) -> int:
        """The number of the function of ``frame``, which is new."""
        if self._count >= profile_records.MOST_FUNCTIONS:
            return self._others
        code = frame.f_code
        module = dict.get(frame.f_globals, "__name__")  # the application may have put anything there
        function = ProfiledFunction(
            code.co_firstlineno,
            _short(module) if type(module) is str else "",
            _short(code.co_qualname),
            printable(code.co_filename)[-2 * _CHARACTERS :],
        )
        self._codes.append(code)
        number = self._functions[id(code)] = self._add_function(function)
        return number

    def _add_function(self, function: ProfiledFunction) -> int:
        number, self._count = self._count, self._count + 1
        self._tell(function)
        return number

    def _call(self, parent: int, function: int) -> int:
        """The number of a call of ``function`` beneath ``parent``; 0 where there is no room for another."""
        known = self._calls.get((parent, function))
        if known is not None or len(self._calls) >= profile_records.MOST_CALLS:
            return known or 0
        number = self._calls[parent, function] = len(self._calls) + 1
        self._tell(ProfiledCall(parent, function))
        return number

    def _tell(self, record: ProfileRecord) -> None:
        self.new.append(profile_records.encode_record(record))


def _short(text: str) -> str:
    return printable(text[:_CHARACTERS])
