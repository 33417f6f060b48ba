"""The temporary files of a worker, and how much of the disk and of memory they may take.

``max_spool`` bounds the files of all workers together. Each worker publishes what it has claimed in its row of the
scoreboard, and claims more in steps, so that the rows of the others are read once a step and not once a write. Half of
``max_spool`` is divided among the workers that live, as a reserve that the others cannot take; the other half goes to
the first worker that asks. So unread answers in one worker never stop an upload in another. The rows are a hint: a
worker that writes a false figure can take the common half from its siblings, and nothing else.

Below ``keep_free`` bytes of free space on the folder's file system nothing more is claimed. A request that finds no
room is an OSError (ENOSPC) whose text names the bound, for the caller to answer.

Source: statvfs(3).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from errno import ENOSPC
from typing import Final

from forkserver.config.values.numbers import AUTO_FREE, GIB, MIB, readable_size
from forkserver.ipc.scoreboard import FREE, SPOOLED, STATE, Row
from forkserver.linux.common.safe_lock import SafeLock
from forkserver.linux.files.file_size_limit import why_unwritten
from forkserver.linux.files.nameless_file import open_nameless

FREE_PART: Final = 0.05
FREE_BYTES: Final = GIB
STEP_BYTES: Final = MIB  # of one claim
_MEMORY_SHARES: Final = 4  # one body takes at most this part of the memory that is lent
ANSWER_SHARES: Final = 8  # one answer takes at most this part of max_spool
_ANSWER_MEMORY: Final = 64 * MIB  # of all answers of a worker that clients have not taken, before they go to the spool


def free_bytes(folder: str) -> int:
    """Bytes that an ordinary user may still write to the file system of ``folder``. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def kept_free(folder: str, keep_free: int) -> int:
    """Bytes that stay free on the file system of ``folder``, where the setting is ``keep_free``. Raises OSError."""
    if keep_free != AUTO_FREE:
        return keep_free
    found = os.statvfs(folder)
    return min(FREE_BYTES, int(found.f_blocks * found.f_frsize * FREE_PART))


def reserve_of(total: int, workers: int) -> int:
    """Bytes of ``total`` that each of so many ``workers`` may claim whatever the others have."""
    return total // (2 * workers)


def room_beside(total: int, others: Sequence[int]) -> int:
    """Bytes of ``total`` that one worker may claim, where the ``others`` have claimed so many each."""
    reserve = reserve_of(total, len(others) + 1)
    return max(reserve, total - sum(max(min(claim, total), reserve) for claim in others))


class Spool:
    """A worker's account of the disk space its temporary files take, and of the memory it lends to spare them.

    ``max_bytes`` is the bound of all workers whose rows are on ``board``, ``row`` this worker's own; without them it is
    alone. ``memory`` is how many bytes can be lent. Safe to use from several threads.
    """

    def __init__(
        self,
        folder: str,
        max_bytes: int,
        memory: int = 0,
        keep_free: int = 0,
        row: Row | None = None,
        board: Iterable[Row] = (),
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.answer_bytes = max_bytes // ANSWER_SHARES  # of one answer
        self.unread_bytes = reserve_of(max_bytes, 1) // 2  # of all answers: above it slow readers are cut off
        self.used = 0
        self.answers = 0  # of these, bytes of answers
        self.memory = memory  # bytes that can be lent yet
        self.answer_memory = _ANSWER_MEMORY  # bytes of answers that may stand in memory yet
        self._most = memory // _MEMORY_SHARES
        self._keep_free = keep_free
        self._row = row
        self._board = board
        self._claimed = 0
        self.relief: Callable[[int], bool] | None = None  # makes room for so many bytes; whether it made any
        self._lock = SafeLock()

    def lend(self, size: int) -> bool:
        """Lend ``size`` bytes of memory, if they are to be had; ``restore`` them in any case."""
        if size > min(self.memory, self._most):
            return False
        self.memory -= size
        return True

    def restore(self, size: int) -> None:
        """Take ``size`` bytes of memory back."""
        self.memory += size

    def take(self, size: int) -> None:
        """Book ``size`` bytes. Raises OSError (ENOSPC) where they are not to be had."""
        relief = self.relief
        if relief is not None and self.answers > self.unread_bytes:
            relief(size)
        try:
            self._take(size)
        except OSError:
            if relief is None or not relief(size):
                raise
            self._take(size)

    def _take(self, size: int) -> None:
        self._lock.taken  # noqa: B018
        try:
            needed = self.used + size
            if needed > self._claimed:
                self._publish(self._claim(needed))
            self.used = needed
        finally:
            self._lock.release()

    def give(self, size: int) -> None:
        """Give ``size`` booked bytes back."""
        self._lock.taken  # noqa: B018
        try:
            self.used -= size
            if self._claimed - self.used >= 2 * STEP_BYTES or not self.used:
                self._publish(_in_steps(self.used))
        finally:
            self._lock.release()

    def excess(self) -> str | None:
        """That answers have more than they may while clients do not take them, in words; None where they have not."""
        if self.answers <= self.unread_bytes:
            return None
        return f"unread answers have more than {readable_size(self.unread_bytes)}, their part of max_spool"

    def shortage(self, size: int) -> str | None:
        """Why ``size`` bytes more are not to be had, None where they are. Nothing is booked."""
        self._lock.taken  # noqa: B018
        try:
            needed = self.used + size
            try:
                if needed > self._claimed:
                    self._claim(needed)
            except OSError as error:
                return why_unwritten(error)
        finally:
            self._lock.release()
        return None

    def _claim(self, needed: int) -> int:
        """The claim that holds ``needed`` bytes. Raises OSError (ENOSPC) where it may not be made."""
        others = self._claims_of_others()
        room = room_beside(self.max_bytes, others)
        self.unread_bytes = reserve_of(self.max_bytes, len(others) + 1) // 2
        if needed > room:
            raise OSError(ENOSPC, f"max_spool ({readable_size(self.max_bytes)}, all workers together) is used up")
        if self._keep_free:
            self._leave_free(needed - self._claimed)
        return min(room, _in_steps(needed))

    def _leave_free(self, size: int) -> None:
        """Raises OSError (ENOSPC) where ``size`` bytes more would leave too little free on the file system."""
        keep, free = kept_free(self.folder, self._keep_free), free_bytes(self.folder)
        if free - size < keep:
            kept = f"spool_keep_free keeps {readable_size(keep)}"
            raise OSError(ENOSPC, f"{readable_size(free)} is free on the file system of {self.folder}, and {kept}")

    def _claims_of_others(self) -> list[int]:
        own = self._row
        return [row.words[SPOOLED] for row in self._board if row is not own and row.words[STATE] != FREE]

    def _publish(self, claim: int) -> None:
        self._claimed = claim
        if self._row is not None:
            self._row.words[SPOOLED] = claim

    def open(self) -> io.FileIO:
        """A nameless temporary file without a buffer. Raises OSError."""
        return open_nameless(self.folder, "forkserver-")

    def forget(self) -> None:
        """In a child that the application forked: the row of the scoreboard is the worker's."""
        self._lock = SafeLock()  # another thread may have held it at the fork
        self._row = None


def _in_steps(size: int) -> int:
    return -(-size // STEP_BYTES) * STEP_BYTES
