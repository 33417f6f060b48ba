"""The scoreboard: shared memory in which each worker writes what it does, for the master and the other workers to read.

Every figure is one aligned 64-bit word, stored at once, so no reader sees it half-written. The master leases the rows,
one for each living process (during a reload a slot has two).

Every worker can write all of it, so the master takes it as a hint: how many rows there are, which of them are leased,
and to which process, stands in its own memory. The memory is sealed, or a worker could truncate it under the others
(SIGBUS). Figures are bounded where they are read (``figure``, ``busy``).

Layout, all words native 64-bit: a header of ``HEADER_WORDS``, then the rows. A row is ``ROW_WORDS`` words followed by,
for each application thread, ``THREAD_WORDS`` words and ``LINE_BYTES`` bytes of text: the request line, of at most
``_ID_AT`` bytes, and behind that the request's id. Older programs have no id, and a longer line. Behind the threads is
one place more of the same kind, for a hook that the loop calls itself.

Source: memfd_create(2), mmap(2), fcntl(2) on F_ADD_SEALS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from forkserver.errors import ForkserverError
from forkserver.ipc import figures
from forkserver.ipc.busy_call import NANO, Busy, printable_ascii
from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.syscalls import monotonic_ns

LAYOUT: Final = 5  # changes whenever a word moves; a reader refuses another layout
MAGIC: Final = int.from_bytes(b"forksrvr", "little")

HEADER_WORDS: Final = 8  # magic, layout, rows, threads, how many serve; the rest is room to grow
_SERVING_WORD: Final = 4
ROW_WORDS: Final = 80  # from figures.FIRST on they are those of figures.py
THREAD_WORDS: Final = 8
LINE_BYTES: Final = 256
_ID_AT: Final = 192  # of these, where the id begins
WORD: Final = 8
MOST: Final = 2**53 - 1  # of a figure: what a reader of JSON has exactly
_MOST_ROWS: Final = 1 << 20
_ID_BYTES: Final = LINE_BYTES - _ID_AT
# Cuts what is longer, and fills what is shorter.
_write_line: Final = struct.Struct(f"{_ID_AT}s{_ID_BYTES}s").pack_into
_write_id: Final = struct.Struct(f"{_ID_BYTES}s").pack_into

# Words of a row.
PID, SLOT, GENERATION, STATE, REQUESTS, PARKED, _, ACCEPTED, OPEN, UNSENT, WAITING, SPOOLED = range(12)
LOST_LINES: Final = 12  # of the logs, which could not be written
# Answers that the C extension has sent, and reads and answers that it has left to the Python code; written in C.
ACCELERATED, DECLINED = 13, 14
# Words of a thread, after the row's.
BUSY_SINCE, LINE_LENGTH, DEADLINE, DEADLINE_OF, WEBSOCKET_OF, CLIENT_OF, ID_LENGTH, PROGRESS = range(8)

# Values of STATE.
FREE, STARTING, SERVING, DRAINING = range(4)


_WAITED, _LASTED, _BOUNDS, _FIRST_BOUND = figures.WAITED, figures.LASTED, figures.BOUNDS, figures.BOUNDS[0]
_ANSWERS, _ANSWER_BYTES, _WORD_OF_CLASS = figures.ANSWERS, figures.ANSWER_BYTES, figures.WORD_OF_CLASS


class Shape(NamedTuple):
    """How many rows there are, and how many application threads each of them has; it has a place more, the loop's."""

    rows: int
    threads: int

    @property
    def row_bytes(self) -> int:
        return ROW_WORDS * WORD + (self.threads + 1) * (THREAD_WORDS * WORD + LINE_BYTES)

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return HEADER_WORDS * WORD + self.rows * self.row_bytes


class Row:
    """One process's row: ``words`` to write figures into, ``begin`` and ``end`` around each call of the application."""

    __slots__ = ("_lines", "index", "memory", "threads", "words")

    def __init__(self, memory: memoryview, index: int, threads: int) -> None:
        self.index = index
        self.threads = threads
        self.memory = memory
        words_end = (ROW_WORDS + self.places * THREAD_WORDS) * WORD
        self.words = memory[:words_end].cast("Q")
        self._lines = [
            memory[words_end + place * LINE_BYTES : words_end + (place + 1) * LINE_BYTES]
            for place in range(self.places)
        ]

    @property
    def places(self) -> int:
        """How many calls it can show: one of each application thread, numbered from 0, and one of the loop's own."""
        return self.threads + 1

    @property
    def loop(self) -> int:
        """The number of the loop's own place, for hooks that it calls outside the application's calls."""
        return self.threads

    def begin(self, line: bytes, thread: int = 0, request_id: str = "", since: float = 0.0) -> None:
        """Note that ``thread`` starts a call for the request ``line`` (bytes), whose query string is cut.

        ``request_id`` is ASCII, "" where it is not known yet; the request was whole ``since`` then (CLOCK_MONOTONIC in
        seconds).
        """
        waited, words = self._show(line, thread, request_id) - int(since * 1e9), self.words
        if waited > 0:
            words[_WAITED] += waited
        words[_WAITED + 1 if waited <= _FIRST_BOUND else _WAITED + 1 + bisect_left(_BOUNDS, waited)] += 1

    def name(self, request_id: str, thread: int = 0) -> None:
        """Note the id of the request that ``thread`` serves."""
        _write_id(self._lines[thread], _ID_AT, request_id.encode())
        self.words[ROW_WORDS + thread * THREAD_WORDS + ID_LENGTH] = len(request_id)

    def end(self, thread: int = 0) -> None:
        """Note that the call that ``begin`` announced is over."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        since = words[at + BUSY_SINCE]
        words[at + BUSY_SINCE] = 0
        words[REQUESTS] += 1
        if words[at + WEBSOCKET_OF] != since:
            if (lasted := monotonic_ns() - since) > 0:
                words[_LASTED] += lasted
            words[_LASTED + 1 if lasted <= _FIRST_BOUND else _LASTED + 1 + bisect_left(_BOUNDS, lasted)] += 1

    def _show(self, line: bytes, thread: int, request_id: str = "") -> int:
        """Show what ``thread`` does from now on; the time in ns."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        shown = line.partition(b"?")[0]
        _write_line(self._lines[thread], 0, shown, request_id.encode())
        words[at + LINE_LENGTH] = len(shown)  # a reader knows that at most _ID_AT are there
        words[at + ID_LENGTH] = len(request_id)
        words[at + BUSY_SINCE] = now = monotonic_ns()
        return now

    def answer(self, status: int, size: int, request_size: int = 0) -> None:
        """Count an answer with a body of ``size`` bytes to a request with one of ``request_size``."""
        words = self.words
        words[_WORD_OF_CLASS.get(status // 100, _ANSWERS)] += 1
        if size:
            words[_ANSWER_BYTES] += size
        if request_size:
            words[figures.REQUEST_BYTES] += request_size

    @contextmanager
    def hook(self, line: bytes, thread: int = 0) -> Iterator[None]:
        """Around a hook of the application's classes, in ``thread``: as a call, but no request is counted.

        One within another is a part of that.
        """
        at = ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE
        if self.words[at]:
            yield
            return
        self._show(line, thread)
        try:
            yield
        finally:
            self.words[at] = 0

    def extend(self, deadline: int, thread: int = 0) -> None:
        """Let the call in hand last until ``deadline`` (CLOCK_MONOTONIC in ns), if it may not last longer already."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        since = words[at + BUSY_SINCE]
        if words[at + DEADLINE_OF] != since or deadline > words[at + DEADLINE]:
            words[at + DEADLINE_OF] = 0  # so that no reader sees the new time for an old call, or the other way
            words[at + DEADLINE] = deadline
            words[at + DEADLINE_OF] = since

    def since(self, thread: int = 0) -> float:
        """When the call in hand has begun (CLOCK_MONOTONIC in seconds), for the process itself."""
        return self.words[ROW_WORDS + thread * THREAD_WORDS + BUSY_SINCE] * NANO

    def upgrade(self, thread: int = 0) -> None:
        """Note that the call in hand has become a WebSocket."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        words[at + WEBSOCKET_OF] = words[at + BUSY_SINCE]

    def await_client(self, waits: bool, thread: int = 0) -> None:
        """Note that the call in hand waits for its client to take something, or that it goes on."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        words[at + CLIENT_OF] = words[at + BUSY_SINCE] if waits else 0
        if not waits:
            words[at + PROGRESS] = monotonic_ns()

    def come_on(self, thread: int = 0) -> None:
        """Note that the call in hand has yielded a block."""
        self.words[ROW_WORDS + thread * THREAD_WORDS + PROGRESS] = monotonic_ns()

    def busy(self, thread: int = 0) -> Busy | None:
        """What ``thread`` serves now, or None. Read twice: a call that ended between the readings is no call."""
        words, at = self.words, ROW_WORDS + thread * THREAD_WORDS
        since = words[at + BUSY_SINCE]
        if not since:
            return None
        text = bytes(self._lines[thread])
        request_id = text[_ID_AT:][: words[at + ID_LENGTH]]
        line = (text[:_ID_AT] if request_id else text)[: words[at + LINE_LENGTH]]
        deadline = words[at + DEADLINE] if words[at + DEADLINE_OF] == since else 0
        websocket = words[at + WEBSOCKET_OF] == since
        awaits_client = words[at + CLIENT_OF] == since
        progress = words[at + PROGRESS]
        if words[at + BUSY_SINCE] != since:
            return None
        moved = progress if progress > since else 0  # else it is that of an earlier call
        return Busy(
            since, printable_ascii(line), deadline, websocket, awaits_client, printable_ascii(request_id), moved
        )

    def calls(self) -> list[Busy]:
        """What the application's threads serve now, and then the hook that the loop is in, if it is in one."""
        return [busy for place in range(self.places) if (busy := self.busy(place)) is not None]

    def figure(self, word: int) -> int:
        """The figure in ``word``, at most MOST."""
        return min(self.words[word], MOST)

    def set(self, word: int, value: int) -> None:
        """Write ``value`` into ``word``, for the master; a worker writes into ``words``, which is quicker."""
        self.words[word] = value

    def lose_lines(self, count: int) -> None:
        """Note that so many lines of a log could not be written."""
        self.words[LOST_LINES] += count

    def idle(self) -> bool:
        """Whether this process serves, and has an application thread that is in no call."""
        return self.words[STATE] == SERVING and self.has_free_thread()

    def has_free_thread(self) -> bool:
        """Whether an application thread is in no call."""
        words, threads_end = self.words, ROW_WORDS + self.threads * THREAD_WORDS
        return any(not words[at + BUSY_SINCE] for at in range(ROW_WORDS, threads_end, THREAD_WORDS))

    def clear(self) -> None:
        """Leave nothing of the last process in it."""
        for at in range(len(self.words)):
            self.words[at] = 0


class UnsealedRow(Row):
    """A row of memory that a process of an older program can cut off: read and written by calls, never mapped."""

    __slots__ = ("_bytes", "_fd", "_offset", "_words")

    def __init__(self, fd: int, index: int, shape: Shape) -> None:
        self._fd = fd
        self._offset = HEADER_WORDS * WORD + index * shape.row_bytes
        self._bytes = bytearray(shape.row_bytes)
        super().__init__(memoryview(self._bytes), index, shape.threads)

    @property
    def words(self) -> memoryview:
        """A copy as of now; of what is cut off, as of before."""
        os.preadv(self._fd, [self._bytes], self._offset)
        return self._words

    @words.setter
    def words(self, words: memoryview) -> None:
        self._words = words

    def set(self, word: int, value: int) -> None:
        os.pwrite(self._fd, value.to_bytes(WORD, sys.byteorder), self._offset + word * WORD)

    def clear(self) -> None:
        self._bytes[:] = bytes(len(self._bytes))
        os.pwrite(self._fd, self._bytes, self._offset)


class Scoreboard:
    """All rows, in memory that is shared with every process forked later.

    ``rows`` is how many processes can be alive at once, ``threads`` how many application threads each has; ``fd`` is
    the descriptor of one that was made so before. Raises OSError where the memory cannot be had.
    """

    def __init__(self, rows: int, threads: int = 1, fd: int = -1) -> None:
        self.rows = rows
        self.threads = threads
        self.shape = shape = Shape(rows, threads)
        self._leased: set[int] = set()
        self.fd = syscalls.sealed_memory("forkserver-scoreboard", shape.size) if fd < 0 else fd
        self._header: memoryview | None = None
        if fcntl.fcntl(self.fd, fcntl.F_GET_SEALS) & syscalls.SEALS != syscalls.SEALS:
            self._rows: list[Row] = [UnsealedRow(self.fd, index, shape) for index in range(rows)]
            return
        try:
            self._map = mmap.mmap(self.fd, shape.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except BaseException:
            os.close(self.fd)
            raise
        self._memory = memory = memoryview(self._map)
        self._header = memory[: HEADER_WORDS * WORD].cast("Q")
        for at, word in enumerate((MAGIC, LAYOUT, rows, threads)):
            self._header[at] = word
        starts = range(HEADER_WORDS * WORD, shape.size, shape.row_bytes)
        self._rows = [Row(memory[at : at + shape.row_bytes], index, threads) for index, at in enumerate(starts)]

    @classmethod
    def restore(cls, fd: int, shape: Shape | None = None) -> Scoreboard:
        """The one behind ``fd``, with all that is written in it.

        Without its ``shape``, which an older program does not tell, its header is asked and compared with its size.
        Raises ForkserverError for another layout.
        """
        if shape is None:
            head = os.pread(fd, 4 * WORD, 0).ljust(4 * WORD, b"\0")
            magic, layout, *found = struct.unpack("=4Q", head)
            shape = Shape(*found)
            if (magic, layout) != (MAGIC, LAYOUT) or not 0 < shape.rows <= _MOST_ROWS or not shape.threads:
                raise ForkserverError(f"descriptor {fd} is no scoreboard of layout {LAYOUT}; restart instead")
        if os.fstat(fd).st_size != shape.size:
            raise ForkserverError(f"the scoreboard behind descriptor {fd} was cut off; restart instead")
        return cls(*shape, fd=fd)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]

    def __len__(self) -> int:
        return self.rows

    @property
    def sealed(self) -> bool:
        """Whether no process can cut it off; else it is of an older program, and nothing else is to be put into it."""
        return self._header is not None

    @property
    def serving(self) -> int:
        """How many of the processes serve, for the workers to see."""
        return 0 if self._header is None else self._header[_SERVING_WORD]

    @serving.setter
    def serving(self, count: int) -> None:
        if self._header is None:
            os.pwrite(self.fd, count.to_bytes(WORD, sys.byteorder), _SERVING_WORD * WORD)
        else:
            self._header[_SERVING_WORD] = count

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def lease(self) -> Row | None:
        """A free row, marked as starting, or None where every row is taken."""
        for row in self._rows:
            if row.index not in self._leased:
                self._leased.add(row.index)
                row.clear()
                row.set(STATE, STARTING)
                return row
        return None

    def keep(self, index: int) -> Row:
        """The row that the program before has leased."""
        self._leased.add(index)
        return self._rows[index]

    def release(self, row: Row) -> None:
        """Give a row back, with nothing of its last process in it."""
        row.clear()
        self._leased.discard(row.index)
