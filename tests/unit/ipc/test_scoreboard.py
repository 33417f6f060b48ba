"""What a worker writes every other process reads: the same words, and never a half-written line."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from forkserver.errors import ForkserverError
from forkserver.ipc import scoreboard
from forkserver.ipc.scoreboard import FREE, LINE_BYTES, PID, REQUESTS, SERVING, STARTING, STATE, Row, Scoreboard


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    made = Scoreboard(rows=3, threads=2)
    yield made
    # The program keeps its scoreboard to its end; here the mapping, which holds a descriptor too, has to go.
    for row in made._rows:
        for view in (row.words, *row._lines, row.memory):
            view.release()
    assert made._header is not None
    made._header.release()
    made._memory.release()
    made._map.close()
    os.close(made.fd)


def test_a_row_is_leased_to_one_process_only(board: Scoreboard) -> None:
    leased = [board.lease() for _ in range(3)]
    assert [row.index for row in leased if row] == [0, 1, 2]
    assert [row.words[STATE] for row in leased if row] == [STARTING] * 3
    assert board.lease() is None


def test_a_row_that_was_given_back_says_nothing_of_its_last_process(board: Scoreboard) -> None:
    """A figure of a dead worker would be counted for its successor."""
    row = board.lease()
    assert row is not None
    row.words[PID] = 41
    row.begin(b"GET /secret", thread=1)
    row.end(thread=1)
    row.begin(b"GET /secret", thread=1)
    board.release(row)
    assert row.words[STATE] == FREE
    again = board.lease()
    assert again is row
    assert list(again.words[:STATE]) == [0] * STATE
    assert again.words[REQUESTS] == 0
    assert again.busy(1) is None


def test_rows_and_threads_do_not_touch_each_other(board: Scoreboard) -> None:
    for row in range(3):
        for thread in range(2):
            board[row].begin(b"%d/%d " % (row, thread) + b"x" * 2 * LINE_BYTES, thread, f"id-{row}{thread}" + "y" * 80)
        board[row].words[PID] = 100 + row
    assert len(board) == 3
    for row in range(3):
        assert board[row].words[PID] == 100 + row
        for thread in range(2):
            busy = board[row].busy(thread)
            assert busy is not None
            assert busy.line.startswith(f"{row}/{thread} ")
            assert len(busy.line) == LINE_BYTES - len(busy.request_id)
            assert busy.request_id == f"id-{row}{thread}".ljust(64, "y")


def test_a_call_is_seen_from_its_begin_to_its_end(board: Scoreboard) -> None:
    row = board[0]
    assert row.busy() is None
    row.begin(b"GET /a")
    first = row.busy()
    assert first is not None
    assert first.line == "GET /a"
    row.end()
    assert row.busy() is None
    assert row.words[REQUESTS] == 1
    row.begin(b"GET")
    second = row.busy()
    assert second is not None
    assert second.line == "GET", "nothing is left of a longer line"
    assert second.since > first.since, "two calls of the same line are told apart by when they began"


def test_a_call_is_known_by_the_id_of_its_request(board: Scoreboard) -> None:
    row = board[0]
    row.begin(b"GET /a?secret", 0, "0192-a7")
    first = row.busy()
    assert first is not None
    assert (first.request_id, first.told()) == ("0192-a7", "GET /a (request 0192-a7)")
    assert first.told("2.0 s") == "GET /a (2.0 s, request 0192-a7)"
    row.begin(b"GET /b")
    second = row.busy()
    assert second is not None
    assert (second.request_id, second.told()) == ("", "GET /b"), "nothing is left of the last one's"
    assert second.told("2.0 s") == "GET /b (2.0 s)"
    row.name("later")
    third = row.busy()
    assert third is not None
    assert third.request_id == "later"


def test_a_long_line_of_an_older_program_is_read_whole(board: Scoreboard) -> None:
    """It has the room of the id for its line, and writes no id."""
    row = board[0]
    row.begin(b"")
    row._lines[0][:] = b"x" * LINE_BYTES
    row.words[scoreboard.ROW_WORDS + scoreboard.LINE_LENGTH] = 400
    busy = row.busy()
    assert busy is not None
    assert (busy.line, busy.request_id) == ("x" * LINE_BYTES, "")


def test_a_request_line_of_any_bytes_can_be_read(board: Scoreboard) -> None:
    """It is the client's, and what the worker says of it is shown on terminals."""
    board[0].begin(b"GET /\xff\xfe")
    busy = board[0].busy()
    assert busy is not None
    assert busy.line == r"GET /\xff\xfe"


class Overtaking:
    """The words of a row whose owner does ``between`` while its line is read."""

    def __init__(self, row: Row, between: list[str]) -> None:
        self.row, self.words, self.between = row, row.words, between

    def __getitem__(self, at: int) -> int:
        value = self.words[at]
        if at == scoreboard.ROW_WORDS + scoreboard.LINE_LENGTH:
            for step in self.between:
                writer = Row.__new__(Row)
                writer.words, writer._lines = self.words, self.row._lines
                writer.begin(b"GET /other") if step == "begin" else writer.end()
        return value


@pytest.mark.parametrize("between", [["end"], ["end", "begin"]])
def test_a_call_that_ends_while_it_is_read_is_no_call(board: Scoreboard, between: list[str]) -> None:
    """Else the master would kill a worker for the age of one request and the name of another."""
    row = board[0]
    row.begin(b"GET /long")
    reader = Row.__new__(Row)
    reader.words, reader._lines = Overtaking(row, between), row._lines  # type: ignore[assignment]
    assert reader.busy() is None


def test_a_hook_of_the_loops_own_keeps_no_thread_busy(board: Scoreboard) -> None:
    row = board[0]
    row.words[STATE] = SERVING
    row.begin(b"GET /a")
    row.begin(b"GET /b", 1)
    assert not row.idle(), "the loop's own place is no thread"
    row.end(1)
    with row.hook(b"hook verify_request", row.loop):
        assert [busy.line for busy in row.calls()] == ["GET /a", "hook verify_request"]
        assert row.idle()
    assert [busy.line for busy in row.calls()] == ["GET /a"]
    assert row.figure(REQUESTS) == 1


def test_a_hook_within_a_hook_is_a_part_of_that(board: Scoreboard) -> None:
    row = board[0]
    with row.hook(b"hook outer", row.loop):
        (outer,) = row.calls()
        with row.hook(b"hook inner", row.loop):
            assert row.calls() == [outer]
        assert row.calls() == [outer]
    assert row.calls() == []


def test_another_process_reads_what_was_written(board: Scoreboard) -> None:
    """The memory is shared by its descriptor; a reader finds its way by the header alone."""
    board[1].words[STATE] = SERVING
    board[1].words[PID] = 41
    with mmap.mmap(board.fd, 0, access=mmap.ACCESS_READ) as seen:
        magic, layout, rows, threads = struct.unpack_from("=4Q", seen)
        assert (magic, layout, rows, threads) == (scoreboard.MAGIC, scoreboard.LAYOUT, 3, 2)
        assert seen[:8] == b"forksrvr"
        places = threads + 1  # the last one is the loop's own
        row_bytes = (scoreboard.ROW_WORDS + places * scoreboard.THREAD_WORDS) * 8 + places * LINE_BYTES
        at = scoreboard.HEADER_WORDS * 8 + row_bytes
        assert struct.unpack_from("=4Q", seen, at) == (41, 0, 0, SERVING)
        assert len(seen) == scoreboard.HEADER_WORDS * 8 + rows * row_bytes


def test_a_forked_worker_writes_into_the_masters_memory(board: Scoreboard) -> None:
    pid = os.fork()
    if not pid:
        board[2].begin(b"GET /from-the-child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    busy = board[2].busy()
    assert busy is not None
    assert busy.line == "GET /from-the-child"


def test_the_memory_is_not_inherited_by_a_program_that_is_executed(board: Scoreboard) -> None:
    assert not os.get_inheritable(board.fd)


@pytest.mark.parametrize("words", [scoreboard.ROW_WORDS, scoreboard.THREAD_WORDS])
def test_named_words_have_room_in_their_row(words: int) -> None:
    names = {scoreboard.ROW_WORDS: scoreboard.ACCEPTED, scoreboard.THREAD_WORDS: scoreboard.LINE_LENGTH}
    assert names[words] < words


# A worker that writes anything


@pytest.mark.parametrize("size", [0, 100, 1 << 20])
def test_the_memory_keeps_its_size(board: Scoreboard, size: int) -> None:
    """A process that reads what was cut off is killed by SIGBUS; the seals are sealed, too."""
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(board.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_leases_and_geometry_are_not_read_from_the_shared_memory(board: Scoreboard) -> None:
    """Rows that say they are taken are given out all the same, and a next program finds what it was told."""
    for word in range(scoreboard.HEADER_WORDS):
        assert board._header is not None
        board._header[word] = (1 << 64) - 1
    for row in board:
        row.words[STATE] = SERVING
    assert [row.index for row in iter(board.lease, None)] == [0, 1, 2]
    board.release(board[1])
    board[1].words[STATE] = SERVING
    assert board.lease() is board[1]
    same = Scoreboard.restore(board.fd, board.shape)
    assert (same.rows, same.threads) == (3, 2)
    assert same.keep(2).index == 2
    assert [row.index for row in iter(same.lease, None)] == [0, 1]


def test_a_header_that_lies_about_its_size_is_refused(board: Scoreboard) -> None:
    """An older program tells nothing but the header."""
    assert board._header is not None
    for rows, threads in ((2, 2), (3, 1), (0, 2), (3, 0), (1 << 63, 1 << 62)):
        board._header[2], board._header[3] = rows, threads
        with pytest.raises(ForkserverError):
            Scoreboard.restore(board.fd)


def test_figures_and_times_are_bounded_where_they_are_read(board: Scoreboard) -> None:
    row = board[0]
    for at in range(len(row.words)):
        row.words[at] = (1 << 64) - 1
    for line in row._lines:
        line[:] = b"\x1b[2J\n" + b"\x00" * (LINE_BYTES - 5)
    assert row.figure(REQUESTS) == scoreboard.MOST
    busy = row.busy(1)
    assert busy is not None
    assert busy.seconds(1000.0) == 0.0
    assert busy.line.isprintable()
    assert busy.line.isascii()


@pytest.fixture
def unsealed() -> Iterator[Scoreboard]:
    """One that an older program has made and its workers write to, and what the next master makes of it."""
    shape = scoreboard.Shape(2, 1)
    fd = os.memfd_create("older", os.MFD_CLOEXEC)
    os.ftruncate(fd, shape.size)
    os.pwrite(fd, struct.pack("=4Q", scoreboard.MAGIC, scoreboard.LAYOUT, *shape), 0)
    yield Scoreboard.restore(fd)
    os.close(fd)


def test_an_older_scoreboard_is_read_without_being_mapped(unsealed: Scoreboard) -> None:
    """A worker can cut it off at any time."""
    row = unsealed.keep(1)
    with mmap.mmap(unsealed.fd, 0) as shared:
        theirs = Row(memoryview(shared)[64 + unsealed.shape.row_bytes :], 1, 1)
        theirs.begin(b"GET /older")
        theirs.words[REQUESTS] = 7
        busy = row.busy()
        assert busy is not None
        assert (busy.line, row.figure(REQUESTS)) == ("GET /older", 7)
        row.set(PID, 41)
        unsealed.serving = 3
        assert theirs.words[PID] == 41
        assert struct.unpack_from("=Q", shared, 32) == (3,)
        row.clear()
        assert theirs.words[REQUESTS] == 0
        for view in (theirs.words, *theirs._lines):
            view.release()
        theirs = None  # type: ignore[assignment]
        gc.collect()
    assert not unsealed.sealed
    os.ftruncate(unsealed.fd, 0)
    assert row.busy() is None
    row.set(STATE, SERVING)
    assert [each.index for each in iter(unsealed.lease, None)] == [0]
