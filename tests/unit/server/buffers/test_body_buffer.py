"""A request body: memory first, then the spool, never more than either's bound; and every byte in its order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.buffers.body_buffer import BODY_MEMORY, BodyBuffer
from forkserver.server.buffers.spool import Spool
from harness.spools import FillingDisk, FullDisk


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path), 20 * BODY_MEMORY)


@pytest.mark.parametrize("step", [1000, BODY_MEMORY, 4 * BODY_MEMORY])
def test_a_body_with_memory_needs_no_file(step: int) -> None:
    data = os.urandom(3 * BODY_MEMORY)
    spool = Spool("/nowhere", 0, memory=100 * BODY_MEMORY)
    body = BodyBuffer(spool, len(data))
    for at in range(0, len(data), step):
        body.add(data[at : at + step])
    stream = body.open()
    assert (stream.read(10), stream.read()) == (data[:10], data[10:])
    body.close()
    body.close()
    assert spool.memory == 100 * BODY_MEMORY
    assert stream.closed


def test_a_body_longer_than_its_memory_is_still_bounded(spool: Spool) -> None:
    """A client that sends more than was announced gets a file, not the memory of others."""
    spool.memory = spool._most = 2 * BODY_MEMORY
    body = BodyBuffer(spool, 2 * BODY_MEMORY)
    body.add(bytes(2 * BODY_MEMORY))
    assert spool.used == 0
    body.add(b"x")
    assert spool.used == 2 * BODY_MEMORY + 1
    body.close()
    assert spool.used == 0


@pytest.mark.parametrize("size", [0, 1, BODY_MEMORY, BODY_MEMORY + 1, 3 * BODY_MEMORY])
@pytest.mark.parametrize("step", [1000, BODY_MEMORY, 4 * BODY_MEMORY])
def test_a_body_is_read_as_it_came(spool: Spool, size: int, step: int) -> None:
    data = os.urandom(size)
    body = BodyBuffer(spool)
    for at in range(0, size, step):
        body.add(data[at : at + step])
    assert body.size == size
    assert spool.used == (size if size > BODY_MEMORY else 0)
    stream = body.open()
    assert (stream.read(10), stream.read()) == (data[:10], data[10:])
    body.close()
    assert spool.used == 0
    assert stream.closed == (size > BODY_MEMORY)


def test_a_body_beyond_the_spools_bound_is_an_oserror(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 2 * BODY_MEMORY)
    body = BodyBuffer(spool)
    body.add(bytes(2 * BODY_MEMORY))
    with pytest.raises(OSError, match="max_spool"):
        body.add(b"x")
    body.close()
    assert spool.used == 0


def test_a_body_that_finds_the_disk_full_can_be_closed() -> None:
    """Nothing is left to be written then, which would come in the way of the 503."""
    spool = FullDisk()
    body = BodyBuffer(spool)
    with pytest.raises(OSError, match="No space left"):
        body.add(bytes(BODY_MEMORY + 1))
    body.close()
    assert spool.used == 0


@pytest.mark.parametrize("room", [BODY_MEMORY, BODY_MEMORY + 1000])
def test_a_full_disk_is_told_by_the_write_that_finds_it(tmp_path: Path, room: int) -> None:
    """Not when the body is opened or closed: how much a Python of the day buffers is nothing to depend on."""
    spool = FillingDisk(tmp_path, room)
    body = BodyBuffer(spool)
    body.add(bytes(BODY_MEMORY))
    with pytest.raises(OSError, match="No space left"):
        body.add(bytes(1001))
    body.close()
    assert spool.used == 0


def test_a_write_that_the_kernel_takes_in_part_is_continued(tmp_path: Path) -> None:
    data = os.urandom(2 * BODY_MEMORY)
    body = BodyBuffer(FillingDisk(tmp_path, room=len(data), step=1000))
    body.add(data)
    assert body.open().read() == data
    body.close()


@pytest.mark.parametrize("memory", [0, 100 * BODY_MEMORY])
def test_a_body_is_given_back_although_the_application_took_its_stream_apart(tmp_path: Path, memory: int) -> None:
    spool = Spool(str(tmp_path), 10 * BODY_MEMORY, memory)
    body = BodyBuffer(spool, 2 * BODY_MEMORY)
    for _ in range(2):
        body.add(bytes(BODY_MEMORY))
    taken = body.open().detach()  # type: ignore[attr-defined]
    body.close()
    assert taken.closed
    assert (spool.used, spool.memory) == (0, memory)


def test_a_body_that_is_sent_takes_its_disk_space_until_the_sender_gives_it_back(spool: Spool) -> None:
    body = BodyBuffer(spool)
    body.add(bytes(BODY_MEMORY + 1))
    assert body.is_file(body.open())
    give_back = body.pass_on()
    body.close()
    assert spool.used == BODY_MEMORY + 1
    give_back()
    assert spool.used == 0


def test_only_the_spools_file_is_the_body(spool: Spool, tmp_path: Path) -> None:
    """A file of the application's takes no space of the spool's."""
    in_memory, in_file = BodyBuffer(spool), BodyBuffer(spool)
    in_memory.add(b"small")
    in_file.add(bytes(BODY_MEMORY + 1))
    with (tmp_path / "other").open("w+b") as other:
        assert not in_memory.is_file(other)
        assert not in_file.is_file(other)
    stream: Any = in_file.open()
    assert in_file.is_file(stream)
    assert in_file.is_file(stream.raw)
    assert not in_memory.is_file(in_memory.open())
    in_memory.close()
    in_file.close()


def test_a_missing_spool_folder_is_an_oserror(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "none"), 10 * BODY_MEMORY)
    body = BodyBuffer(spool)
    with pytest.raises(FileNotFoundError):
        body.add(bytes(BODY_MEMORY + 1))
    body.close()
    assert spool.used == 0


def test_closing_twice_gives_back_once(spool: Spool) -> None:
    spool.take(5)
    body = BodyBuffer(spool)
    body.add(bytes(BODY_MEMORY + 1))
    body.close()
    body.close()
    assert spool.used == 5
