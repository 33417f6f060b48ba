"""A body in pieces is read like any other file."""

from __future__ import annotations

import io
import os

import pytest

from forkserver.server.buffers.multi_chunk_reader import MultiChunkReader

PARTS = [b"first\nsec", b"o", b"nd\n", b"third" * 5000]
WHOLE = b"".join(PARTS)


@pytest.mark.parametrize("size", [1, 3, 9, 8192, 10_000, 100_000])
def test_pieces_of_any_size_give_the_whole(size: int) -> None:
    stream = io.BufferedReader(MultiChunkReader(PARTS))
    assert b"".join(iter(lambda: stream.read(size), b"")) == WHOLE


def test_lines_do_not_end_where_a_part_does() -> None:
    assert [*io.BufferedReader(MultiChunkReader(PARTS))] == WHOLE.splitlines(keepends=True)


def test_it_goes_where_it_is_told() -> None:
    stream = io.BufferedReader(MultiChunkReader(PARTS))
    assert stream.seek(-5, os.SEEK_END) == len(WHOLE) - 5
    assert stream.read() == b"third"
    assert stream.seek(8) == 8
    assert stream.read(3) == WHOLE[8:11]
    assert stream.tell() == 11
    assert stream.seek(10, os.SEEK_END) == len(WHOLE) + 10
    assert stream.read() == b""


def test_there_is_nothing_before_the_start() -> None:
    with pytest.raises(ValueError, match="negative"):
        MultiChunkReader(PARTS).seek(-1)


def test_a_closed_one_holds_no_memory() -> None:
    """An application that keeps it has nothing of it."""
    raw = MultiChunkReader(list(PARTS))
    stream = io.BufferedReader(raw)
    stream.close()
    assert raw._parts == []
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)
