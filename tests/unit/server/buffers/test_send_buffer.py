"""What a client has not taken: memory first, then the spool, within the bounds of both, and each byte in its order."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config.values.numbers import KIB
from forkserver.server.buffers.send_buffer import SEND_MEMORY, FilePart, SendBuffer, duplicate
from forkserver.server.buffers.spool import Spool
from harness.spools import FullDisk


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path), 20 * SEND_MEMORY)


@pytest.fixture
def out(spool: Spool) -> Iterator[SendBuffer]:
    buffer = SendBuffer(spool)
    yield buffer
    buffer.close()


def take(buffer: SendBuffer, step: int = 100 * KIB) -> bytes:
    """What a client gets that takes at most ``step`` bytes at a time."""
    got = []
    while buffer:
        part = buffer.parts[0]
        if isinstance(part, FilePart):
            data = os.pread(part.fd, min(step, part.count), part.offset)
            assert data, "an empty part looks like a file that became shorter"
        else:
            data = bytes(part[:step])
        got.append(data)
        buffer.advance(len(data))
    return b"".join(got)


def test_what_fits_in_memory_stays_there(out: SendBuffer, spool: Spool) -> None:
    assert not out
    assert out.add(b"")
    assert not out, "nothing to send is nothing to wait for"
    assert out.add(b"one")
    assert out.add(memoryview(b"two"))
    assert spool.used == 0
    assert take(out, 2) == b"onetwo"
    assert not out


def test_what_does_not_fit_goes_to_the_spool_in_its_order(out: SendBuffer, spool: Spool) -> None:
    """And so does everything behind it, or it would overtake."""
    data = os.urandom(SEND_MEMORY + 300 * KIB)
    for at in range(0, len(data), 100 * KIB):
        assert out.add(data[at : at + 100 * KIB])
    assert out.add(b"small")
    assert 0 < spool.used < len(data)
    assert take(out) == data + b"small"
    assert spool.used == 0


def test_a_response_may_go_to_the_spool_again(out: SendBuffer, spool: Spool) -> None:
    """A client that is slow, quick, and slow again."""
    block = os.urandom(SEND_MEMORY)
    for _ in range(3):
        assert out.add(block)
        assert out.add(block)
        assert take(out) == block * 2
        assert spool.used == 0


def test_all_answers_of_a_worker_together_have_bounded_memory(out: SendBuffer, spool: Spool) -> None:
    """A thousand clients that read nothing of a page each must not take a gigabyte; a small answer needs no file."""
    spool.answer_memory = SEND_MEMORY
    first, second = SendBuffer(spool), SendBuffer(spool)
    assert first.add(bytes(SEND_MEMORY - 100))
    assert second.add(bytes(64 * KIB))
    assert spool.used == 0
    assert out.add(b"x" * SEND_MEMORY)
    assert spool.used == SEND_MEMORY
    first.close()
    assert take(second) == bytes(64 * KIB)
    assert take(out) == b"x" * SEND_MEMORY
    assert (spool.used, spool.answer_memory) == (0, SEND_MEMORY)


def test_the_rest_of_a_large_block_does_not_keep_all_of_it_in_memory(out: SendBuffer) -> None:
    """The kernel has taken most of it."""
    block = bytes(SEND_MEMORY)
    assert out.add(memoryview(block)[-1000:])
    part = out.parts[0]
    assert isinstance(part, memoryview)
    assert part.obj is not block
    assert take(out) == bytes(1000)


def test_a_block_that_the_client_took_most_of_does_not_stay_in_memory(out: SendBuffer) -> None:
    """Only the rest of it counts for the bound."""
    block = bytes(range(256)) * 4 * KIB
    assert out.add(block)
    out.advance(SEND_MEMORY - 1000)
    part = out.parts[0]
    assert isinstance(part, memoryview)
    assert part.obj is not block
    assert take(out) == block[-1000:]


def test_memory_that_the_client_took_is_there_again(out: SendBuffer, spool: Spool) -> None:
    assert out.add(bytes(SEND_MEMORY))
    out.advance(SEND_MEMORY // 2)
    assert out.add(bytes(SEND_MEMORY // 2))
    assert spool.used == 0


def test_a_spool_file_that_is_half_sent_still_grows(out: SendBuffer) -> None:
    first, second, third = (os.urandom(SEND_MEMORY) for _ in range(3))
    out.add(first)
    out.add(second)
    out.advance(len(first))
    out.advance(1000)
    assert out.add(third)
    assert take(out) == second[1000:] + third


def test_files_and_bytes_keep_their_order(out: SendBuffer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    closed = []
    file = path.open("rb")
    out.add(b"head ")
    out.add_file(FilePart(duplicate(file), 2, 5, lambda: closed.append(file.close())))
    out.add(b" tail")
    assert take(out, 3) == b"head 23456 tail"
    assert len(closed) == 1


def test_bytes_behind_a_file_behind_the_spool_do_not_overtake(out: SendBuffer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"file")
    spooled = os.urandom(SEND_MEMORY + 1)
    with path.open("rb") as file:
        out.add(spooled)
        out.add_file(FilePart(duplicate(file), 0, 4, lambda: None))
        out.add(b"tail")
        assert take(out) == spooled + b"filetail"


@pytest.mark.parametrize("kind", ["full disk", "spent", "no folder"])
def test_where_nothing_more_fits_the_caller_is_told_and_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    """It waits for the client and tries again, perhaps a thousand times: each try must cost nothing."""
    spools = {
        "full disk": FullDisk(),
        "spent": Spool(str(tmp_path), 10),
        "no folder": Spool(str(tmp_path / "none"), SEND_MEMORY * 10),
    }
    spool = spools[kind]
    buffer = SendBuffer(spool)
    assert buffer.add(b"kept")
    block = bytes(SEND_MEMORY)
    for _ in range(20):
        assert not buffer.add(block)
        assert spool.used == 0
    assert take(buffer) == b"kept"
    assert buffer.add(block), "there is room again"
    buffer.close()


def test_a_growing_spool_that_finds_no_more_room_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 8 * (SEND_MEMORY + 10))  # one response gets an eighth
    buffer = SendBuffer(spool)
    data = os.urandom(SEND_MEMORY)
    assert buffer.add(data)
    assert buffer.add(data)
    assert not buffer.add(b"too much for it")
    assert spool.used == SEND_MEMORY
    assert take(buffer) == data * 2
    assert spool.used == 0


def test_closing_closes_every_file_and_gives_the_spool_back(out: SendBuffer, spool: Spool, tmp_path: Path) -> None:
    """A client that leaves in the middle."""
    path = tmp_path / "file"
    path.write_bytes(b"file")
    file = path.open("rb")
    out.add(os.urandom(2 * SEND_MEMORY))
    out.add_file(FilePart(duplicate(file), 0, 4, file.close))
    out.close()
    assert file.closed
    assert not out
    assert spool.used == 0


def test_a_file_that_is_closed_while_it_is_sent_is_sent_to_its_end(out: SendBuffer, tmp_path: Path) -> None:
    """Its number may be that of another client's file by then."""
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "other").write_bytes(b"other")
    file = (tmp_path / "mine").open("rb")
    number = file.fileno()
    out.add_file(FilePart(duplicate(file), 0, 4, lambda: None))
    file.close()
    with (tmp_path / "other").open("rb") as other:
        assert other.fileno() == number
        assert take(out) == b"mine"


def test_a_closed_file_is_not_taken_for_what_has_its_number(tmp_path: Path) -> None:
    """A thread of the application may close it in any moment, also in the one before the duplicate is made."""

    class Closing(io.FileIO):
        def fileno(self) -> int:
            number = super().fileno()
            self.close()
            os.dup2(other.fileno(), number)
            return number

    (tmp_path / "mine").write_bytes(b"mine")
    with (tmp_path / "other").open("w+b") as other:
        mine = Closing(tmp_path / "mine")
        number = io.FileIO.fileno(mine)
        with pytest.raises(ValueError, match="closed"):
            duplicate(mine)
        os.close(number)
        with pytest.raises(ValueError, match="closed"):
            duplicate(mine)


def test_a_forked_child_closes_its_copies_and_tells_the_application_nothing(
    out: SendBuffer, spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"file")
    told = []
    with (tmp_path / "file").open("rb") as file:
        out.add(os.urandom(2 * SEND_MEMORY))
        out.add_file(FilePart(duplicate(file), 0, 4, lambda: told.append(True)))
    files = [part.file for part in out.parts if isinstance(part, FilePart)]
    out.forget()
    assert all(file.closed for file in files)
    assert not out
    assert not told
