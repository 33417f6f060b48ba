"""Shared memory in which each worker writes what it does, and everyone else reads.

It promises that a word is never seen half-written: every figure is one aligned 64-bit word, stored at once. It is a
hint and never an authority: who lives, with which pid, is for the roster to say. Rows are leased by the master, one
for each living process (during a reload a slot has two).

Layout, all words native 64-bit: a header of ``HEADER_WORDS``, then the rows. A row is ``ROW_WORDS`` words followed by,
for each application thread, ``THREAD_WORDS`` words and ``LINE_BYTES`` bytes of request line.

Source: memfd_create(2), mmap(2).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from time import monotonic_ns
from typing import Final, NamedTuple

from forkserver.errors import ForkserverError

LAYOUT: Final = 3  # changes whenever a word moves; a reader refuses another layout
MAGIC: Final = int.from_bytes(b"forksrvr", "little")

HEADER_WORDS: Final = 8  # magic, layout, rows, threads, how many serve; the rest is room to grow
_SERVING_WORD: Final = 4
ROW_WORDS: Final = 16
THREAD_WORDS: Final = 8
LINE_BYTES: Final = 256
WORD: Final = 8

# Words of a row.
PID, SLOT, GENERATION, STATE, REQUESTS, PARKED, SENT_BYTES, ACCEPTED, HELD, UNSENT, WAITING = range(11)
# Words of a thread, after the row's.
BUSY_SINCE, LINE_LENGTH, DEADLINE, DEADLINE_OF, WEBSOCKET_OF = range(5)

# Values of STATE.
FREE, STARTING, SERVING, DRAINING = range(4)
STATE_NAMES: Final = ("free", "starting", "serving", "draining")


def _row_bytes(threads: int) -> int:
    return ROW_WORDS * WORD + threads * (THREAD_WORDS * WORD + LINE_BYTES)


class Busy(NamedTuple):
    """A call of the application; times are CLOCK_MONOTONIC in ns, and a ``deadline`` of 0 is none of its own.

    ``since`` is also its name: no thread begins two calls in one nanosecond. A ``websocket`` lasts as long as it likes.
    """

    since: int
    line: str
    deadline: int
    websocket: bool = False


class Row:
    """One process's row: ``words`` to write figures into, ``begin`` and ``end`` around each call of the application."""

    __slots__ = ("_lines", "index", "threads", "words")

    def __init__(self, memory: memoryview, index: int, threads: int) -> None:
        self.index = index
        self.threads = threads
        words_end = (ROW_WORDS + threads * THREAD_WORDS) * WORD
        self.words = memory[:words_end].cast("Q")
        self._lines = [
            memory[words_end + thread * LINE_BYTES : words_end + (thread + 1) * LINE_BYTES] for thread in range(threads)
        ]

    def begin(self, line: bytes, thread: int = 0) -> None:
        """Note that ``thread`` starts a call for the request ``line`` (bytes), whose query string is cut."""
        words = self.words
        at = ROW_WORDS + thread * THREAD_WORDS
        length = line.find(b"?")
        if length < 0:
            length = len(line)
        if length > LINE_BYTES:
            length = LINE_BYTES
        self._lines[thread][:length] = line[:length]
        words[at + LINE_LENGTH] = length
        words[at + BUSY_SINCE] = monotonic_ns()

    def end(self, thread: int = 0) -> None:
        """Note that the call that ``begin`` announced is over."""
        words = self.words
        words[ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE] = 0
        words[REQUESTS] += 1

    def extend(self, deadline: int, thread: int = 0) -> None:
        """Let the call in hand last until ``deadline`` (CLOCK_MONOTONIC in ns), if it may not last longer already."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        since = words[at + BUSY_SINCE]
        if words[at + DEADLINE_OF] != since or deadline > words[at + DEADLINE]:
            words[at + DEADLINE_OF] = 0  # so that nobody sees the new time for an old call, or the other way
            words[at + DEADLINE] = deadline
            words[at + DEADLINE_OF] = since

    def upgrade(self, thread: int = 0) -> None:
        """Note that the call in hand has become a WebSocket."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        words[at + WEBSOCKET_OF] = words[at + BUSY_SINCE]

    def busy(self, thread: int = 0) -> Busy | None:
        """What ``thread`` serves now, or None. Read twice: a call that ended between the readings is no call."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        since = words[at + BUSY_SINCE]
        if not since:
            return None
        line = bytes(self._lines[thread][: min(words[at + LINE_LENGTH], LINE_BYTES)])
        deadline = words[at + DEADLINE] if words[at + DEADLINE_OF] == since else 0
        websocket = words[at + WEBSOCKET_OF] == since
        if words[at + BUSY_SINCE] != since:
            return None
        return Busy(since, line.decode("latin-1"), deadline, websocket)

    def idle(self) -> bool:
        """Whether this process serves, and has an application thread that is in no call."""
        words = self.words
        if words[STATE] != SERVING:
            return False
        return any(not words[at + BUSY_SINCE] for at in range(ROW_WORDS, len(words), THREAD_WORDS))

    def clear(self) -> None:
        """Give the row back, with nothing of its last process in it."""
        for at in range(len(self.words)):
            self.words[at] = 0


class Scoreboard:
    """All rows, in memory that is shared with every process forked later.

    ``rows`` is how many processes can be alive at once, ``threads`` how many application threads each has; ``held`` is
    the descriptor of one that was made so before. Raises OSError where the memory cannot be had.
    """

    def __init__(self, rows: int, threads: int = 1, held: int = -1) -> None:
        self.rows = rows
        self.threads = threads
        size = HEADER_WORDS * WORD + rows * _row_bytes(threads)
        self.fd = os.memfd_create("forkserver-scoreboard", os.MFD_CLOEXEC) if held < 0 else held
        try:
            if held < 0:
                os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except BaseException:
            os.close(self.fd)
            raise
        self._memory = memoryview(self._map)
        self._header = self._memory[: HEADER_WORDS * WORD].cast("Q")
        for at, word in enumerate((MAGIC, LAYOUT, rows, threads)):
            self._header[at] = word
        self._rows = [self._row(index) for index in range(rows)]

    @classmethod
    def held(cls, fd: int) -> Scoreboard:
        """The one behind ``fd``, with all that is written in it. Raises ForkserverError for another layout."""
        magic, layout, rows, threads = struct.unpack("=4Q", os.pread(fd, 4 * WORD, 0).ljust(4 * WORD, b"\0"))
        if (magic, layout) != (MAGIC, LAYOUT):
            raise ForkserverError(f"descriptor {fd} is no scoreboard of layout {LAYOUT}; restart instead")
        return cls(rows, threads, held=fd)

    def _row(self, index: int) -> Row:
        size = _row_bytes(self.threads)
        start = HEADER_WORDS * WORD + index * size
        return Row(self._memory[start : start + size], index, self.threads)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]

    def __len__(self) -> int:
        return self.rows

    @property
    def serving(self) -> int:
        """How many of the processes serve."""
        return self._header[_SERVING_WORD]

    @serving.setter
    def serving(self, count: int) -> None:
        self._header[_SERVING_WORD] = count

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def lease(self) -> Row | None:
        """A free row, marked as starting, or None where every row is taken."""
        for row in self._rows:
            if row.words[STATE] == FREE:
                row.clear()
                row.words[STATE] = STARTING
                return row
        return None
