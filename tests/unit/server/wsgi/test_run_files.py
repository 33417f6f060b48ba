"""``wsgi.file_wrapper`` sends what reading the file would give, and by sendfile where that is the same."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.wsgi.file_wrapper import FileWrapper
from harness.sink import Sink, answer

DATA = bytes(range(256)) * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.write_bytes(DATA)
    return made


def sending(file: Any, *headers: tuple[str, str], before: bytes = b"") -> Any:
    """An application that answers with ``file``."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", list(headers))
        if before:
            write(before)
        return environ["wsgi.file_wrapper"](file, 1000)

    return app


def test_a_regular_file_goes_by_sendfile_with_its_length(path: Path) -> None:
    file = path.open("rb")
    got = answer(sending(file))
    assert got.sink.files == 1
    assert got.header("Content-Length") == str(len(DATA))
    assert got.body == DATA
    assert got.response.sent == len(DATA)
    assert got.response.persistent
    assert file.closed


@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_a_file_is_sent_from_where_it_stands(path: Path, mode: str, buffering: int) -> None:
    """The application may have read its first part; what the buffer read ahead is not read by anybody yet."""
    with path.open(mode, buffering) as file:
        file.read(10)
        got = answer(sending(file))
    assert got.sink.files == 1
    assert got.body == DATA[10:]


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile], ids=["nameless", "named"])
def test_a_temporary_file_goes_by_sendfile(make: Any) -> None:
    with make() as file:
        file.write(DATA)
        file.seek(0)
        got = answer(sending(file))
    assert got.sink.files == 1
    assert got.body == DATA


class Shouting(io.FileIO):
    """Gives other bytes than its descriptor."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(-1 if size is None else size).upper()

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def transforming(kind: str, path: Path) -> Any:
    if kind == "gzip":
        path.write_bytes(gzip.compress(b"hello"))
        return gzip.open(path)
    path.write_bytes(b"hello")
    raw = Shouting(path)
    return raw if kind == "raw" else io.BufferedReader(raw)


@pytest.mark.parametrize(("kind", "read"), [("gzip", b"hello"), ("raw", b"HELLO"), ("buffered", b"HELLO")])
def test_a_file_that_reads_other_bytes_than_it_holds_is_read(path: Path, kind: str, read: bytes) -> None:
    """A gzip file has a descriptor too, and behind it are bytes that the client cannot read."""
    got = answer(sending(transforming(kind, path)))
    assert got.sink.files == 0
    assert got.body == read


def test_what_has_no_descriptor_is_read() -> None:
    got = answer(sending(io.BytesIO(DATA)))
    assert got.sink.files == 0
    assert got.body == DATA


def test_what_can_only_be_read_is_enough() -> None:
    """PEP 3333 asks of the file-like object no more than read()."""

    class Reading:
        def __init__(self) -> None:
            self.read = io.BytesIO(DATA).read

    assert answer(sending(Reading())).body == DATA


def test_a_file_whose_size_is_a_lie_is_read() -> None:
    """Files in /proc say 0."""
    with Path("/proc/self/stat").open("rb") as file:
        got = answer(sending(file))
    assert got.sink.files == 0
    assert got.body


def test_a_pipe_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        got = answer(sending(file))
    assert got.sink.files == 0
    assert got.body == b"hello"


def test_a_file_is_cut_to_the_announced_length(path: Path) -> None:
    """That is how a range is answered."""
    with path.open("rb") as file:
        got = answer(sending(file, ("Content-Length", "7")))
    assert got.raw_body == DATA[:7]
    assert got.response.persistent


def test_a_file_shorter_than_the_announced_length_ends_the_connection(path: Path) -> None:
    with path.open("rb") as file:
        got = answer(sending(file, ("Content-Length", str(len(DATA) + 1))))
    assert got.raw_body == DATA
    assert not got.response.persistent
    assert got.sink.reports


def test_head_sends_nothing_of_the_file_and_closes_it(path: Path) -> None:
    file = path.open("rb")
    got = answer(sending(file), "HEAD")
    assert got.raw_body == b""
    assert got.header("Content-Length") == str(len(DATA))
    assert file.closed


def test_a_file_behind_write_is_read(path: Path) -> None:
    """The head has gone out without the file's length."""
    with path.open("rb") as file:
        got = answer(sending(file, before=b"first"))
    assert got.sink.files == 0
    assert got.body == b"first" + DATA


def test_a_file_without_start_response_is_a_500_and_closed(path: Path) -> None:
    file = path.open("rb")
    got = answer(lambda environ, _start: environ["wsgi.file_wrapper"](file))
    assert got.sink.failed is not None
    assert file.closed


def test_the_file_is_closed_when_the_client_left(path: Path) -> None:
    file = path.open("rb")
    answer(sending(file), sink=Sink(0))
    assert file.closed


def test_a_failing_close_of_the_file_is_reported_and_goes_no_further(path: Path) -> None:
    """It runs when the last byte is sent, in the loop: what it raises would cost other connections theirs."""

    def close() -> None:
        raise RuntimeError("oops")

    with path.open("rb") as file:
        wrapper = FileWrapper(file)
        wrapper.close = close  # type: ignore[method-assign]

        def app(_environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            return wrapper

        got = answer(app)
    assert got.body == DATA
    assert [str(error) for error in got.sink.errors] == ["oops"]
    assert not got.sink.aborted


def test_a_close_of_the_wrappers_own_class_is_called_once_when_the_file_is_sent(path: Path) -> None:
    """PEP 3333 has no file wrapper closed before its bytes are through, however it says what that is."""
    closed: list[Any] = []

    class Wrapper(FileWrapper):
        def __init__(self, filelike: Any) -> None:
            self.filelike = filelike
            self.blksize = 1000

        def close(self) -> None:
            closed.append(self.filelike.closed)

    class Keeping(Sink):
        def send_file(self, head: bytes, file: Any, offset: int, count: int, close: Any) -> None:
            super().send_file(head, file, offset, count, lambda: closed.append("sent"))
            self.close_later = close

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Wrapper(file)

    with path.open("rb") as file:
        sink = Keeping()
        assert answer(app, sink=sink).body == DATA
        assert closed == ["sent"]
        sink.close_later()
    assert closed == ["sent", False]


def test_a_file_is_read_by_the_object_that_reads_it_whatever_its_wrapper_says(path: Path) -> None:
    """An object that lends a file's read() may have a fileno() of its own."""
    (path.parent / "other").write_bytes(b"another's")
    with path.open("rb") as file, (path.parent / "other").open("rb") as other:

        class Lying:
            read, tell = file.read, file.tell
            fileno = other.fileno

        got = answer(sending(Lying()))
    assert got.body == DATA


def test_a_wrapper_that_is_not_returned_is_an_iterable_like_any(path: Path) -> None:
    """PEP 3333: middleware may walk it."""
    with path.open("rb") as file:
        assert b"".join(FileWrapper(file, 1000)) == DATA
