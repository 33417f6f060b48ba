"""Whose bytes the kernel may send by itself: a regular file that reads what its descriptor holds."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Callable
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.wsgi.file_wrapper import FileWrapper

DATA = bytes(range(256)) * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.write_bytes(DATA)
    return made


@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_the_span_of_a_file_begins_where_it_stands(path: Path, mode: str, buffering: int) -> None:
    """The application may have read its first part; what the buffer has read ahead counts as not read."""
    with path.open(mode, buffering) as file:
        assert FileWrapper(file).span() == (file, 0, len(DATA))
        file.read(10)
        assert FileWrapper(file).span() == (file, 10, len(DATA) - 10)
        file.seek(len(DATA) + 5)
        assert FileWrapper(file).span() == (file, len(DATA) + 5, 0)


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile], ids=["nameless", "named"])
def test_a_temporary_file_has_a_span(make: Any) -> None:
    with make() as file:
        file.write(DATA)
        file.seek(5)
        span = FileWrapper(file).span()
        assert span is not None
        assert span[0].fileno() == file.fileno()
        assert span[1:] == (5, len(DATA) - 5)


def test_what_was_written_and_not_flushed_is_in_the_span() -> None:
    """A write behind a read stays in the buffer, over a seek too: the kernel would send what was there before."""
    with tempfile.TemporaryFile() as file:
        file.write(b"%PDF-1.4" + DATA)
        file.seek(0)
        file.read(8)
        file.seek(5)
        file.write(b"1.7")
        file.seek(0)
        assert FileWrapper(file).span() == (file, 0, 8 + len(DATA))
        assert os.pread(file.fileno(), 8, 0) == b"%PDF-1.7"


def test_a_file_is_the_object_that_reads_it_whatever_its_wrapper_says(path: Path) -> None:
    """An object that lends a file's read() may have a fileno() of its own."""
    with path.open("rb") as file:

        class Lying:
            read = file.read

            def fileno(self) -> int:
                raise AssertionError("the file's own number is asked for")

        lying: Any = Lying()
        assert FileWrapper(lying).span() == (file, 0, len(DATA))


class Shouting(io.FileIO):
    """Gives other bytes than its descriptor."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(-1 if size is None else size).upper()


class Reading:
    """PEP 3333 asks of the file-like object no more than read()."""

    read = io.BytesIO(DATA).read


def compressed(path: Path) -> Any:
    path.write_bytes(gzip.compress(DATA))
    return gzip.open(path)


def closed(path: Path) -> Any:
    with path.open("rb") as file:
        return file


def pipe(_path: Path) -> Any:
    reading, writing = os.pipe()
    os.close(writing)
    return os.fdopen(reading, "rb")


def page_without_blocks(path: Path) -> Any:
    """As the files of sysfs say that they are, whatever they hold."""
    with path.open("wb") as file:
        file.truncate(PAGESIZE)
    return path.open("rb")


SPANLESS: dict[str, Callable[[Path], Any]] = {
    "gzip": compressed,
    "raw": Shouting,
    "buffered": lambda path: io.BufferedReader(Shouting(path)),
    "text": lambda path: path.open(),
    "memory": lambda _: io.BytesIO(DATA),
    "read alone": lambda _: Reading(),
    "closed": closed,
    "pipe": pipe,
    "a size of 0 that may be a lie": lambda _: Path("/proc/self/stat").open("rb"),
    "a page that may be a lie": page_without_blocks,
    "device": lambda _: Path("/dev/zero").open("rb"),
}


@pytest.mark.parametrize("make", SPANLESS.values(), ids=SPANLESS)
def test_what_gives_other_bytes_than_its_descriptor_holds_is_read(path: Path, make: Callable[[Path], Any]) -> None:
    """A gzip file has a descriptor too, and behind it are bytes that the client cannot read."""
    file = make(path)
    assert FileWrapper(file).span() is None
    if hasattr(file, "close"):
        file.close()


def test_a_wrapper_that_is_not_returned_is_an_iterable_like_any(path: Path) -> None:
    """PEP 3333: middleware may walk it."""
    with path.open("rb") as file:
        assert [len(block) for block in FileWrapper(file, 10_000)] == [10_000, 10_000, 5600]
